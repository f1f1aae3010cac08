"""Clocks of nodes: bounds by answers, and by frames that two hosts captured."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hoplab.observe.live.clocks import HERE, ClockOffset, Clocks, Sample

MACS = {"a": "02:11:00:00:00:0a", "b": "02:11:00:00:00:0b"}
A, B = (bytes.fromhex(mac.replace(":", "")) for mac in MACS.values())


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
    assert clock.ahead == 0
    clock.add(Sample(100, 5_000_200, 300))
    assert (clock.ahead, clock.error) == (5_000_000, 100)
    clock.add(Sample(1000, 9_000_001_500, 2000))  # a slower answer that the first one excludes
    assert (clock.ahead, clock.error) == (9_000_000_000, 500)


def test_a_clock_in_words() -> None:
    clock = ClockOffset()
    clock.add(Sample(0, -12_300_000 + 400_000, 800_000))
    assert str(clock) == "12.300 ms behind, +/- 0.400 ms"


# Frames


def known(ahead: int, width: int) -> ClockOffset:
    """A clock of which an answer says that it is ahead by so much, give or take half of the width."""
    offset = ClockOffset()
    offset.add(Sample(0, ahead + width // 2, width))
    return offset


def test_a_frame_is_never_seen_to_arrive_before_it_was_sent() -> None:
    clocks = Clocks({"a": known(1000, 800), "b": known(-5000, 800)}, MACS)
    assert (clocks.ahead("a"), clocks.ahead("b"), clocks.ahead(HERE)) == (1000, -5000, 0)
    # at 10: a sends, at 12: on the wire, at 13: b receives; a is 1300 ahead, b 5300 behind
    clocks.frame("a", 10 + 1300, B + A + b"there")
    clocks.frame(HERE, 12, B + A + b"there")
    clocks.frame("b", 13 - 5300, B + A + b"there")
    assert 1310 - clocks.ahead("a") <= 12 <= -5287 - clocks.ahead("b")
    clocks.frame("b", 20 - 5300, A + B + b"back")
    clocks.frame(HERE, 21, A + B + b"back")
    clocks.frame("a", 24 + 1300, A + B + b"back")
    assert 1298 <= clocks.ahead("a") <= 1303 and -5301 <= clocks.ahead("b") <= -5299


def test_two_nodes_bound_each_other_without_the_wire() -> None:
    clocks = Clocks({"a": known(0, 800), "b": known(0, 10)}, MACS)
    clocks.frame("b", 500, B + A + b"there")  # what arrives first here need not have been first
    clocks.frame("a", 700, B + A + b"there")
    assert clocks.ahead("a") - clocks.ahead("b") >= 200


def test_frames_that_are_alike_say_nothing() -> None:
    clocks = Clocks({"a": known(0, 800), "b": known(0, 800)}, MACS)
    for time in (100, 300):
        clocks.frame("a", time, B + A + b"same")
    clocks.frame("b", 50, B + A + b"same")
    clocks.frame("b", 60, b"short")
    clocks.frame("c", 60, B + A + b"of a host without a known NIC")
    assert (clocks.ahead("a"), clocks.ahead("b")) == (0, 0)


def test_bounds_that_contradict_the_answers_are_given_up() -> None:
    a, b = known(0, 800), known(0, 800)
    clocks = Clocks({"a": a, "b": b}, MACS)
    clocks.frame("a", 300, B + A + b"one")
    clocks.frame("b", 200, B + A + b"one")
    assert clocks.ahead("a") - clocks.ahead("b") >= 100
    a.add(Sample(0, -10_000, 800))  # it was set
    assert (clocks.ahead("a"), clocks.ahead("b")) == (-10_400, 0)


@given(
    st.tuples(st.integers(-400, 400), st.integers(-400, 400)),
    st.lists(st.tuples(st.booleans(), st.integers(0, 10**6), st.integers(1, 50), st.integers(1, 50)), max_size=12),
)
def test_whatever_is_exchanged_is_in_the_order_of_its_way(
    true: tuple[int, int], frames: list[tuple[bool, int, int, int]]
) -> None:
    ahead = {"a": true[0], "b": true[1], HERE: 0}
    clocks = Clocks({"a": known(0, 800), "b": known(0, 800)}, MACS)
    seen = []
    for number, (there, time, to_wire, from_wire) in enumerate(frames):
        ends = ("a", "b") if there else ("b", "a")
        header = B + A if there else A + B
        way = [(ends[0], time), (HERE, time + to_wire), (ends[1], time + to_wire + from_wire)]
        own = [(host, moment + ahead[host]) for host, moment in way]
        for host, moment in own:
            clocks.frame(host, moment, header + bytes([number]) * 4)
        seen.append(own)
    for own in seen:
        corrected = [moment - clocks.ahead(host) for host, moment in own]
        assert corrected == sorted(corrected)
