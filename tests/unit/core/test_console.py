"""What people see while long work goes on."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from hoplab.core.console import LiveProgress, PlainProgress, clock, output


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (3723, "1h02m")]
)
def test_elapsed_times_are_written_in_words(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_plain_progress_prints_phase_and_task_once(capsys: pytest.CaptureFixture[str]) -> None:
    shown = PlainProgress()
    with shown.phase("cluster"):
        shown.task("worker1: Join")
        shown.task("worker1: Join")
        shown.note("worker1: restarted")
    lines = [line.split("] ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["cluster ...", "cluster: worker1: Join", "worker1: restarted", "cluster: done in 0s"]
    assert [ended.title for ended in shown.ended] == ["cluster"]


def test_plain_progress_of_an_upload_is_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    shown = PlainProgress()
    with shown.phase("machines"):
        for percent in range(5, 101, 5):
            shown.task(f"uploading disk: {percent} %")
    assert len(capsys.readouterr().err.splitlines()) == 3


class Lines(io.StringIO):
    """A file that says when a line with certain words is written."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words, self.written = words, threading.Event()

    def write(self, text: str) -> int:
        if self.words in text:
            self.written.set()
        return super().write(text)


def test_plain_progress_says_now_and_then_what_still_goes_on() -> None:
    file = Lines("still at cluster: worker1: Join")
    shown = PlainProgress(file, quiet_s=0.01)
    with shown.phase("cluster"):
        shown.task("worker1: Join")
        assert file.written.wait(60)
    with shown.phase("usable"):
        file.words = "still at usable"
        file.written.clear()
        assert file.written.wait(60)
    assert "still at usable: worker1" not in file.getvalue()
    assert not [thread for thread in threading.enumerate() if thread.name == "still-there"]


def test_plain_progress_that_is_not_quiet_says_nothing_more(capsys: pytest.CaptureFixture[str]) -> None:
    shown = PlainProgress()
    with shown.phase("cluster"):
        shown.task("worker1: Join")
    assert "still" not in capsys.readouterr().err


def test_results_in_a_pipe_are_not_cut_into_lines(capsys: pytest.CaptureFixture[str]) -> None:
    output().print("word " * 100, markup=False)
    assert capsys.readouterr().out == f"{'word ' * 100}\n"


def test_a_phase_that_fails_is_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    shown = PlainProgress()
    with pytest.raises(ValueError, match="broken"), shown.phase("machines"):
        raise ValueError("broken")
    assert "done" not in capsys.readouterr().err
    assert shown.ended == []


def test_live_display_keeps_what_ended_and_notes() -> None:
    out = io.StringIO()
    shown = LiveProgress(Console(file=out, force_terminal=True, width=80, color_system=None))
    with shown.phase("node image"):
        shown.task("kubelet")
        shown.note("a retry")
        display = Console(width=80, file=io.StringIO(), record=True)
        display.print(shown.render())
        now = display.export_text()
        assert "node image" in now
        assert "kubelet" in now
    text = out.getvalue()
    assert "✓ node image" in text
    assert "a retry" in text
