"""The order of packets: what is guaranteed, for arrivals of any kind."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hoplab.observe.live.clock_offset import ClockOffset, Sample
from hoplab.observe.live.merge import Merge

DELAY = 100
ARRIVALS = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 300)), max_size=30)  # time, way here


def merged(arrivals: list[tuple[int, int]], step: int = 1) -> tuple[list[tuple[int, int, int]], Merge[int]]:
    """Arrivals as they come; what was given, as (when, time, number of the arrival), and the merge."""
    merge: Merge[int] = Merge(DELAY)
    given_items, queue = [], sorted((time + way, time, number) for number, (time, way) in enumerate(arrivals))
    for now in range(0, 1500, step):
        while queue and queue[0][0] <= now:
            _, time, number = queue.pop(0)
            merge.push(time, number, now)
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
    merge.push(500, "quick", now=510)
    assert merge.next_due() == 610
    assert merge.due(609) == []
    assert merge.due(610) == [(500, "quick")]
    merge.push(400, "slow", now=620)
    assert merge.late == 1
    assert merge.due(720) == [(400, "slow")]


def test_packets_of_one_moment_keep_the_order_of_their_arrival() -> None:
    merge: Merge[str] = Merge(DELAY)
    for name in ("first", "second", "third"):
        merge.push(7, name, now=0)
    assert [name for _, name in merge.flush()] == ["first", "second", "third"]


# Clocks


@given(st.integers(-(10**15), 10**15), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1))
def test_an_offset_is_known_as_well_as_the_quickest_answer(ahead: int, ways: list[tuple[int, int]]) -> None:
    clock, now = ClockOffset(), 0
    for there, back in ways:
        clock.add(Sample(now, now + there + ahead, now + there + back))
        now += there + back
    assert abs(clock.ahead - ahead) <= clock.error + 1
    assert clock.error <= min(map(sum, ways[-32:])) // 2


def test_a_clock_that_was_set_is_noticed_by_one_answer() -> None:
    clock = ClockOffset()
    assert (clock.ahead, clock.error) == (0, 0)
    clock.add(Sample(100, 5_000_200, 300))
    assert (clock.ahead, clock.error) == (5_000_000, 100)
    clock.add(Sample(1000, 9_000_001_500, 2000))  # a slower answer that the first one excludes
    assert (clock.ahead, clock.error) == (9_000_000_000, 500)


def test_a_clock_in_words() -> None:
    clock = ClockOffset()
    clock.add(Sample(0, -12_300_000 + 400_000, 800_000))
    assert str(clock) == "12.300 ms behind, +/- 0.400 ms"
