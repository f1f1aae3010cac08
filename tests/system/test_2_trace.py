"""Packets sent through the real lab: seen at every hop, dropped where a rule drops them, and nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hoplab.core.paths import LabPaths
from hoplab.observe.snapshot import Snapshot
from hoplab.observe.ssh import Hosts
from hoplab.trace import needs, nft_trace, render
from hoplab.trace.live import node_program
from hoplab.trace.model import SEEN
from hoplab.verify import live_look, requirements
from tests.support.traced_faults import BENDS, HOME, OTHER, TracedFault, pods
from tests.support.traced_faults import FAULTS as TRACED_FAULTS
from tests.support.traced_packets import EVERY_RUN, PACKETS, Trial, packets_of, sent
from tests.system.conftest import LabCommand
from tests.system.faults import FAULTS, Fault, Site, opened

pytestmark = pytest.mark.timeout(0)  # every command that is run has a bound of its own

ENOUGH = 0.95  # of the hops
DRAWS = 12  # packets to a service of two endpoints, one of which fails: all go to the other once in 4096
INSTANCES = f"/sys/kernel/tracing/instances/{node_program.INSTANCE}.*"
LEFT = f"nft list tables; ls -d {INSTANCES} 2>/dev/null; pgrep -fa '^python3 -ISc'"


@pytest.fixture(scope="module")
def seen(lab: LabCommand, paths: LabPaths) -> Iterator[Snapshot]:
    """One look at the lab, as `./lab trace` takes it."""
    with live_look.opened(paths, without=needs.others(ipv6=True)) as look:
        yield look()


@pytest.fixture
def hosts(seen: Snapshot, paths: LabPaths) -> Iterator[Hosts]:
    found = Hosts([node.name for node in seen.nodes], paths.ssh_config)
    yield found
    found.close()


def assert_nothing_left(hosts: Hosts) -> None:
    for node, outputs in hosts.batches({"left": LEFT}, in_pods={}).items():
        left = [line for line in outputs["left"].out.splitlines() if nft_trace.TABLE in line or "ISc" in line]
        assert left == [], node


def test_packets_are_seen_at_every_hop_as_predicted(paths: LabPaths, seen: Snapshot, hosts: Hosts) -> None:
    for name in EVERY_RUN:
        sender, receiver, options = PACKETS[name]
        trace = sent(paths, seen, sender, receiver, **options)
        text = f"{name}\n{render.text(trace)}"
        assert trace.complete and trace.sent, text
        assert trace.sent.seen >= ENOUGH * trace.sent.hops and trace.sent.wrong == (), text
        assert trace.sent.lacking == (), text
    assert_nothing_left(hosts)


@contextmanager
def dropping(hosts: Hosts, node: str, rule: str) -> Iterator[None]:
    def change(verb: str) -> None:
        found = hosts.batch(node, {"it": f"iptables {verb} FORWARD {rule}"})["it"]
        assert found.code == 0, found

    change("-I")
    try:
        yield
    finally:
        change("-D")


def test_a_packet_that_a_rule_drops_names_it(paths: LabPaths, seen: Snapshot, hosts: Hosts) -> None:
    single = pods(seen)["single"]
    rule = f"-d {single.address}/32 -p tcp -m comment --comment hoplab-test -j DROP"
    with dropping(hosts, single.node, rule):
        trace = sent(paths, seen, "far", "single")
    end = trace.shown.end
    assert end and (str(end.at), end.kind, end.evidence, end.reply) == (f"node {single.node}", "rule", SEEN, False)
    assert end.cause == f"-A FORWARD {rule}"
    assert trace.sent and trace.sent.wrong == ("the model predicted that it arrives and its reply returns",)
    assert_nothing_left(hosts)


# On request: every kind of packet, and every fault that stops or bends packets of such a lab

LIVE = [
    (traced, fault)
    for traced in TRACED_FAULTS
    for fault in FAULTS
    if fault.file == f"{traced.file.rpartition('/')[2]}.json" and traced.file.rpartition("/")[0] in ("", "younger")
]


@pytest.mark.on_request
def test_every_kind_of_packet_is_seen(paths: LabPaths, seen: Snapshot, hosts: Hosts) -> None:
    trial = Trial()
    for name in packets_of(seen):
        print(trial.send(name, paths, seen))
    trial.require(ENOUGH)
    assert_nothing_left(hosts)


@pytest.fixture(scope="module")
def site(lab: LabCommand, paths: LabPaths) -> Iterator[Site]:
    with opened(paths) as found:
        yield found


@pytest.mark.on_request
@pytest.mark.parametrize(("traced", "fault"), LIVE, ids=lambda value: getattr(value, "name", ""))
def test_a_fault_is_found_at_its_place(traced: TracedFault, fault: Fault, paths: LabPaths, site: Site) -> None:
    """On a lab like that of the recordings; the nodes may have changed places."""
    if reason := requirements.skip_reason(site.session.snapshot, **fault.needs):
        pytest.skip(reason)
    places = {HOME: site.node.name, OTHER: site.other.name}
    receiver = traced.receiver
    for name, here in ((HOME, site.node.name), (OTHER, site.other.name)):
        if receiver.startswith(f"{name.removeprefix('node ')}:"):
            receiver = f"{here}:{receiver.partition(':')[2]}"
            break
    with fault.broken(site), live_look.opened(paths, without=needs.others()) as look:
        lab = look()
        for _ in range(DRAWS if traced.drawn else 1):
            trace = sent(paths, lab, traced.sender, receiver, **traced.options)
            if trace.sent and (trace.shown.end or trace.sent.wrong):
                break
    text = render.text(trace)
    if traced.kind == BENDS:
        assert trace.complete and trace.shown.bends, text
        return
    at = f"node {places[traced.at]}" if traced.at in places else f"pod {pods(lab)[traced.at]}"
    if traced.drawn and not trace.shown.end:  # TCP sent it again, and another endpoint was drawn
        assert trace.sent and any(at in difference for difference in trace.sent.wrong), text
        return
    assert trace.shown.end and str(trace.shown.end.at) == at, text
