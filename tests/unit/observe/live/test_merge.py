"""The order of packets: what is guaranteed, for arrivals of any kind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hoplab.observe.live.merge import Merge

DELAY = 100
HOSTS, AHEAD = ("a", "b"), {"a": 10_000, "b": -700}
ARRIVALS = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 300)), max_size=30)  # time, way here


def merged(arrivals: list[tuple[int, int]], step: int = 1) -> tuple[list[tuple[int, int, int]], Merge[int]]:
    """Arrivals as they come; what was given, as (when, time, number of the arrival), and the merge."""
    merge: Merge[int] = Merge(DELAY, AHEAD.__getitem__)
    given_items, queue = [], sorted((time + way, time, number) for number, (time, way) in enumerate(arrivals))
    for now in range(0, 1500, step):
        while queue and queue[0][0] <= now:
            _, time, number = queue.pop(0)
            merge.push(HOSTS[number % 2], time + AHEAD[HOSTS[number % 2]], 0, number, now)
        given_items += [(now, time, number) for time, number in merge.due(now)]
    return given_items, merge


@given(ARRIVALS)
def test_every_packet_is_given_once_and_in_time(arrivals: list[tuple[int, int]]) -> None:
    found, merge = merged(arrivals)
    assert sorted(number for _, _, number in found) == list(range(len(arrivals)))
    assert all(when <= sum(arrivals[number]) + DELAY for when, _, number in found)
    assert merge.next_due() is None and merge.flush() == []


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(50, 50 + DELAY - 1)), max_size=30))
def test_ways_that_differ_by_less_than_the_delay_keep_the_order(arrivals: list[tuple[int, int]]) -> None:
    found, merge = merged(arrivals)
    times = [time for _, time, _ in found]
    assert times == sorted(times)
    assert merge.late == 0


def test_a_packet_that_is_too_late_is_counted_and_not_lost() -> None:
    merge: Merge[str] = Merge(DELAY)
    merge.push("a", 500, 0, "quick", now=510)
    assert merge.next_due() == 610
    assert merge.due(609) == []
    assert merge.due(610) == [(500, "quick")]
    merge.push("b", 400, 0, "slow", now=620)
    assert merge.due(720) == [(400, "slow")]
    assert merge.late == 1


def test_packets_of_one_moment_are_in_the_order_of_places_and_then_of_arrival() -> None:
    merge: Merge[str] = Merge(DELAY)
    for rank, name in ((2, "third"), (1, "first"), (1, "second")):
        merge.push("a", 7, rank, name, now=0)
    assert [name for _, name in merge.flush()] == ["first", "second", "third"]


def test_what_is_known_of_a_clock_when_a_packet_leaves_counts() -> None:
    ahead = {"a": 0, "b": 0}
    merge: Merge[str] = Merge(DELAY, ahead.__getitem__)
    merge.push("a", 50, 0, "of a", now=0)
    merge.push("b", 60, 0, "of b", now=1)
    ahead["b"] = 20
    assert merge.due(DELAY) == [(40, "of b"), (50, "of a")]
