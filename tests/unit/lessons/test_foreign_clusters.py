"""Read-only lessons on clusters that hoplab did not make: healthy ones stay so, what cannot be checked is skipped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hoplab.core.errors import LabError
from hoplab.expectations.registry import UnknownPart
from hoplab.observe.facts import Facts
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import requirements, runner
from hoplab.verify.report import ConsoleReporter
from tests.support.edited import dns, filters, hosts
from tests.support.edits import edited_facts, in_api, objects_without, on_node
from tests.support.foreign_clusters import HEALTHY, as_foreign, outcomes, renamed, without_workload
from tests.support.lesson_functions import applies, failures, read_only
from tests.support.recordings import recording

OWN = {
    "all_addresses_are_private",
    "kinds_of_routes",
    "a_nodes_gateway_is_the_labs",
}
WITH_WORKLOAD = {
    "a_local_service_stays_on_its_node",
    "a_service_without_endpoints_rejects",
    "a_service_of_both_families_has_two_addresses",
    "a_sticky_service_remembers_its_clients",
    "nothing_drops_what_a_node_sends_to_a_service",
    "nothing_drops_what_comes_in_by_a_load_balancer",
    "nothing_drops_what_comes_in_by_a_node_port",
    "nothing_on_the_way_drops_it_between_nodes",
}


def skipped(found: dict[str, str]) -> dict[str, str]:
    return {name: end.removeprefix("skipped: ") for name, end in found.items() if end.startswith("skipped")}


def failed(found: dict[str, str]) -> dict[str, str]:
    return {name: end for name, end in found.items() if end.startswith("failed")}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_cluster_stays_healthy(name: str) -> None:
    """Without the workload, of which kube-proxy's rules are left: what the API does not have is not looked for."""
    lab = recording(name)
    found = outcomes(as_foreign(without_workload(lab)))
    assert failed(found) == {}
    own = {lesson for lesson in read_only() if applies(lesson, lab)}
    assert {lesson for lesson in own if found[lesson]} >= OWN
    checked = {lesson for lesson, end in found.items() if not end}
    assert own - checked <= OWN | WITH_WORKLOAD | {"the_load_balancer_gives_addresses_of_its_pool"}


@pytest.mark.parametrize("name", ["flannel-vxlan", "flannel-host-gw", "flannel-wireguard", "flannel-vxlan-nftables"])
def test_so_does_one_with_other_names(name: str) -> None:
    found = outcomes(as_foreign(renamed(recording(name))))
    assert failed(found) == {} and not found["every_node_has_its_own_address"]


def test_a_fault_is_found_there_too() -> None:
    lab = renamed(recording("flannel-vxlan"))
    node = lab.nodes[0].name
    broken = edited_facts(lab.node_facts[node], "iptables", lambda text: text.replace("-j MASQUERADE", "-j ACCEPT"))
    found = failed(outcomes(as_foreign(replace(lab, node_facts={**lab.node_facts, node: broken}))))
    assert f"on {node} a packet of" in found["what_leaves_the_pod_range_is_masqueraded"]


def test_lessons_of_an_unknown_cni_are_skipped_by_its_name() -> None:
    lab = as_foreign(recording("flannel-vxlan"))
    found = outcomes(replace(lab, setting=replace(lab.setting, cni="antrea", backend="")))
    assert failed(found) == {}
    reasons = skipped(found)
    assert "'antrea'" in reasons["a_node_has_the_interfaces_of_its_cni"]
    assert reasons["a_pods_gateway_is_its_nodes_bridge"] == "needs the CNI flannel; this lab has antrea"
    assert not found["a_service_leads_to_its_endpoints"]


def test_lessons_of_an_unknown_mode_are_skipped_by_its_name() -> None:
    lab = as_foreign(recording("flannel-vxlan"))
    found = skipped(outcomes(replace(lab, setting=replace(lab.setting, backend="udp", proxy_mode="ipvs"))))
    assert found["the_longest_prefix_decides"].endswith("not udp")
    assert "'ipvs'" in found["a_service_leads_to_its_endpoints"]


def test_an_unknown_part_of_a_lab_is_no_reason_to_skip() -> None:
    lab = recording("flannel-vxlan")
    error = UnknownPart("there is no CNI 'x'", remedy="")
    assert requirements.unknown_reason(error, lab) == ""
    assert requirements.unknown_reason(error, as_foreign(lab)) == "there is no CNI 'x'"
    assert requirements.unknown_reason(LabError("else"), as_foreign(lab)) == ""


def without_command(lab: Snapshot, fact: str) -> Snapshot:
    nodes = {
        node: Facts(node, {**facts.outputs, fact: Output(127, "", "sh: 1: ipset: not found")})
        for node, facts in lab.node_facts.items()
    }
    return replace(lab, node_facts=nodes)


def test_a_tool_that_hosts_lack_is_a_reason_to_skip_there_only() -> None:
    lab = without_command(recording("flannel-vxlan"), "ipam")
    name = "ipam_gave_each_pod_its_address"
    assert failures([name], lab)[name] == "`worker1` lacks a command: sh: 1: ipset: not found"
    assert skipped(outcomes(as_foreign(lab)))[name] == "`worker1` lacks a command: sh: 1: ipset: not found"


def test_without_the_workload_what_drops_a_packet_is_looked_for_between_the_pods_of_coredns() -> None:
    lab = filters.with_all_tables(without_workload(recording("flannel-vxlan")))
    found = outcomes(as_foreign(lab))
    assert failed(found) == {} and not found[filters.TO_THE_NODE]
    homes = [pod.node.name for pod in lab.pods if pod.api.label("k8s-app") == "kube-dns"]
    missing = filters.BETWEEN_NODES if len(set(homes)) == 1 else filters.ON_ONE_NODE
    assert "of CoreDNS or of the verification workload" in found[missing] and found[missing].startswith("skipped: ")
    rule = filters.inserted("filter", "INPUT", "-p tcp -m tcp --dport 10250 -j DROP")
    broken = edited_facts(lab.node_facts[homes[0]], "iptables", rule)
    seen = as_foreign(replace(lab, node_facts={**lab.node_facts, homes[0]: broken}))
    assert "drops tcp 10.244." in failed(outcomes(seen))[filters.TO_THE_NODE]


def test_nodes_in_several_subnets_need_not_reach_each_other_directly() -> None:
    lab = recording("flannel-vxlan")
    facts = edited_facts(
        lab.node_facts["worker1"], "addresses", lambda text: text.replace('"prefixlen":24', '"prefixlen":27')
    )
    found = outcomes(as_foreign(replace(lab, node_facts={**lab.node_facts, "worker1": facts})))
    reason = "needs all nodes in one subnet; this cluster's are in 192.168.77.0/27, 192.168.77.0/24"
    assert skipped(found)["the_same_subnet_goes_direct"] == skipped(found)["every_node_has_its_own_address"] == reason


def test_a_smaller_mtu_may_be_chosen() -> None:
    lab = recording("flannel-vxlan")
    nodes = {
        node: edited_facts(facts, "links", lambda text: text.replace('"mtu":1450', '"mtu":1400'))
        for node, facts in lab.node_facts.items()
    }
    pods = {
        node: {
            netns: edited_facts(facts, "links", lambda text: text.replace('"mtu":1450', '"mtu":1400'))
            for netns, facts in found.items()
        }
        for node, found in lab.netns_facts.items()
    }
    smaller = replace(lab, node_facts=nodes, netns_facts=pods)
    name = "encapsulation_leaves_room_in_the_mtu"
    assert "has the MTU 1400, not 1450" in failures([name], smaller)[name]
    assert outcomes(as_foreign(smaller))[name] == ""


def test_another_dns_than_coredns_with_its_usual_names_is_skipped() -> None:
    healthy = outcomes(as_foreign(dns.with_dns()))
    assert [healthy[name] for name in (dns.ITSELF, dns.CRASH, dns.ASK)] == ["", "", ""]
    lab = in_api("services", lambda text: objects_without(text, "kube-dns"), dns.with_dns(corefile=""))
    reasons = skipped(outcomes(as_foreign(lab)))
    assert reasons[dns.ASK] == "needs the service kube-system/kube-dns; this cluster's DNS has another name"
    assert reasons[dns.ITSELF] == "needs the ConfigMap kube-system/coredns; this cluster has none"
    unlabelled = in_api("pod_states", lambda text: text.replace('"k8s-app"', '"app"'), dns.with_dns())
    assert "k8s-app=kube-dns" in skipped(outcomes(as_foreign(unlabelled)))[dns.CRASH]


def test_udp_flows_of_another_proxy_are_not_judged() -> None:
    lab = as_foreign(recording("flannel-vxlan"))
    name = "udp_flows_lead_to_endpoints"
    assert outcomes(lab)[name] == ""
    assert "'ipvs'" in skipped(outcomes(replace(lab, setting=replace(lab.setting, proxy_mode="ipvs"))))[name]


def test_a_strict_filter_of_a_distribution_is_no_fault_where_it_drops_nothing() -> None:
    strict = hosts.rp_filter(1, "all")
    name = hosts.BY_A_WRONG_INTERFACE
    assert name in failures([name], strict) and outcomes(as_foreign(strict))[name] == ""
    assert "drops what comes from" in failed(outcomes(as_foreign(hosts.strict_and_another_way_back())))[name]


def test_an_address_of_a_node_is_no_balancers() -> None:
    """k3s gives Services the nodes' addresses, and a hostPort leads to a pod of its own."""
    node = recording("flannel-vxlan").nodes[0]
    given = {"loadBalancer": {"ingress": [{"ip": str(node.address)}]}}

    def edit(text: str) -> str:
        document = json.loads(text)
        for item in document["items"]:
            if item["metadata"]["name"] == "kube-dns":
                item["status"] = given
        return json.dumps(document)

    asked = f"src=10.9.9.9 dst={node.address} sport=4000 dport=53"
    flow = f"udp 17 20 {asked} src=10.244.1.99 dst=10.9.9.9 sport=53 dport=4000\n"
    served = in_api("services", edit, recording("flannel-vxlan"))
    lab = on_node("conntrack", lambda text: text + flow, served, node.name)
    assert outcomes(as_foreign(lab))["udp_flows_lead_to_endpoints"] == ""


def test_the_plugin_skips_what_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from hoplab.expectations import cni\n\n"
        "def test_of_the_cni(lab, claim):\n    cni.expectations(lab)\n\n"
        "def test_with_traffic(session):\n    pass\n"
    )
    seen = as_foreign(recording("flannel-vxlan"))
    report = runner.new_report(replace(seen, setting=replace(seen.setting, cni="antrea")))
    with (tmp_path / "out").open("w") as out:
        runner.check(
            replace(seen, setting=replace(seen.setting, cni="antrea")), report, ConsoleReporter(out), lessons=tmp_path
        )
    ends = {result.name: (result.outcome, result.why) for result in report.results}
    assert ends["test_of_the_cni"][0] == "skipped" and "there is no CNI 'antrea'" in ends["test_of_the_cni"][1]
    assert ends["test_with_traffic"] == ("skipped", requirements.TRAFFIC)


@pytest.mark.parametrize(
    ("needs", "outside", "reason"),
    [
        ({"ingress": True}, True, "is about an ingress controller as hoplab installs it; this cluster has readable"),
        (
            {"outside": True},
            False,
            "needs a client outside: run it on a machine in 192.168.77.0/24, the nodes' network",
        ),
        ({"outside": True}, True, ""),
    ],
)
def test_lessons_with_traffic_that_do_not_apply(needs: dict[str, object], outside: bool, reason: str) -> None:
    lab = recording("flannel-vxlan")
    assert requirements.session_reason(as_foreign(lab), [needs], outside=outside) == reason
    assert requirements.session_reason(lab, [needs], outside=outside) == ""
