"""Lessons about the kernel's values and what is left over on a host: healthy hosts of every kind, then one fault."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from hoplab.observe import reverse_path
from hoplab.observe.facts import Facts
from hoplab.observe.facts.api_ipam_blocks import API_IPAM_BLOCKS
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import leftovers
from hoplab.verify.claims import Claim, ClaimFailed
from tests.support.edited.hosts import (
    BY_A_WRONG_INTERFACE,
    CALICO,
    FAULTS,
    FLOWS,
    GONE,
    HOST_PORTS,
    OLD,
    OLD_MAC,
    ONE_MAC,
    RESERVED,
    ROOM,
    fdb_entry,
    flow,
    full,
    host_port,
    kept_by_calico,
    reserved,
    rp_filter,
)
from tests.support.edits import Fault, added, api_item, in_api, lines_without, on_node
from tests.support.lesson_functions import failures, lessons
from tests.support.recordings import RECORDED_LABS, recording


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fails_exactly_its_lessons(fault: Fault) -> None:
    fault.fails_its_lessons()


# rp_filter


def everywhere(value: int, lab: Snapshot) -> Snapshot:
    """The value that a distribution gives to every interface, but not to ``all``."""
    return rp_filter(
        value, *(link for link in ("eth0", "cni0", "flannel.1", "tunl0") if lab.nodes[0].link(link)), lab=lab
    )


@pytest.mark.parametrize("name", RECORDED_LABS)
@pytest.mark.parametrize("value", [1, 2])
def test_what_distributions_set_fails_nothing(name: str, value: int) -> None:
    """RHEL's strict filter and systemd's loose one, of each interface."""
    assert failures([BY_A_WRONG_INTERFACE], everywhere(value, recording(name))) == {}


def test_the_higher_value_applies() -> None:
    node = rp_filter(1, "eth0", lab=rp_filter(2, "all")).nodes[0]
    assert (reverse_path.mode(node, "eth0"), reverse_path.deciding(node, "eth0")) == (2, "net.ipv4.conf.all.rp_filter")
    node = rp_filter(1, "eth0").nodes[0]
    assert (reverse_path.mode(node, "eth0"), reverse_path.deciding(node, "eth0")) == (1, "net.ipv4.conf.eth0.rp_filter")
    assert reverse_path.mode(node, "eth9") == reverse_path.OFF


def test_a_loose_filter_refuses_what_has_no_route() -> None:
    gateway = OLD.setting.gateway
    lost = on_node("routes", lambda _: "[]", rp_filter(2, "eth0"), OLD.nodes[0].name)
    assert reverse_path.refusal(lost.nodes[0], gateway, "eth0").endswith("would answer by `unreachable`")
    assert reverse_path.refusal(rp_filter(2, "eth0").nodes[0], gateway, "eth0") == ""


def test_a_route_that_cannot_be_read_refuses_nothing() -> None:
    unread = {"dst": "192.168.77.1", "dev": "cni0", "metric": "low"}
    lab = on_node("routes", added(unread), rp_filter(1, "eth0"), OLD.nodes[0].name)
    assert reverse_path.refusal(lab.nodes[0], OLD.setting.gateway, "eth0") == ""


def test_felix_with_a_rule_of_its_own_needs_no_sysctl() -> None:
    assert failures([BY_A_WRONG_INTERFACE], rp_filter(2, "all", lab=CALICO)) == {}
    assert failures([BY_A_WRONG_INTERFACE], rp_filter(1, "all", lab=CALICO)) == {}


# What is left over


@pytest.mark.parametrize("name", RECORDED_LABS)
def test_nothing_is_left_over_on_a_healthy_lab(name: str) -> None:
    assert failures((ROOM, FLOWS, RESERVED, HOST_PORTS, ONE_MAC), recording(name)) == {}


def test_host_ports_of_pods_are_found_on_every_lab() -> None:
    for name in RECORDED_LABS:
        node = recording(name).nodes[0]
        assert {str(port.to) for port in leftovers.host_ports(node)}, name


def test_a_table_without_a_bound_has_room() -> None:
    assert failures([ROOM], full(336, most=0)) == {}
    without = on_node("sysctls", lines_without("nf_conntrack"))
    assert failures([ROOM], without) == {}


def test_a_full_table_shows_what_was_counted() -> None:
    counters = Output(0, "/proc/net/stat/nf_conntrack:entries drop early_drop\n/proc/net/stat/nf_conntrack:32 0a 03\n")
    lab = full(50)
    facts = {**lab.nodes[0].facts.outputs, "counters": counters}
    name = lab.nodes[0].name
    lab = replace(lab, node_facts={**lab.node_facts, name: Facts(name, facts)})
    with pytest.raises(ClaimFailed) as caught:
        lessons()[ROOM].function(lab=lab, claim=Claim())
    assert caught.value.evidence == (
        "net.netfilter.nf_conntrack_max = 50",
        "nf_conntrack drop since boot: 10",
        "nf_conntrack early_drop since boot: 3",
    )


def test_ordinary_flows_fail_nothing() -> None:
    dns = next(pod for pod in OLD.pods if pod.api.label("k8s-app") == "kube-dns")
    assert failures([FLOWS], flow(str(dns.address))) == {}
    assert failures([FLOWS], flow("8.8.8.8", replied="8.8.8.8")) == {}  # to no service
    assert failures([FLOWS], flow(GONE, dport=9153)) == {}  # a port of kube-dns, by TCP only
    nobody = in_api("endpoints", lambda _: '{"items": []}', flow(str(OLD.setting.dns_ip)))
    assert failures([FLOWS], nobody) == {}  # no endpoint to translate to


def test_a_flow_to_a_node_port_counts_too() -> None:
    def by_udp(item: dict[str, Any]) -> None:
        item["spec"]["ports"][0]["protocol"] = "UDP"

    lab = flow(GONE, replied=str(OLD.nodes[0].address), dport=30080)
    assert failures([FLOWS], lab) == {}
    found = failures([FLOWS], in_api("services", api_item("single", by_udp), lab))[FLOWS]
    assert f"to {OLD.nodes[0].address}:30080 goes to {GONE}:53, which is no endpoint of hoplab-verify/single" in found


def test_reservations_of_others_fail_nothing() -> None:
    assert failures([RESERVED], reserved("10.4.0.7", network="bridge")) == {}  # nerdctl's containers are no pods
    pod = next(pod for pod in OLD.pods_on(OLD.nodes[0]) if pod.api.label("app") == "echo")
    starting = in_api("pods", api_item(pod.api.name, pending), reserved(GONE))
    assert failures([RESERVED], starting) == {}
    assert RESERVED in failures([RESERVED], reserved("10.244.1.251", lab=starting))
    assert failures([RESERVED], on_node("cni_config", lambda _: "", reserved(GONE), OLD.nodes[0].name)) == {}


def pending(item: dict[str, Any]) -> None:
    item["status"] = {"phase": "Pending"}


def test_calicos_own_addresses_are_nobodys() -> None:
    pod = next(pod for pod in CALICO.pods if pod.api.label("app") == "echo")
    assert "which is gone" in failures([RESERVED], kept_by_calico(str(pod)))[RESERVED]  # it has another address
    blocks = [block for block in CALICO.api[API_IPAM_BLOCKS] if any("/" not in who for who in block.taken.values())]
    assert leftovers.taken(CALICO) == () and isinstance(blocks, list)


def test_a_rule_of_another_kind_is_no_host_port() -> None:
    assert failures([HOST_PORTS], host_port("172.17.0.2:80")) == {}  # outside of the pod range
    assert failures([HOST_PORTS], host_port("10.244.1.2-10.244.1.9")) == {}
    direct = host_port(f"{GONE}:80", "-A CNI-HOSTPORT-DNAT -p tcp -m tcp --dport 8081 -j DNAT --to-destination")
    assert f"leads to {GONE}, which no pod there has" in failures([HOST_PORTS], direct)[HOST_PORTS]


def test_host_ports_of_nftables_count_too() -> None:
    own: dict[str, Any] = {"family": "ip", "table": "cni_hostport"}
    match = {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 8081}}
    objects = [
        {"table": {"family": "ip", "name": "cni_hostport"}},
        {"chain": {**own, "name": "hostports"}},
        {"rule": {**own, "chain": "hostports", "expr": [match, {"dnat": {"addr": GONE, "port": 80}}]}},
    ]
    name = OLD.nodes[0].name
    outputs = {**OLD.node_facts[name].outputs, "nft_ruleset": Output(0, json.dumps({"nftables": objects}))}
    lab = replace(OLD, node_facts={**OLD.node_facts, name: Facts(name, outputs)})
    assert f"dnat to {GONE}:80` on {name} leads to {GONE}" in failures([HOST_PORTS], lab)[HOST_PORTS]


def test_groups_and_other_interfaces_fail_nothing() -> None:
    for mac in ("00:00:00:00:00:00", "33:33:00:00:00:01", "FF:ff:ff:ff:ff:ff"):
        assert failures([ONE_MAC], fdb_entry(mac, "192.0.2.1")) == {}
    assert failures([ONE_MAC], fdb_entry(OLD_MAC, "192.0.2.1", "vxlan9")) == {}
