"""The lines of a pipe: as of a file, with looks in between."""

from __future__ import annotations

import os
import select
import signal

import pytest

from hoplab.core import pipe_lines


def test_lines_are_those_of_a_pipe_and_its_end() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as pipe:
        lines = pipe_lines.PipeLines(pipe)
        os.write(writing, b"one\n\ntw")
        assert [next(lines), next(lines)] == [b"one\n", b"\n"]
        os.write(writing, b"o\xff\nlast")
        assert next(lines) == b"two\xff\n"
        os.close(writing)
        assert list(lines) == [b"last"]


def test_an_interruption_just_before_a_read_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is noted, and ends no call: nothing is read before the next look."""
    reading, writing = os.pipe()
    looks: list[float] = []

    def look(*_: object) -> tuple[list[int], list[int], list[int]]:
        looks.append(pipe_lines.LOOK_S)
        if len(looks) == 2:
            signal.raise_signal(signal.SIGINT)
        return [], [], []

    monkeypatch.setattr(select, "select", look)
    with open(reading, "rb", buffering=0) as pipe, pytest.raises(KeyboardInterrupt):
        next(pipe_lines.PipeLines(pipe))
    os.close(writing)
    assert len(looks) == 2
