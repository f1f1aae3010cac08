"""Two displays of progress: a live display on a terminal, plain lines everywhere else (pipes, CI logs)."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

WIDEST = 10_000  # columns of what is no terminal
QUIET_S = 60.0  # without a line, after which plain lines say what still goes on
PERCENT = re.compile(r":? *\d+ ?%")


def clock(seconds: float) -> str:
    """Return an elapsed time in words.

    >>> clock(9.4), clock(83), clock(3723)
    ('9s', '1m23s', '1h02m')
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


@dataclass(frozen=True)
class PhaseTime:
    """A phase that ended, and how many seconds it took."""

    title: str
    seconds: float


class PlainProgress:
    """One line per phase and task, each with the time since the command began.

    [   12s] cluster: worker1: kubeadm join

    Where nothing else was printed for ``quiet_s`` seconds of a phase, a line says what still goes on.
    """

    def __init__(self, file: TextIO | None = None, *, quiet_s: float = QUIET_S) -> None:
        self.file = file
        self.quiet_s = quiet_s
        self._last = time.monotonic()
        self.began = time.monotonic()
        self.ended: list[PhaseTime] = []
        self._phase = ""
        self._task = ""
        self._lock = threading.Lock()

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        outer, self._phase = self._phase, title
        began = time.monotonic()
        self._say(f"{title} ...")
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=[over], name="still-there", daemon=True)
        beat.start()
        try:
            yield
        finally:
            self._phase, self._task = outer, ""
            over.set()
            beat.join()
        taken = time.monotonic() - began
        self.ended.append(PhaseTime(title, taken))
        self._say(f"{title}: done in {clock(taken)}")

    def task(self, text: str) -> None:
        what = PERCENT.sub("", text)
        if what != self._task:  # a repeated task is one line, and so is one that only counts up
            self._task = what
            self._say(f"{self._phase}: {what}" if self._phase else what)

    def note(self, text: str) -> None:
        self._say(text)

    def _beat(self, over: threading.Event) -> None:
        """Say what goes on whenever nothing was said for a while."""
        while not over.wait(max(0.0, self._last + self.quiet_s - time.monotonic())):
            if time.monotonic() - self._last >= self.quiet_s:
                what = f"{self._phase}: {self._task}" if self._task else self._phase
                self._say(f"still at {what}")

    def _say(self, text: str) -> None:
        with self._lock:
            self._last = time.monotonic()
            print(f"[{clock(time.monotonic() - self.began):>6}] {text}", file=self.file or sys.stderr, flush=True)


class LiveProgress:
    """The phases that ended, then the running one with a spinner, its elapsed time and its current task."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.ended: list[PhaseTime] = []
        self._task = ""
        self._title = ""
        self._began = 0.0
        self._spinner = Spinner("dots")

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        self._title, self._task, self._began = title, "", time.monotonic()
        with Live(get_renderable=self.render, console=self.console, transient=True, refresh_per_second=8):
            yield
        taken = time.monotonic() - self._began
        self.ended.append(PhaseTime(title, taken))
        line = Text.assemble((" ✓ ", "green"), f"{title:<34}", (f"{clock(taken):>8}", "dim"))
        self.console.print(line)

    def task(self, text: str) -> None:
        self._task = text

    def note(self, text: str) -> None:
        self.console.print(Text.assemble((" • ", "yellow"), text))

    def render(self) -> RenderableType:
        """Return the running phase as it is shown now."""
        head = Table.grid(padding=(0, 1))
        head.add_row(
            Text(" "),
            self._spinner,
            Text(f"{self._title:<32}"),
            Text(f"{clock(time.monotonic() - self._began):>8}", style="dim"),
        )
        if not self._task:
            return head
        return Group(head, Text(f"     {self._task}", style="dim", overflow="ellipsis", no_wrap=True))


ConsoleProgress = PlainProgress | LiveProgress


def output() -> Console:
    """Return a console for results: lines are cut into pieces by a terminal alone, not in a pipe or a file."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=WIDEST)
    return console


def progress() -> ConsoleProgress:
    """Return the live display where standard error is a terminal, plain lines elsewhere."""
    console = Console(stderr=True)
    return LiveProgress(console) if console.is_terminal and not console.is_dumb_terminal else PlainProgress()
