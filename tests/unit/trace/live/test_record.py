"""Traces of real packets in files: they are small, read back the same, and the pages show them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from hoplab.core.paths import PROJECT
from hoplab.trace import render, svg
from hoplab.trace.live import record
from hoplab.trace.live.record import TraceFileError
from tests.support.files import RECORDINGS

TRACES = sorted((RECORDINGS / "traces").glob("*.json"))
PAGE = PROJECT / "docs" / "trace.md"
BLOCK = re.compile(r"<!-- recorded: (\w+) -->\n(?:\n```\n.*?```\n)?", re.DOTALL)


@pytest.mark.parametrize("file", TRACES, ids=lambda file: file.stem)
def test_a_recorded_trace_reads_back_the_same(file: Path, tmp_path: Path) -> None:
    trace = record.load(file)
    assert record.is_trace(file) and trace.sent and trace.sent.hops
    record.save(trace, tmp_path / "a.json")
    assert record.load(tmp_path / "a.json") == trace
    assert (tmp_path / "a.json").read_text() == file.read_text()
    assert file.stat().st_size < 20_000


def test_other_files_are_no_traces(tmp_path: Path) -> None:
    assert not record.is_trace(RECORDINGS / "flannel-vxlan.json")
    assert not record.is_trace(tmp_path / "none.json")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert not record.is_trace(tmp_path / "bytes")
    for text in ("", "[]", '{"hoplab_trace": 1}', '{"hoplab_trace": 1, "trace": {"source": 3}}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(TraceFileError, match="is not a recorded trace: "):
            record.load(tmp_path / "a.json")


@pytest.mark.docs
def test_the_page_shows_them() -> None:
    """UPDATE_GOLDEN=1 writes them into it, and draws their figures."""
    traces = {file.stem: record.load(file) for file in TRACES}
    figures = {PROJECT / "docs" / "trace" / f"{name}.svg": svg.drawing(trace) for name, trace in traces.items()}
    before = PAGE.read_text()
    shown = BLOCK.findall(before)
    wanted = BLOCK.sub(
        lambda found: f"<!-- recorded: {found[1]} -->\n\n```\n{render.text(traces[found[1]])}```\n", before
    )
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(wanted)
        for file, text in figures.items():
            file.write_text(text)
    assert shown and set(shown) <= set(traces)
    assert PAGE.read_text() == wanted, "if that is intended: UPDATE_GOLDEN=1 ./lab test --fast"
    assert {file: file.read_text() for file in figures} == figures
