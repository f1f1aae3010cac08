"""Real packets between two nodes that are network namespaces: what is seen of them, and that nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT
from hoplab.core.wait import NotYet, until
from hoplab.observe.live.stop import Stop
from hoplab.trace import nft_trace, render
from hoplab.trace.live import node_program, run
from hoplab.trace.model import INFERRED, NOT_SEEN, SEEN, Place
from tests.support.traced_network import TracedNetwork, has_tracefs, instances, lacking, left, whole

pytestmark = pytest.mark.skipif(bool(lacking()), reason=f"needs {lacking()}")

ONE, OTHER = "pod/default/web-1", "pod/default/web-2"
WORKER1, WORKER2 = Place("node", "worker1"), Place("node", "worker2")
DROP = "-d 10.244.1.5 -p tcp -j DROP"


def test_a_pod_to_a_service_is_seen_at_every_hop_with_its_rules_and_routes(network: TracedNetwork) -> None:
    trace = network.trace(ONE, "default/web")
    whole(trace)
    way = trace.shown
    assert trace.sent and trace.sent.what == "connected" and (len(way.there), len(way.back)) == (8, 8)
    assert way.target == Place("pod", "default/web-2")
    events = {event.kind: event for hop in way.there for event in hop.events if hop.place == WORKER1}
    assert events["dnat"].evidence == SEEN
    assert events["dnat"].text == "-A KUBE-SEP-WEB -p tcp -m tcp -j DNAT --to-destination 10.244.1.5:8080"
    assert (events["wire"].text, events["wire"].evidence) == ("port0 to port1", SEEN)
    assert events["neighbour"].evidence == INFERRED
    if has_tracefs():
        routes = [event for hop in way.there for event in hop.events if event.kind == "route" and hop.place == WORKER1]
        assert [event.evidence for event in routes] == [SEEN] * 2
    sport = way.there[0].header.sport
    assert sport and way.back[-1].header.dport == sport
    assert (str(way.back[-1].header.src), way.back[-1].header.sport) == ("10.96.0.80", 80)
    assert left(network) == []


def test_the_outside_to_a_nodeport_is_followed_through_a_source_port_that_changes(network: TracedNetwork) -> None:
    trace = network.trace("outside", "default/web", via="nodeport")
    whole(trace)
    ports = {hop.header.sport if not hop.inner else hop.inner.sport for hop in trace.shown.there}
    assert len(ports) == 2  # --random-fully
    kinds = {event.kind: event.evidence for event in trace.shown.there[1].events}
    assert {kinds[kind] for kind in ("dnat", "snat", "mark")} == {SEEN}


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"protocol": "icmp"}, "answer"),
        ({"protocol": "udp", "port": 9999}, "Connection refused"),  # by ICMP, which quotes it
        ({"port": 81}, "Connection refused"),
    ],
)
def test_other_protocols_and_a_port_that_nobody_listens_on(
    network: TracedNetwork, options: dict[str, Any], what: str
) -> None:
    trace = network.trace(ONE, OTHER, **options)
    whole(trace)
    assert trace.sent and trace.sent.what == what


def test_a_request_through_an_ingress_controller_is_followed_to_the_pod_behind_it(network: TracedNetwork) -> None:
    host_port = "-t nat {} PREROUTING -d 192.168.77.20 -p tcp --dport 80 -j DNAT --to-destination 10.244.0.5:80"
    network.on("worker1", f"iptables-nft {host_port.format('-I')}")
    network.ingress = True
    try:
        trace = network.trace("outside", "default/web", via="ingress")
    finally:
        network.ingress = False
        network.on("worker1", f"iptables-nft {host_port.format('-D')}")
    whole(trace)
    assert trace.sent and trace.sent.what == "answer: HTTP/1.1 200 OK"
    [then] = trace.then
    assert then.sent and then.sent.seen == then.sent.hops == then.sent.predicted == 16, render.text(trace)
    assert then.shown.source == trace.shown.target == Place("pod", "ingress-readable/ingress-1")
    assert then.shown.target == Place("pod", "default/web-2") and then.sent.what == trace.sent.what


@pytest.mark.parametrize("known", [True, False], ids=["predicted", "made since the look"])
def test_a_rule_that_drops_it(network: TracedNetwork, known: bool) -> None:
    lab = None if known else network.snapshot()
    network.on("worker2", f"iptables-nft -I FORWARD {DROP}")
    try:
        trace = network.sent(lab or network.snapshot(), ONE, OTHER)
    finally:
        network.on("worker2", f"iptables-nft -D FORWARD {DROP}")
    end, sent = trace.shown.end, trace.sent
    assert end and sent and not trace.complete
    assert (end.at, end.last, end.missing, end.reply) == (WORKER2, WORKER2, "pod default/web-2", False)
    assert (end.kind, end.cause, end.evidence) == ("rule", "-A FORWARD -d 10.244.1.5/32 -p tcp -j DROP", SEEN)
    assert (sent.what, sent.seen, sent.hops) == ("no answer", 6, 6)
    wrong = () if known else ("the model predicted that it arrives and its reply returns",)
    assert sent.wrong == wrong
    assert [hop.evidence for hop in trace.shown.there[6:]] == ([] if known else [NOT_SEEN] * 2)


def test_a_rule_of_nftables_is_named_as_nft_prints_it(network: TracedNetwork) -> None:
    made = "add table inet own; add chain inet own passing { type filter hook forward priority -7; }; "
    network.on("worker2", f"nft '{made} add rule inet own passing ip daddr 10.244.1.5 tcp dport 8080 counter drop'")
    try:
        trace = network.trace(ONE, OTHER)
    finally:
        network.on("worker2", "nft delete table inet own")
    end = trace.shown.end
    assert end and trace.sent and (end.at, end.kind, end.evidence) == (WORKER2, "rule", SEEN)
    assert end.cause == "ip daddr 10.244.1.5 tcp dport 8080 counter packets 0 bytes 0 drop" and trace.sent.wrong == ()
    assert "in nftables inet own, passing of node worker2 drops it" in end.why


def test_a_rule_that_rejects_it_and_one_that_drops_the_reply(network: TracedNetwork) -> None:
    network.on("worker2", "iptables-nft -I FORWARD -d 10.244.1.5 -p tcp -j REJECT")
    try:
        trace = network.trace(ONE, OTHER)
    finally:
        network.on("worker2", "iptables-nft -D FORWARD 1")
    end = trace.shown.end
    assert end and (end.at, end.kind, end.reply) == (WORKER2, "rule", False)
    assert " rejects it" in end.why and trace.sent and trace.sent.what == "Connection refused"
    assert trace.shown.back and {hop.evidence for hop in trace.shown.back} == {SEEN}
    network.on("worker1", "iptables-nft -I FORWARD -d 10.244.0.5 -p tcp -j DROP")
    try:
        trace = network.trace(ONE, OTHER)
    finally:
        network.on("worker1", "iptables-nft -D FORWARD 1")
    end = trace.shown.end
    assert end and (end.at, end.reply, end.missing) == (WORKER1, True, "pod default/web-1")
    assert render.outcome(trace) == (
        "arrives at pod default/web-2, but the reply does not return: it ends at node worker1"
    )


@pytest.mark.skipif(not has_tracefs(), reason="needs tracefs")
def test_the_kernels_reason_for_a_drop_that_no_rule_explains(network: TracedNetwork) -> None:
    lab = network.snapshot()
    network.on("worker1", "sysctl -q net.ipv4.ip_forward=0")
    try:
        stale, trace = network.sent(lab, ONE, OTHER), network.trace(ONE, OTHER)
    finally:
        network.on("worker1", "sysctl -q net.ipv4.ip_forward=1")
    end = stale.shown.end
    assert end and (end.at, end.kind, end.evidence, end.missing) == (WORKER1, "dropped", SEEN, "node worker2")
    assert end.why.startswith("the kernel of node worker1 dropped it: ")
    end = trace.shown.end
    assert end and (end.at, end.kind, end.cause, end.evidence) == (WORKER1, "sysctl", "net.ipv4.ip_forward = 0", SEEN)
    assert "(the kernel there: " in end.why and trace.sent and trace.sent.wrong == ()


def test_without_nft_and_tracefs_the_trace_says_what_is_not_seen(
    network: TracedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft_trace, "HOLDER", ("nft-is-not-here",))
    text = run.PROGRAM.replace('"/sys/kernel/tracing"', '"/no/such/folder"')
    monkeypatch.setattr(run, "PROGRAM", text)
    trace = network.trace(ONE, "default/web")
    assert trace.complete and trace.sent and trace.sent.seen == trace.sent.hops
    rules = "no rule is seen: nft-is-not-here: No such file or directory"
    reasons = "no dropped packet and no routing decision is seen: tracefs cannot be mounted: No such file or directory"
    assert trace.sent.lacking == tuple(
        f"{node}: {text}" for node in ("worker1", "worker2") for text in (rules, reasons)
    )
    assert f"\nlacking   worker1: {rules}\n" in render.text(trace)
    dnat = next(event for event in trace.shown.there[1].events if event.kind == "dnat")
    assert dnat.evidence == INFERRED


def test_without_tracefs_a_node_tells_what_it_counted(network: TracedNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PROGRAM", run.PROGRAM.replace('"/sys/kernel/tracing"', '"/no/such/folder"'))
    lab = network.snapshot()
    network.on("worker1", "sysctl -q net.ipv4.ip_forward=0")
    try:
        trace = network.sent(lab, ONE, OTHER)
    finally:
        network.on("worker1", "sysctl -q net.ipv4.ip_forward=1")
    end = trace.shown.end
    assert end and (end.at, end.kind, end.evidence) == (WORKER1, "counted", SEEN)
    assert "to a wrong address" in end.cause and f"node worker1 counted meanwhile: {end.cause}" in end.why


def test_a_node_that_cannot_be_reached(network: TracedNetwork) -> None:
    lab = network.snapshot()
    network.network.refuse("ssh: connect to host 192.168.77.20 port 22: No route to host")
    with pytest.raises(LabError, match="No route to host"):
        network.sent(lab, ONE, OTHER)
    assert left(network) == []


def test_a_signal_before_it_is_sent_leaves_nothing(network: TracedNetwork) -> None:
    stop = Stop()
    stop.ask()
    with pytest.raises(KeyboardInterrupt):
        network.sent(network.snapshot(), ONE, OTHER, stop)
    until(lambda: None if not left(network) else NotYet(f"{left(network)}"), 30, poll_s=0.05)


# How it ends otherwise: the trace in a process of its own, while everything is on the nodes.

CHILD = """
import os, sys
from pathlib import Path
from hoplab.trace.live import run
from tests.support.live_network import Network
from tests.support.traced_network import TracedNetwork
network = TracedNetwork(Network(Path(sys.argv[1]), sys.argv[2], (f"cni-{sys.argv[2]}1", f"cni-{sys.argv[2]}2")))
def wait(self):
    print("listening", flush=True)
    while True:
        self._read(1)
        self._relays.require_all()
run.LiveTrace._send = wait
network.trace("pod/default/web-1", "pod/default/web-2")
"""


@contextmanager
def listening(network: TracedNetwork) -> Iterator[subprocess.Popen[str]]:
    """A trace that has not sent its packet yet."""
    command = [sys.executable, "-c", CHILD, str(network.network.folder), network.network.prefix]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT) as process:
        try:
            assert process.stdout and process.stderr
            assert process.stdout.readline() == "listening\n", process.stderr.read()
            for node in ("worker1", "worker2"):
                assert nft_trace.TABLE in network.on(node, "nft list tables")
            assert not has_tracefs() or sum(name.startswith(node_program.INSTANCE) for name in instances()) == 2
            yield process
        finally:
            process.kill()


def nothing_left(network: TracedNetwork) -> None:
    until(lambda: None if not left(network) else NotYet(f"{left(network)}"), 30, poll_s=0.1)


def test_nothing_is_left_where_the_command_is_killed(network: TracedNetwork) -> None:
    with listening(network) as process:
        process.kill()
        process.wait()
        nothing_left(network)


def test_nothing_is_left_where_a_connection_is_lost_or_a_relay_is_killed(network: TracedNetwork) -> None:
    with listening(network) as process:
        network.network.cut("worker1")
        assert process.wait(60) == 1
        nothing_left(network)
    with listening(network):
        relays = [pid for pid in network.network.captures() if _is_python(pid)]
        assert len(relays) == 4  # each with a child
        for pid in relays:
            if os.getpgid(pid) != pid or not has_tracefs():  # the child leads a group of its own
                os.kill(pid, signal.SIGKILL)
        nothing_left(network)


@pytest.mark.skipif(not has_tracefs(), reason="needs tracefs")
def test_signals_do_not_interrupt_the_cleaning(network: TracedNetwork) -> None:
    """A relay that loses its connection tells its child twice to end: by the pipe, and as it tells other programs."""
    with listening(network) as process:
        children = [pid for pid in network.network.captures() if os.getpgid(pid) == pid and _is_python(pid)]
        assert len(children) == 2
        process.kill()
        process.wait()

        def ended() -> NotYet | None:
            for pid in children:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            return NotYet("a child runs") if any(Path(f"/proc/{pid}").exists() for pid in children) else None

        until(ended, 30, poll_s=0.0001)
        nothing_left(network)


def _is_python(pid: int) -> bool:
    return b"python" in _command(pid).split(b"\0")[0]


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_an_old_instance_of_a_trace_that_was_killed_is_removed(network: TracedNetwork) -> None:
    if not has_tracefs():
        pytest.skip("needs tracefs")
    gone = subprocess.Popen(["true"])
    gone.wait()
    make = "mount -t tracefs tracefs /sys/kernel/tracing; "
    make += f"mkdir /sys/kernel/tracing/instances/{node_program.INSTANCE}.{gone.pid}"
    subprocess.run(["unshare", "--mount", "sh", "-c", make], check=True)
    whole(network.trace(ONE, OTHER))
    assert left(network) == []


def test_the_program_of_a_node_needs_nothing_but_python() -> None:
    """It is read as text, so what it imports has to be in Python 3.8."""
    text = Path(node_program.__file__).read_text()
    compile(text, "node_program", "exec")
    assert "hoplab.trace" not in text
