"""`./lab capture` between two nodes that are network namespaces: real tcpdump, a real ping, real files."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.core.wait import NotYet, until
from hoplab.lab import captures, state
from hoplab.observe.live.places import Target
from hoplab.observe.live.run import Limits, Result
from hoplab.observe.live.sinks import PcapngSink, ScreenSink, Sink
from hoplab.observe.live.stop import Stop
from tests.support import live_network, pcapng_reader
from tests.support.labs import MADE
from tests.support.live_network import BRIDGE, Network

pytestmark = pytest.mark.skipif(bool(live_network.lacking()), reason=f"needs {live_network.lacking()}")

ICMP = "icmp or (udp port 8472 and udp[28:2] = 0x0800)"  # also in VXLAN, without its ARP
HOPS = [
    "pod default/web-1 eth0 on worker1",
    "node worker1 veth1 of pod default/web-1",
    "node worker1 cni0",
    "node worker1 eth0",
    "node worker1 flannel.1",
    "pod default/web-2 eth0 on worker2",
    "node worker2 veth1 of pod default/web-2",
    "node worker2 eth0",
    "node worker2 flannel.1",
    f"wire {BRIDGE}",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with live_network.made(tmp_path_factory.mktemp("network")) as network:
        yield network


@pytest.fixture
def network(made: Network, monkeypatch: pytest.MonkeyPatch) -> Network:
    """The network, with a lab's state and API that lead to it."""

    class Api:
        def read(self, _path: str) -> dict[str, Any]:
            return made.api()

    @contextmanager
    def connected(_paths: LabPaths, _netns: str) -> Iterator[Api]:
        yield Api()

    made.accept()
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}:/usr/sbin:/sbin")
    monkeypatch.setattr(captures, "connect_directly", connected)
    monkeypatch.setattr(state, "load_summary", lambda _paths: replace(MADE, netns=made.wire))
    return made


class Recorder:
    """A pcapng file in memory, and something that is done once all captures run."""

    def __init__(self, act: Callable[[], object] = lambda: None) -> None:
        self.file = io.BytesIO()
        self.said: list[str] = []
        self._act = act

    def sink(self, _places: Any) -> Sink:
        return PcapngSink(self.file)

    def say(self, text: str) -> None:
        self.said.append(text)
        if text.startswith("capturing at"):
            self._act()


PATHS = LabPaths("dev", Path("/nowhere"))
NO_LIMITS = Limits()


def run(request: captures.Request, recorder: Recorder, stop: Stop | None = None, limits: Limits = NO_LIMITS) -> Result:
    return captures.capture(PATHS, request, recorder.sink, stop or Stop(), limits, recorder.say)


def targets(*names: str) -> tuple[Target, ...]:
    return tuple(map(Target.parse, names))


def test_one_ping_is_seen_at_every_hop_in_the_order_of_its_way(network: Network) -> None:
    recorder = Recorder(network.ping)
    both = targets("default/web-1", "web-2")
    request = captures.Request(both, ICMP, True, True, captures.WHOLE)
    result = run(request, recorder, limits=Limits(packets=20, seconds=60))
    data = recorder.file.getvalue()
    assert pcapng_reader.names(data) == HOPS
    packets = pcapng_reader.packets(data)
    there = [packet.interface for packet in packets if _echo(packet.data) == 8]
    assert there == [HOPS[number] for number in (0, 1, 2, 4, 3, 9, 7, 8, 6, 5)]
    times = [packet.time for packet in packets]
    assert times == sorted(times) and result.late == 0
    assert any(time % 1000 for time in times)  # nanoseconds
    assert [counted.packets for counted in result.counted] == [2] * 10
    assert all(counted.dropped == 0 for counted in result.counted)
    blocks = list(pcapng_reader.blocks(data))
    assert sum(block.kind == 5 for block in blocks) == 10
    filters = [block.options[11][1:].decode() for block in blocks if block.kind == 1]
    connection = "tcp and host 192.168.77.1 and port 40112 and host 192.168.77.20 and port 22"
    assert filters[0] == ICMP
    assert filters[3] == f"({ICMP}) and not (({connection}))"
    comments = [block.options.get(1, b"").decode() for block in blocks if block.kind == 1]
    assert re.fullmatch(
        r"the clock of worker1 is \d+\.\d{3} ms \w+, \+/- \d+\.\d{3} ms; times are corrected", comments[0]
    )
    assert comments[-1] == ""  # this machine's clock is the base
    assert recorder.said == ["capturing at 10 places; Ctrl-C ends it"]
    assert network.captures() == []


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
def test_tshark_reads_the_file_of_a_run_without_a_warning(network: Network, tmp_path: Path) -> None:
    recorder = Recorder(network.ping)
    run(
        captures.Request(targets("web-2"), "icmp", with_wire=True, snaplen=captures.WHOLE),
        recorder,
        limits=Limits(2, 60),
    )
    (tmp_path / "a.pcapng").write_bytes(recorder.file.getvalue())
    done = subprocess.run(
        ["tshark", "-n", "-r", tmp_path / "a.pcapng", "-T", "fields", "-e", "frame.interface_name", "-e", "icmp.type"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )
    assert [line for line in done.stderr.splitlines() if "Running as user" not in line] == []
    assert done.stdout.splitlines() == [f"pod default/web-2 eth0 on worker2\t{kind}" for kind in (8, 0)]


def _echo(frame: bytes) -> int:
    """Return the ICMP type of a packet, also of one in VXLAN."""
    inner = frame[50:] if frame[23] == 17 else frame
    return inner[34]


def test_the_screen_has_a_line_for_each_packet(network: Network) -> None:
    lines: list[str] = []

    def sink(places: Any) -> Sink:
        return ScreenSink(lines.append, [place.short for place in places])

    request = captures.Request(targets("default/web-1", "worker1:eth0"), ICMP)
    captures.capture(PATHS, request, sink, Stop(), Limits(packets=4, seconds=60), lambda _text: network.ping())
    echo = "10.244.0.5 > 10.244.1.5 icmp echo request"
    patterns = [
        rf"default/web-1 eth0  {echo} 98 bytes",
        rf"worker1 eth0        192.168.77.20:\d+ > 192.168.77.21:8472 vxlan 1 {{ {echo} }} 148 bytes",
    ]
    for line, pattern in zip(lines, patterns, strict=False):
        assert re.fullmatch(rf"\d\d:\d\d:\d\d\.\d{{6}} {pattern}", line), line
    assert len(lines) == 4


def test_a_network_of_the_same_addresses_beside_it_is_not_captured(network: Network, tmp_path: Path) -> None:
    recorder = Recorder(network.ping)
    with live_network.made(tmp_path):
        run(captures.Request(targets("default/web-1"), "icmp"), recorder, limits=Limits(packets=2, seconds=60))
    assert len(pcapng_reader.packets(recorder.file.getvalue())) == 2


def test_it_ends_after_some_seconds_and_without_a_packet(network: Network) -> None:
    recorder = Recorder()
    result = run(captures.Request((), "tcp", with_wire=True), recorder, limits=Limits(seconds=0.1))
    assert [(counted.place.label, counted.packets, counted.dropped) for counted in result.counted] == [
        (f"wire {BRIDGE}", 0, 0)
    ]
    assert pcapng_reader.names(recorder.file.getvalue()) == [f"wire {BRIDGE}"]


def test_packets_that_have_arrived_when_it_is_stopped_are_given(network: Network) -> None:
    stop = Stop()

    def act() -> None:
        network.ping()
        stop.ask()

    recorder = Recorder(act)
    run(captures.Request(targets("worker2:flannel.1"), "icmp"), recorder, stop)
    assert len(pcapng_reader.packets(recorder.file.getvalue())) == 2
    assert network.captures() == []


def test_a_pod_that_ends_is_told_and_the_others_go_on(network: Network) -> None:
    network.ip("worker1", "link add gone up type bridge")
    stop = Stop()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if text.startswith("capturing"):
            network.ip("worker1", "link delete gone")
        else:
            stop.ask()

    request = captures.Request(targets("worker1:gone", "worker2"))
    recorder = Recorder()
    result = captures.capture(PATHS, request, recorder.sink, stop, Limits(), say)
    assert len(result.lost) == 1 and result.lost == said[1:]
    assert result.lost[0].startswith("node worker1 gone is not captured any more: tcpdump: ")


@pytest.mark.parametrize(
    ("request_", "message", "remedy"),
    [
        (
            captures.Request(targets("worker1"), "tcp prot 80"),
            "node worker1 eth0 can't be captured: tcpdump: can't parse filter expression: syntax error",
            "its syntax is in the manual page pcap-filter(7): --filter 'tcp port 80 and host 10.244.1.3'",
        ),
        (captures.Request(targets("worker1:eth7")), "worker1 has no interface eth7", "did you mean eth0?"),
        (
            captures.Request(targets("default/web-1:wlan")),
            "pod default/web-1 has no interface wlan",
            "it has lo, eth0",
        ),
        (
            captures.Request(targets("shop/web-1")),
            "no network namespace on worker2 has the address of shop/web-1, 10.244.1.9",
            "the pod may have ended: ./lab kubectl get pods -A -o wide; ./lab ssh worker2",
        ),
    ],
)
def test_what_can_not_be_captured_is_said_before_anything_is_written(
    network: Network, request_: captures.Request, message: str, remedy: str
) -> None:
    recorder = Recorder()
    with pytest.raises(LabError) as caught:
        run(request_, recorder)
    assert (caught.value.message, caught.value.remedy) == (message, remedy)
    assert recorder.file.getvalue() == b""
    assert network.captures() == []


@pytest.mark.parametrize(
    ("says", "code", "message", "remedy"),
    [
        (
            "ssh: connect to host 192.168.77.20 port 22: No route to host",
            255,
            "worker1 can't be reached over SSH: No route to host",
            "`./lab status` shows whether it runs; `ssh -v -F /nowhere/inventory/dev.ssh_config worker1` shows why not",
        ),
        (
            "sudo: python3: command not found",
            1,
            "worker1 can't capture: sudo: python3: command not found",
            "python3 and tcpdump have to work there: ./lab ssh worker1",
        ),
    ],
)
def test_a_node_that_can_not_be_reached(network: Network, says: str, code: int, message: str, remedy: str) -> None:
    network.refuse(says, code)
    with pytest.raises(LabError) as caught:
        run(captures.Request(targets("worker1")), Recorder())
    assert (caught.value.message, caught.value.remedy) == (message, remedy)


def test_a_relay_of_this_machine_that_fails_is_no_unreachable_node() -> None:
    error = captures._unreachable(PATHS)("", "Traceback ...\nMemoryError\n", 1)
    assert (error.message, error.remedy) == (
        "the capture on this machine ended: MemoryError",
        "run `sudo tcpdump` here",
    )


# How it ends. In a process of its own, which is then interrupted, killed or cut off.

CHILD = """
import sys
from contextlib import contextmanager
from pathlib import Path
from hoplab.core.paths import LabPaths
from hoplab.lab import captures, state
from hoplab.observe.live.places import Target
from hoplab.observe.live.sinks import PcapngSink
from hoplab.observe.live.stop import on_signals
nodes = tuple(state.NodeState(name, "worker", "", "") for name in ("worker1", "worker2"))
lab = state.LabSummary("dev", "dev-0", "", sys.argv[1], "tcg", "hosted", "", "", "", "", nodes)
state.load_summary = lambda _: lab
request = captures.Request((Target("worker1"), Target("worker2", "flannel.1")), with_wire=True)
with on_signals() as stop:
    result = captures.capture(LabPaths("dev", Path("/nowhere")), request, lambda _: PcapngSink(Path(sys.argv[2])), stop,
                              say=lambda text: print(text, flush=True))
sys.exit(3 if result.lost else 0)
"""


@contextmanager
def running(network: Network, file: Path) -> Iterator[subprocess.Popen[str]]:
    """A capture at three places that has begun."""
    command = [sys.executable, "-c", CHILD, network.wire, str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "capturing at 3 places; Ctrl-C ends it\n"
            assert len(network.captures()) >= 5  # two relays on nodes, three times tcpdump
            yield process
        finally:
            process.kill()


def all_gone(network: Network) -> None:
    until(lambda: None if not network.captures() else NotYet(f"{network.captures()} run"), 30, poll_s=0.05)


def test_a_signal_ends_it_in_order(network: Network, tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    with running(network, file) as process:
        network.ping()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert network.captures() == []
    blocks = list(pcapng_reader.blocks(file.read_bytes()))
    assert sum(block.kind == 5 for block in blocks) == 3  # the numbers of all three


def test_nothing_is_left_where_it_is_killed(network: Network, tmp_path: Path) -> None:
    with running(network, tmp_path / "a.pcapng") as process:
        process.kill()
        process.wait()
        all_gone(network)


def test_a_lost_connection_ends_what_runs_on_that_node_and_the_others_go_on(network: Network, tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    with running(network, file) as process:
        network.cut("worker1")
        assert process.stdout
        assert process.stdout.readline() == (
            "node worker1 eth0 is not captured any more: the connection was lost: ssh does not say why\n"
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 3
        all_gone(network)
