"""Cilium's maps and programs, as cilium-dbg 1.20.2 and bpftool 7.5 printed them in a network namespace.

Most maps were filled by Cilium's own packages, without an agent; two agents wrote what is in ``cilium-ct*.txt`` and
``cilium-lb-agent.json``.
"""

from __future__ import annotations

import json
import subprocess
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import pytest

from hoplab.core.errors import FactError
from hoplab.observe.facts import Fact, _cilium, discover
from hoplab.observe.facts.bpf_programs import BPF_PROGRAMS, Program
from hoplab.observe.facts.cilium_conntrack import CILIUM_CONNTRACK, Tracked
from hoplab.observe.facts.cilium_endpoints import CILIUM_ENDPOINTS, Endpoint
from hoplab.observe.facts.cilium_ipcache import CILIUM_IPCACHE, Owner
from hoplab.observe.facts.cilium_metrics import CILIUM_METRICS, Counter
from hoplab.observe.facts.cilium_policy import CILIUM_POLICY, Entry
from hoplab.observe.facts.cilium_services import CILIUM_SERVICES, Backend, Frontend
from tests.support.real_outputs import captured

EVERY = (
    *(BPF_PROGRAMS, CILIUM_CONNTRACK, CILIUM_ENDPOINTS, CILIUM_IPCACHE, CILIUM_METRICS, CILIUM_POLICY, CILIUM_SERVICES),
)


def test_services_and_what_is_behind_them() -> None:
    api, dns, sticky, empty, local, node_port = CILIUM_SERVICES.parse(captured("cilium-lb.json"))
    first, second = Backend(1, IPv4Address("10.244.0.2"), 53), Backend(2, IPv4Address("10.244.1.3"), 53)
    assert dns == Frontend(IPv4Address("10.96.0.10"), 53, "udp", False, "ClusterIP", ("non-routable",), (first, second))
    assert str(dns) == "10.96.0.10:53/udp ClusterIP: 10.244.0.2:53, 10.244.1.3:53"
    assert sticky.flags == ("sessionAffinity", "non-routable") and [to.to for to in sticky.backends] == ["nowhere"]
    assert (empty.kind, empty.backends) == ("ClusterIP", ()) and "no backend" in str(empty)
    assert (node_port.kind, node_port.internal, node_port.port) == ("NodePort", True, 30080)
    assert node_port.flags == ("Local", "two-scopes") and local.flags == ("InternalLocal", "non-routable")
    assert [backend.to for backend in api.backends] == ["192.168.77.1:6443"]


def test_what_an_agent_writes_for_other_ports_of_a_service() -> None:
    other, single, *_ = CILIUM_SERVICES.parse(captured("cilium-lb-agent.json"))
    assert (other.port, other.protocol, other.backends) == (0, "any", ()) and other.address == single.address
    assert str(single) == "10.103.113.98:80/tcp ClusterIP: 10.244.1.203:8080"


def test_services_of_ipv6() -> None:
    slots = {
        "[fd00:96::a]:53/UDP (0)": ["[::]:0 (4) (0) [ClusterIP, non-routable] "],
        "[fd00:96::a]:53/UDP (1)": ["[fd00:244::2]:53/UDP (4) (1)"],
    }
    (dns,) = CILIUM_SERVICES.parse(json.dumps(slots))
    assert (dns.address, dns.backends[0].to) == (IPv6Address("fd00:96::a"), "[fd00:244::2]:53")


def test_slots_without_their_service_are_found_by_no_program() -> None:
    (found,) = CILIUM_SERVICES.parse(json.dumps({"10.96.0.1:443/TCP (1)": ["192.168.77.1:6443/TCP (1) (1)"]}))
    assert (found.kind, found.flags, len(found.backends)) == ("", (), 1)


def test_whose_an_address_is() -> None:
    world, own, behind, remote, node = CILIUM_IPCACHE.parse(captured("cilium-ipcache.json"))
    assert remote == Owner(IPv4Network("10.244.1.3/32"), 28371, IPv4Address("192.168.77.21"))
    assert str(remote) == "10.244.1.3/32 identity 28371 behind 192.168.77.21"
    assert (own.tunnel, world.identity, world.range.prefixlen, node.identity) == (None, 2, 0, 1)
    assert (behind.range, behind.tunnel) == (IPv4Network("10.244.1.0/24"), remote.tunnel)


def test_pods_of_a_node() -> None:
    pod, node, pod6 = CILIUM_ENDPOINTS.parse(captured("cilium-endpoint.json"))
    assert pod == Endpoint(IPv4Address("10.244.0.2"), 1234, 28371, 12, "2e:6f:00:11:22:33", "4a:00:aa:bb:cc:dd")
    assert (node.id, node.identity) == (0, 1)
    assert (pod6.address, pod6.id) == (IPv6Address("fd00:244::2"), 1234)


def test_whom_a_pod_may_talk_to() -> None:
    denied, node, client, everybody = CILIUM_POLICY.parse(captured("cilium-policy.json"))[1234]
    assert (
        everybody == Entry(0, egress=True, protocol=0, port=0, deny=False) and str(everybody) == "allows to everybody"
    )
    assert str(client) == "allows from identity 28371, protocol 6 port 8080"
    assert (str(denied), denied.deny, node.identity) == ("denies from identity 30000", True, 1)
    assert {entry.packets for entry in (denied, node, client, everybody)} == {0}, "no packet has met them"
    assert CILIUM_POLICY.parse("no maps found\n") == CILIUM_POLICY.parse("") == {}


def test_connections() -> None:
    """A request of a pod to a service, with the entries for ICMP errors about it, on both nodes of two agents."""
    out, service, errors = CILIUM_CONNTRACK.parse(captured("cilium-ct.txt"))
    client, server = IPv4Address("10.244.0.119"), IPv4Address("10.244.1.203")
    assert out == Tracked("tcp", "OUT", client, 60318, server, 8080, 3)
    assert str(service) == "TCP SVC 10.244.0.119:60318 -> 10.103.113.98:80 RevNAT=3"
    assert errors == Tracked("icmp", "OUT", client, 0, server, 0, 3)
    into, _ = CILIUM_CONNTRACK.parse(captured("cilium-ct-server.txt"))
    assert into == Tracked("tcp", "IN", client, 60318, server, 8080, 0)


def test_what_programs_counted() -> None:
    row = {
        "reason": "Policy denied",
        "direction": "INGRESS",
        "packets": 3,
        "bytes": 222,
        "line": 1,
        "file": "bpf_lxc.c",
    }
    assert CILIUM_METRICS.parse(json.dumps([row])) == (Counter("Policy denied", "ingress", 3),)


def test_programs_at_interfaces() -> None:
    found = BPF_PROGRAMS.parse(captured("bpftool-net.json"))
    assert found == (Program("lxc1", "tcx/ingress", "cil_from_container"), Program("lxc1", "clsact/egress", "t.o:[tc]"))
    assert [(program.id, program.direction) for program in found] == [(102, "ingress"), (106, "egress")]
    assert str(found[0]) == "cil_from_container at tcx/ingress of lxc1"
    (xdp,) = BPF_PROGRAMS.parse('[{"xdp": [{"devname": "eth0", "ifindex": 2, "mode": "driver", "id": 5}], "tc": []}]')
    assert (xdp, xdp.id, xdp.direction) == (Program("eth0", "xdp", ""), 5, "")


@pytest.mark.parametrize("fact", EVERY, ids=lambda fact: fact.name)
def test_a_node_without_cilium_has_none(fact: Fact[object]) -> None:
    assert not fact.parse("")


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        (CILIUM_SERVICES, "[]"),
        (CILIUM_SERVICES, '{"10.96.0.10 (0)": []}'),
        (CILIUM_SERVICES, '{"10.96.0.10:53/UDP (1)": ["10.244.0.2 (3)"]}'),
        (CILIUM_SERVICES, '{"kube-dns:53/UDP (0)": []}'),
        (CILIUM_IPCACHE, '{"10.244.1.3/32": ["nobody"]}'),
        (CILIUM_IPCACHE, '{"pods": ["identity=1 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>"]}'),
        (CILIUM_ENDPOINTS, '{"10.244.0.2:0": ["id=x"]}'),
        (CILIUM_POLICY, "{}"),
        (CILIUM_POLICY, '[{"EndpointID": "x", "Content": []}]'),
        (CILIUM_POLICY, '[{"EndpointID": "1", "Content": [{"Key": {"DestPortNetwork": 65536}}]}]'),
        (BPF_PROGRAMS, "{}"),
        (CILIUM_CONNTRACK, "TCP 10.244.0.2:41234 -> 10.244.1.3:8080"),
        (CILIUM_METRICS, "{}"),
    ],
)
def test_another_form_is_named(fact: Fact[object], text: str) -> None:
    with pytest.raises(FactError) as caught:
        fact.parse(text)
    assert caught.value.remedy


def test_snapshots_have_maps_and_no_connections() -> None:
    names = {fact.name for fact in discover("node")}
    assert {fact.name for fact in EVERY} - names == {"cilium_conntrack", "cilium_metrics"}


def test_a_node_without_cilium_runs_nothing(tmp_path: Path) -> None:
    command = _cilium.in_agent("false").replace(_cilium.SOCKET, str(tmp_path / "no.sock"))
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
