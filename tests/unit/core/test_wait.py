"""Waits end with a value or with a reason, at a deadline that grows with the slowness of the host."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hoplab.core import wait
from hoplab.core.paths import PROJECT
from hoplab.core.wait import Expired, NotYet, Timing


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def timing(clock: Clock, slowness: float = 1.0) -> Timing:
    return Timing(clock, clock.sleep, lambda: slowness)


def reasons(*texts: str) -> Iterator[str | NotYet]:
    yield from (NotYet(text) for text in texts)
    while True:
        yield "a value"


def test_until_returns_the_first_value_and_tells_why_it_waits(clock: Clock) -> None:
    look, told = reasons("no node", "no pod"), list[str]()
    assert timing(clock).until(lambda: next(look), 60, report=told.append) == "a value"
    assert told == ["no node", "no pod"] and clock.slept == [1.0, 1.0]


def test_until_raises_the_last_reason_at_the_deadline(clock: Clock) -> None:
    look = reasons("no node", "no pod", "no answer", "never")
    with pytest.raises(Expired, match=r"^no answer \(after 2 s\)$") as caught:
        timing(clock).until(lambda: next(look), 2)
    assert caught.value.reason == "no answer" and caught.value.seconds == 2


def test_until_looks_once_without_any_time(clock: Clock) -> None:
    assert timing(clock).until(lambda: next(reasons()), 0) == "a value"
    with pytest.raises(Expired, match="no node"):
        timing(clock, slowness=9.0).until(lambda: next(reasons("no node")), 0)
    assert clock.slept == []


def test_a_falsy_value_is_a_value(clock: Clock) -> None:
    assert timing(clock).until(lambda: 0, 1) == 0
    assert timing(clock).until(lambda: None, 1) is None


def test_deadlines_are_scaled_by_the_slowness_measured_when_they_are_over(clock: Clock) -> None:
    with pytest.raises(Expired) as caught:
        timing(clock, slowness=2.5).until(lambda: NotYet("no node"), 10)
    assert caught.value.seconds == 25 and clock.now == 125


def test_threads_that_share_a_deadline_see_the_scaled_one(clock: Clock) -> None:
    """The measurement takes a moment, in which another thread must not take the deadline for passed."""

    def slowness() -> float:
        time.sleep(0.2)
        return 3.0

    deadline = Timing(clock, clock.sleep, slowness).deadline(10)
    clock.now += 10
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(lambda _: deadline.left(), range(4))) == [20.0] * 4


def test_a_wait_that_ends_in_time_measures_nothing(clock: Clock) -> None:
    def fail() -> float:
        raise AssertionError("measured")

    look = reasons("no node")
    assert Timing(clock, clock.sleep, fail).until(lambda: next(look), 10) == "a value"


def test_the_last_sleep_ends_at_the_deadline(clock: Clock) -> None:
    with pytest.raises(Expired):
        timing(clock).until(lambda: NotYet("no node"), 2.5, poll_s=2.0)
    assert clock.slept == [2.0, 0.5]


def test_settled_returns_what_is_good_or_what_is_there_at_the_deadline(clock: Clock) -> None:
    assert timing(clock).settled(iter(range(100)).__next__, lambda number: number == 3, 1.0) == 3
    assert timing(clock, slowness=2.0).settled(lambda: clock.now, lambda _now: False, 1.0) == pytest.approx(102.6)


def test_a_deadline_says_what_is_left(clock: Clock) -> None:
    deadline = timing(clock, slowness=3.0).deadline(10)
    clock.sleep(4)
    assert deadline.left() == 6
    clock.sleep(6)
    assert deadline.left() == 20
    clock.sleep(30)
    assert deadline.left() == 0 and deadline.seconds == 30


@pytest.mark.parametrize(
    ("accel", "load", "slowness", "expected"),
    [
        ("kvm", 0.0, 0.5, 1.0),
        ("tcg", 0.0, 0.5, 6.0),
        ("kvm", 4.0, 1.0, 2.0),
        ("kvm", 99.0, 1.0, 3.0),
        ("tcg", 2.0, 9.0, 24.0),
    ],
)
def test_slowness_grows_with_emulation_load_and_slow_cores(
    monkeypatch: pytest.MonkeyPatch, accel: str, load: float, slowness: float, expected: float
) -> None:
    instants = iter([0.0, slowness * wait.REFERENCE_S])
    monkeypatch.setattr(time, "perf_counter", lambda: next(instants))
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert wait.slowness(accel) == pytest.approx(expected)  # type: ignore[arg-type]


def test_nothing_else_waits_by_sleeping() -> None:
    package = PROJECT / "hoplab"
    sleepers = {
        str(file.relative_to(package)) for file in package.rglob("*.py") if re.search(r"\bsleep\(", file.read_text())
    }
    readable = {"image/readable/api.py", "image/readable/controller.py"}  # a program of its own, on machines
    assert sleepers == {"core/wait.py", *readable, "verify/session.py"}  # there it is a time in the cluster
