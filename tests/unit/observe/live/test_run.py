"""A run with relays that are played: clocks that differ, connections that break, nodes that do not answer."""

from __future__ import annotations

import io
import os
import select
import signal
import struct
import sys
import time
from pathlib import Path

import pytest

from hoplab.core.errors import FileError, LabError
from hoplab.core.wait import Timing
from hoplab.observe.live import node_stream, run
from hoplab.observe.live.places import Place
from hoplab.observe.live.run import Limits, Relays, Run
from hoplab.observe.live.sinks import OutputClosed, PcapngSink, ScreenSink
from hoplab.observe.live.stop import Stop, on_signals
from tests.support import pcapng_reader

HOUR = 3600 * 10**9
NODE = r"""
import json, os, struct, sys, time
left = %d
while left:
    left -= len(os.read(0, left))
ahead, then, words = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
def send(kind, number, payload):
    os.write(1, struct.pack("!BHI", kind, number, len(payload)) + payload)
for line in os.fdopen(0, "rb", buffering=0):
    message = json.loads(line)
    if message["do"] == "clock" and then != "silent":
        send(1, message["id"], struct.pack("!q", time.time_ns() + ahead))
    elif message["do"] == "look":
        send(2, 0, json.dumps({"connection": "", "namespaces": {}, "devices": {}, "links": {}, "trouble": ""}).encode())
    elif message["do"] == "start":
        number = message["id"]
        if then == "refuse":
            send(4, message["id"], words[0].encode())
            send(5, message["id"], struct.pack("!i", int(words[1])))
            continue
        packets = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 256, 1)
        for word in words:
            packets += struct.pack("<4I", *divmod(int(word) + ahead, 10**9), 1, 60) + b"x"
        for at in range(0, len(packets), 7):
            send(3, message["id"], packets[at:at + 7])
        if then == "break":
            sys.exit("broken")
if then != "break":
    send(4, number, b"2 packets captured\n2 packets received by filter\n1 packet dropped by kernel\n")
    send(5, number, struct.pack("!i", 0))
"""


def node(ahead: int, then: str = "", *words: object) -> list[str]:
    text = NODE % len(node_stream.PROGRAM)
    return [sys.executable, "-IS", "-c", text, str(ahead), then, *map(str, words)]


def unreachable(name: str, printed: str, code: int | None) -> LabError:
    return LabError(f"{name}: {printed.strip()} {code}")


def place(name: str) -> Place:
    return Place(name, "", "eth0", f"node {name} eth0", f"{name} eth0")


def relays(stop: Stop, **nodes: list[str]) -> Relays:
    return Relays(nodes, unreachable, stop, Timing(slowness=lambda: 1.0))


def test_packets_of_nodes_with_other_clocks_are_in_one_order() -> None:
    now = time.time_ns()
    moments = [now + number * 10**9 for number in range(4)]
    file, stop = io.BytesIO(), Stop()
    with relays(stop, a=node(HOUR, "", *moments[::2]), b=node(-HOUR, "", *moments[1::2])) as hosts:
        hosts.look({}, links=False)
        started = Run(hosts, [place("a"), place("b")], PcapngSink(file), stop)
        started.start([["tcpdump", "icmp"], ["tcpdump", ""]])
        result = started.until_stopped(Limits(packets=4))
        errors = {f"node {name} eth0": stream.offset.error for name, stream in hosts.streams.items()}
    packets = pcapng_reader.packets(file.getvalue())
    assert [packet.interface for packet in packets] == ["node a eth0", "node b eth0"] * 2
    for packet, moment in zip(packets, moments, strict=True):
        assert abs(packet.time - moment) <= errors[packet.interface] + 1
    assert [(counted.packets, counted.dropped) for counted in result.counted] == [(2, 1), (2, 1)]
    assert result.lost == [] and not result.output_closed


def test_a_connection_that_breaks_is_told_and_ends_the_run_when_it_was_the_last() -> None:
    said: list[str] = []
    file, stop = io.BytesIO(), Stop()
    with relays(stop, a=node(0, "break", time.time_ns())) as hosts:
        hosts.look({}, links=False)
        started = Run(hosts, [place("a")], PcapngSink(file), stop)
        try:
            started.start([["tcpdump", ""]])
        except LabError as error:  # it broke before the packets were taken
            assert error.message == "a: broken 1"
            return
        result = started.until_stopped(Limits(), said.append)
    assert result.lost == said == ["node a eth0 is not captured any more: the connection was lost: broken"]
    assert len(pcapng_reader.packets(file.getvalue())) == 1
    assert not [block for block in pcapng_reader.blocks(file.getvalue()) if block.kind == 5]


@pytest.mark.parametrize(
    ("says", "code", "message", "remedy"),
    [
        ("tcpdump: listening on x\ntcpdump: eth0: You don't have permission\n", 1, "tcpdump: eth0: You don't", "sudo"),
        ("tcpdump: No such file or directory\n", 127, "tcpdump: No such file", "install it on a"),
        ("tcpdump: unknown host 'nowhere'\n", 1, "tcpdump: unknown host 'nowhere'", "try it there: ./lab ssh a sudo"),
        ("", 9, "tcpdump ended with 9", "try it there: ./lab ssh a sudo tcpdump -i eth0"),
        ("tcpdump: syntax error\n", 1, "tcpdump: syntax error", "its syntax is in the manual page pcap-filter(7)"),
    ],
)
def test_a_tcpdump_that_does_not_listen_is_an_error(says: str, code: int, message: str, remedy: str) -> None:
    stop = Stop()
    with relays(stop, a=node(0, "refuse", says, code)) as hosts:
        hosts.look({}, links=False)
        with pytest.raises(LabError) as caught:
            Run(hosts, [place("a")], PcapngSink(io.BytesIO()), stop).start([["tcpdump", ""]])
    assert caught.value.message.startswith(f"node a eth0 can't be captured: {message}")
    assert remedy in caught.value.remedy


def test_a_node_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "START_S", 1.0)
    with (
        relays(Stop(), a=node(0, "silent")) as hosts,
        pytest.raises(LabError, match="a: timed out: no answer after 1 s"),
    ):
        hosts.look({}, links=False)


def test_a_signal_while_it_starts_is_an_interruption() -> None:
    with on_signals() as stop, relays(stop, a=node(0, "silent")) as hosts:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            hosts.look({}, links=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_noticed_and_handled_as_before_afterwards(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with on_signals() as stop:
        os.kill(os.getpid(), number)
        assert stop.asked == 1
        assert select.select([stop], [], [], 0)[0] == [stop]
        stop.seen()
        assert select.select([stop], [], [], 0)[0] == []
    assert signal.getsignal(number) is before


def test_an_output_that_nobody_reads_ends_it() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as out, pytest.raises(OutputClosed):
        PcapngSink(out).begin([])

    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as text, pytest.raises(OutputClosed):
        ScreenSink(print, [], text).flush()  # without a packet

    def closed(_line: str) -> None:
        raise BrokenPipeError

    stop = Stop()
    with relays(stop, a=node(0, "", time.time_ns())) as hosts:
        hosts.look({}, links=False)
        started = Run(hosts, [place("a")], ScreenSink(closed, ["a eth0"]), stop)
        started.start([["tcpdump", ""]])
        result = started.until_stopped(Limits())
    assert result.output_closed and result.lost == []


def test_a_file_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="can't be written: No such file or directory"):
        PcapngSink(tmp_path / "no" / "a.pcapng").begin([])
    full = PcapngSink(Path("/dev/full"))
    with pytest.raises(FileError, match="/dev/full can't be written: No space left on device"):
        full.begin([])
    full.close()


def test_an_answer_to_no_question_is_left_out() -> None:
    stream = node_stream.NodeStream("a", ["cat"])
    assert stream._answered(node_stream.Frame(1, 9, struct.pack("!q", 0)), 6)
    assert (stream.answers, stream.offset.ahead) == (0, 0)
    stream.close()
