"""The run of a live capture: relays on all hosts, packets in one order, until it is stopped.

with on_signals() as stop, Relays(commands, unreachable, stop) as relays:
    found = relays.look(addresses, links=False)
    run = Run(relays, places, sink, stop)
    run.start(tcpdump_commands)
    result = run.until_stopped(Limits(seconds=60))
"""

from __future__ import annotations

import re
import selectors
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hoplab.core.errors import LabError
from hoplab.core.wait import HOST, Deadline, Timing
from hoplab.observe.live import relay
from hoplab.observe.live.clocks import HERE, Clocks
from hoplab.observe.live.merge import Merge
from hoplab.observe.live.node_stream import Frame, NodeStream
from hoplab.observe.live.pcap_stream import SECOND, PcapStream, Record
from hoplab.observe.live.pcapng import Interface
from hoplab.observe.live.places import Found, Place
from hoplab.observe.live.sinks import OutputClosed, Sink, Statistics
from hoplab.observe.live.stop import Stop
from hoplab.observe.pcap import CaptureError
from hoplab.observe.setting import UPLINK

START_S = 60.0  # for logins and for tcpdump to listen, scaled; a shared connection needs a fraction of it
STOP_S = 5.0  # for the last packets to arrive
CLOCK_S = 2.0  # between two questions for a node's clock; a relay ends after 60 without any
CLOCK_SAMPLES = 8  # before packets are captured
HELD_BACK_S = 0.5  # every packet, so that those of slower places take their turn
OF_NO_ERROR = re.compile(r"listening on|dropped privs|packets? (captured|received by filter|dropped by)")

Unreachable = Callable[[str, str, int | None], LabError]  # the error for a node, what ssh printed, its exit code


class Relays:
    """The relays of a capture, by the name of the node, "" for this machine; they end with the body."""

    def __init__(
        self, commands: Mapping[str, Sequence[str]], unreachable: Unreachable, stop: Stop, timing: Timing = HOST
    ) -> None:
        self._unreachable = unreachable
        self._stop = stop
        self.deadline: Deadline = timing.deadline(START_S)
        self.selector = selectors.DefaultSelector()
        self.streams: dict[str, NodeStream] = {}
        try:
            for node, command in commands.items():
                self.streams[node] = stream = NodeStream(node, command)
                self.selector.register(stream, selectors.EVENT_READ, stream)
        except BaseException:
            self.close()
            raise
        self.selector.register(stop, selectors.EVENT_READ)

    def __enter__(self) -> Relays:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all relays; nothing of them is left, here or on a node."""
        for stream in self.streams.values():
            stream.finish()
        for stream in self.streams.values():
            stream.close()
        self.selector.close()

    def read(self, timeout: float | None) -> list[tuple[NodeStream, Frame]]:
        """Return the frames that have arrived; wait for some as long as the timeout, in seconds, or until a signal."""
        frames = []
        for key, _ in self.selector.select(timeout):
            if key.data is None:
                self._stop.seen()
                continue
            stream: NodeStream = key.data
            frames += [(stream, frame) for frame in stream.read()]
            if not stream.open:
                self.selector.unregister(stream)
        return frames

    def look(self, addresses: Mapping[str, Sequence[str]], *, links: bool) -> dict[str, Found]:
        """Return what each host has, and measure the nodes' clocks; ``addresses`` are those of pods, by node."""
        for node, stream in self.streams.items():
            stream.look(addresses.get(node, ()), links=links)
            stream.ask_clock()
        asked = dict.fromkeys(self.streams, 1)

        def ready() -> bool:
            for node, stream in self.streams.items():
                if stream.answers == asked[node] < CLOCK_SAMPLES:  # one after the other: none waits for another
                    stream.ask_clock()
                    asked[node] += 1
            return all(stream.found and stream.answers == CLOCK_SAMPLES for stream in self.streams.values())

        self.wait(ready, lambda _stream, _frame: None)
        return {node: stream.found or Found() for node, stream in self.streams.items()}

    def wait(self, ready: Callable[[], bool], take: Callable[[NodeStream, Frame], None]) -> None:
        """Read until ``ready``; raise for a host that is lost or late, and KeyboardInterrupt for a signal."""
        while not ready():
            for stream, frame in self.read(self.deadline.left()):
                take(stream, frame)
            self.require_all()
            if not self.deadline.left() and not ready():
                late = min(self.streams.values(), key=lambda stream: stream.found is not None)
                why = f"{late.errors()}\ntimed out: no answer after {self.deadline.seconds:.0f} s"
                raise self._unreachable(late.name, why, None)

    def require_all(self) -> None:
        """Raise for a host that is lost, and KeyboardInterrupt for a signal."""
        if self._stop.asked:
            raise KeyboardInterrupt
        for stream in self.streams.values():
            if not stream.open:
                raise self._unreachable(stream.name, stream.errors(), stream.exit_code())


@dataclass(frozen=True)
class Limits:
    """When a capture ends by itself."""

    packets: int | None = None  # of all places together
    seconds: float | None = None


@dataclass
class Capture:
    """One tcpdump of a run."""

    place: Place
    stream: NodeStream
    reader: PcapStream
    began: int = 0  # nanoseconds since 1970
    packets: int = 0  # that went to the output
    code: int | None = None  # how it ended
    said: str = ""

    @property
    def on_wire(self) -> bool:
        """Return whether its frames are those that hosts send each other."""
        return self.place.node == HERE or (self.place.dev == UPLINK and not self.place.netns)

    @property
    def errors(self) -> str:
        """Return its messages, without those of every run."""
        lines = [line.strip() for line in self.said.splitlines()]
        return "; ".join(line for line in lines if line and not OF_NO_ERROR.search(line))

    def statistics(self, ended: int) -> Statistics | None:
        """Return what it counted, None where the end of it was not seen."""
        received, dropped = (
            re.search(rf"(\d+) packets? {what}", self.said) for what in ("received by filter", "dropped by kernel")
        )
        return Statistics(self.began, ended, int(received[1]), int(dropped[1])) if received and dropped else None


@dataclass(frozen=True)
class Counted:
    """What a capture gave."""

    place: Place
    packets: int  # that went to the output
    dropped: int | None  # by the kernel; None where tcpdump's own numbers did not arrive


@dataclass
class Result:
    """What a run gave."""

    counted: tuple[Counted, ...] = ()
    lost: list[str] = field(default_factory=list)  # captures that ended early, with the reason
    late: int = 0  # packets out of order
    output_closed: bool = False  # nobody read the output any more


class Run:
    """Captures that run, and their packets on the way to a sink."""

    def __init__(
        self, relays: Relays, places: Sequence[Place], sink: Sink, stop: Stop, macs: Mapping[str, str] | None = None
    ) -> None:
        """Take the places to capture at; ``macs`` are the addresses of the nodes' NICs, by node, where known."""
        self._relays, self._sink, self._stop = relays, sink, stop
        self.captures = [Capture(place, relays.streams[place.node], PcapStream(place.label)) for place in places]
        self._clocks = Clocks({node: stream.offset for node, stream in relays.streams.items() if node}, macs or {})
        self._merge: Merge[tuple[int, Record]] = Merge(int(HELD_BACK_S * SECOND), self._clocks.ahead)
        self._result = Result()
        self._left: int | None = None  # packets until the limit
        self._ended: set[int] = set()  # captures that ended early

    def start(self, commands: Sequence[Sequence[str]]) -> None:
        """Start a tcpdump for each place; return when all listen. Raise CaptureError where one does not."""
        for number, (capture, command) in enumerate(zip(self.captures, commands, strict=True)):
            capture.stream.start(number, capture.place.netns, command)
        self._relays.wait(self._all_listen, self._take)
        for capture in self.captures:
            capture.began = time.time_ns()
        self._sink.begin([_interface(*found) for found in zip(self.captures, commands, strict=True)])

    def _all_listen(self) -> bool:
        for capture in self.captures:
            if capture.code is not None:
                raise _refused(capture)
        return all(capture.reader.header for capture in self.captures)

    def _take(self, stream: NodeStream, frame: Frame) -> None:
        """Take a frame of a relay."""
        capture = self.captures[frame.number]
        if frame.kind == relay.PACKETS:
            arrived = time.monotonic_ns()
            for record in capture.reader.feed(frame.payload):
                if capture.on_wire:
                    self._clocks.frame(stream.name, record.time, record.data)
                self._merge.push(stream.name, record.time, frame.number, (frame.number, record), arrived)
        elif frame.kind == relay.SAID:
            capture.said += frame.payload.decode(errors="replace")
        else:
            (capture.code,) = struct.unpack("!i", frame.payload)

    def until_stopped(self, limits: Limits, say: Callable[[str], None] = lambda _text: None) -> Result:
        """Pass packets on until a limit, a signal, the end of all captures or of the output; return what came of it.

        ``say`` gets a line for every capture that ends early.
        """
        self._left = limits.packets
        try:
            self._pass_on(limits, say)
            self._drain()
            self._give(self._merge.flush())
            self._sink.flush()
            self._end_sink()
        except OutputClosed:
            self._result.output_closed = True
            self._drain()
        counted = [(capture, capture.statistics(0)) for capture in self.captures]
        self._result.counted = tuple(
            Counted(capture.place, capture.packets, found.dropped if found else None) for capture, found in counted
        )
        self._result.late = self._merge.late
        return self._result

    def _pass_on(self, limits: Limits, say: Callable[[str], None]) -> None:
        began = time.monotonic()
        ends = began + limits.seconds if limits.seconds is not None else float("inf")
        ask_clocks = began
        while not self._stop.asked and self._left != 0:
            now = time.monotonic()
            if now >= ends:
                break
            if now >= ask_clocks:
                for stream in self._relays.streams.values():
                    stream.ask_clock()
                ask_clocks = now + CLOCK_S
            due = self._merge.next_due()
            wake = min(ends, ask_clocks, due / SECOND if due is not None else float("inf"))
            for stream, frame in self._relays.read(max(0.0, wake - now)):
                self._take(stream, frame)
            self._give(self._merge.due(time.monotonic_ns()))
            self._sink.flush()
            if not self._any_left(say):
                break

    def _any_left(self, say: Callable[[str], None]) -> bool:
        """Report captures that have ended; return whether another one runs."""
        for number, capture in enumerate(self.captures):
            if number in self._ended or (capture.code is None and capture.stream.open):
                continue
            self._ended.add(number)
            why = capture.errors or f"tcpdump ended with {capture.code}"
            if capture.code is None:
                why = f"the connection was lost: {capture.stream.errors().strip() or 'ssh does not say why'}"
            self._result.lost.append(f"{capture.place.label} is not captured any more: {why}")
            say(self._result.lost[-1])
        return len(self._ended) < len(self.captures)

    def _drain(self) -> None:
        """End all captures and take what they still send."""
        for stream in self._relays.streams.values():
            stream.finish()
        patience = time.monotonic() + STOP_S
        while any(stream.open for stream in self._relays.streams.values()) and self._stop.asked < 2:
            left = patience - time.monotonic()
            if left <= 0:
                break
            for stream, frame in self._relays.read(left):
                self._take(stream, frame)

    def _give(self, items: Sequence[tuple[int, tuple[int, Record]]]) -> None:
        for moment, (number, record) in items:
            if self._left == 0:
                return
            self._sink.packet(number, moment, record)
            self.captures[number].packets += 1
            if self._left is not None:
                self._left -= 1

    def _end_sink(self) -> None:
        ended = time.time_ns()
        found = {number: capture.statistics(ended) for number, capture in enumerate(self.captures)}
        self._sink.end({number: numbers for number, numbers in found.items() if numbers})


def _interface(capture: Capture, command: Sequence[str]) -> Interface:
    header = capture.reader.header
    assert header
    node = capture.place.node
    comment = f"the clock of {node} is {capture.stream.offset}; times are corrected" if node else ""
    return Interface(capture.place.label, header.link_type, header.snaplen, command[-1], comment)


def _refused(capture: Capture) -> CaptureError:
    """Return the error for a tcpdump that did not begin to listen."""
    why = capture.errors or f"tcpdump ended with {capture.code}"
    node, dev = capture.place.node, capture.place.dev
    if "ermission" in why or "not permitted" in why:
        remedy = "become root: sudo ./lab capture ..."
    elif capture.code == relay.NOT_FOUND:
        remedy = f"install it on {node or 'this machine'}"
    elif re.search("filter|expression|syntax", why):
        remedy = "its syntax is in the manual page pcap-filter(7): --filter 'tcp port 80 and host 10.244.1.3'"
    else:
        remedy = f"try it there: {f'./lab ssh {node} ' if node else ''}sudo tcpdump -i {dev}"
    return CaptureError(f"{capture.place.label} can't be captured: {why}", remedy=remedy)
