"""What ends a packet of IPv6, each in a recording of a lab with both families with one thing edited."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from hoplab.expectations.loadbalancer.metallb import announcer
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Node, Pod, Snapshot
from hoplab.trace.model import End, Trace
from hoplab.trace.topology import Topology
from tests.support.edits import added, address_of, api_item, changed, in_api, in_pod, on_node, without
from tests.support.recordings import recording
from tests.support.traced_faults import traced

Edit = Callable[[str], str]

FLANNEL, CALICO = recording("flannel-vxlan-dual"), recording("calico-bgp-dual")
NODE_PORT = 30099
NODE_PORT_RULES = f"""\
-A KUBE-NODEPORTS -p tcp -m tcp --dport {NODE_PORT} -j KUBE-MARK-MASQ
-A KUBE-NODEPORTS -p tcp -m tcp --dport {NODE_PORT} -j KUBE-SVC-47UHDF5OHX5VB7DP
"""
OLDER = "policy rules and switches of IPv6 (rules6, sysctls6) were not recorded: the usual ones are assumed"


def pod_of(lab: Snapshot, app: str, *, beside: bool = True) -> Pod:
    single = next(pod for pod in lab.pods if pod.api.label("app") == "single")
    return next(pod for pod in lab.pods if pod.api.label("app") == app and (pod.node is single.node) == beside)


def other_node(lab: Snapshot) -> Node:
    return pod_of(lab, "echo", beside=False).node


def home(lab: Snapshot) -> Node:
    return pod_of(lab, "single").node


def edited(lab: Snapshot, fact: str, edit: Edit, node: Node | None = None) -> Snapshot:
    return on_node(fact, edit, lab, (node or home(lab)).name)


def trace(lab: Snapshot, sender: str, receiver: str, **options: Any) -> Trace:
    return traced(lab, sender, receiver, ipv6=True, **options)


def end_of(lab: Snapshot, sender: str, receiver: str, **options: Any) -> End:
    end = trace(lab, sender, receiver, **options).shown.end
    assert end
    return end


def switched(lab: Snapshot, lines: str, node: Node | None = None) -> Snapshot:
    """Return the lab with the fact sysctls6, which older recordings lack."""
    at = (node or home(lab)).name
    facts = lab.node_facts[at]
    facts = replace(facts, outputs={**facts.outputs, "sysctls6": Output(0, lines)}, _parsed={})
    return replace(lab, node_facts={**lab.node_facts, at: facts})


def with_rules(table: str, rules: str) -> Edit:
    """Add rules before the others of a table of ip6tables-save."""

    def edit(text: str) -> str:
        before, start, rest = text.partition(f"*{table}\n")
        first = rest.index("\n[")
        return before + start + rest[: first + 1] + rules + rest[first + 1 :]

    return edit


@pytest.mark.parametrize(
    ("rule", "reply", "at_home"),
    [
        ("-A FORWARD -s fd00:244::/48 -p tcp -m tcp --dport 8080 -j DROP", False, True),
        ("-A FORWARD -d fd00:244:0:1::/64 -p tcp -m tcp --sport 8080 -j REJECT", True, True),
        ("-A OUTPUT -p udp -m udp --dport 8472 -j DROP", False, True),  # what carries it
        ("-A INPUT -s fd00:77::/64 -p udp -m udp --dport 8472 -j DROP", False, False),
    ],
)
def test_a_rule_of_ip6tables_that_drops_it(rule: str, reply: bool, at_home: bool) -> None:
    node = home(FLANNEL) if at_home else other_node(FLANNEL)
    lab = edited(FLANNEL, "ip6tables", with_rules("filter", f"{rule}\n"), node)
    end = end_of(lab, "single", "far")
    assert (end.kind, end.at.name, end.cause, end.reply) == ("rule", node.name, rule, reply)
    assert f"`{rule}` in ip6tables filter, {rule.split()[1]} of node {node.name} " in end.why
    assert traced(lab, "single", "far").complete  # IPv4


def test_rules_of_iptables_are_for_ipv4_alone() -> None:
    drop = "-A FORWARD -j DROP\n-A OUTPUT -j DROP\n"
    assert trace(edited(FLANNEL, "iptables", with_rules("filter", drop)), "single", "far").complete


def test_a_ping_is_of_icmpv6() -> None:
    rule = "-A FORWARD -p ipv6-icmp -j DROP"
    lab = edited(FLANNEL, "ip6tables", with_rules("filter", f"{rule}\n"))
    found = trace(lab, "single", "far", protocol="icmp")
    assert found.shown.header.protocol_name == "ICMPv6" and found.shown.end and found.shown.end.cause == rule
    assert trace(lab, "single", "far").complete
    v4 = edited(FLANNEL, "ip6tables", with_rules("filter", "-A FORWARD -p icmp -j DROP\n"))
    assert trace(v4, "single", "far", protocol="icmp").complete


def test_rules_for_neighbour_discovery_are_not_for_a_ping() -> None:
    """Calico has rules for its types before others: that none of them is an echo request is known."""
    found = trace(CALICO, "single", home(CALICO).name, protocol="icmp")
    assert len(found.ways) == 1 and found.complete
    drop = "-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type {} -j DROP"
    for kind, ends, reply in ((135, False, False), (128, True, False), (129, False, False)):
        lab = edited(CALICO, "ip6tables", with_rules("filter", drop.format(kind) + "\n"))
        end = trace(lab, "single", home(lab).name, protocol="icmp").shown.end
        assert bool(end) is ends and (not end or (end.cause, end.reply) == (drop.format(kind), reply))
    output = drop.format(129).replace("INPUT", "OUTPUT")
    end = end_of(
        edited(CALICO, "ip6tables", with_rules("filter", output + "\n")), "single", home(CALICO).name, protocol="icmp"
    )
    assert (end.cause, end.reply) == (output, True)


def test_a_node_port_of_ipv6() -> None:
    """kube-proxy writes rules for it as for that of IPv4; it is masqueraded as the node that the client asked."""

    def change(item: dict[str, Any]) -> None:
        item["spec"].update(type="NodePort", ports=[{"port": 80, "protocol": "TCP", "nodePort": NODE_PORT}])

    lab = in_api("services", api_item("echo", change), FLANNEL)
    for node in FLANNEL.nodes:
        lab = edited(lab, "ip6tables", with_rules("nat", NODE_PORT_RULES), node)
    found = trace(lab, "outside", "service/echo", via="nodeport")
    assert found.complete and {str(way.target) for way in found.ways} == {
        f"pod {pod_of(lab, 'echo')}",
        f"pod {pod_of(lab, 'echo', beside=False)}",
    }
    text = [event.result for way in found.ways for hop in way.there for event in hop.events if event.result]
    assert f"destination [fd00:77::20]:{NODE_PORT} becomes [fd00:244::5]:8080" in text
    assert "source fd00:77::1 becomes fd00:244::1" in text  # of cni0, by which it goes on
    assert "source fd00:77::1 becomes fd00:244::" in text  # of flannel-v6.1
    unruled = in_api("services", api_item("echo", change), FLANNEL)
    end = end_of(unruled, "outside", f"worker1:{NODE_PORT}")
    assert (end.kind, end.cause) == ("socket", f"no socket on TCP port {NODE_PORT}")


@pytest.mark.parametrize(
    ("fact", "edit", "kind", "cause"),
    [
        ("neighbours6", without(dev="flannel-v6.1"), "neighbour", "no neighbour fd00:244:: dev flannel-v6.1"),
        ("fdb", without(dst="fd00:77::20"), "fdb", "no FDB entry 62:21:27:d8:d9:ad dev flannel-v6.1"),
        ("links", without(ifname="flannel-v6.1"), "link", "flannel-v6.1"),
        ("routes6", without(gateway="fd00:244::"), "route", "default via fd00:77::1 dev eth0"),
    ],
)
def test_what_flannels_tunnel_of_ipv6_needs(fact: str, edit: Edit, kind: str, cause: str) -> None:
    lab = edited(FLANNEL, fact, edit)
    end = end_of(lab, "single", "far")
    assert (end.kind, end.cause, end.at.name) == (kind, cause, home(lab).name)
    if fact == "neighbours6":
        assert end.why.endswith("`ip -6 neigh show dev flannel-v6.1`")
    assert traced(lab, "single", "far").complete


def test_a_packet_is_unwrapped_by_the_interface_of_its_family() -> None:
    """flannel.1 and flannel-v6.1 have one VNI and one port."""
    lab = edited(FLANNEL, "links", without(ifname="flannel-v6.1"), other_node(FLANNEL))
    end = end_of(lab, "single", "far")
    assert (end.kind, end.cause) == ("link", "no interface of kind vxlan")


def test_forwarding_is_one_switch_of_ipv6() -> None:
    """That of an interface is of router advertisements; the kernel forwards whatever it is."""
    was = "/proc/sys/net/ipv6/conf/all/forwarding:1\n"
    only = was.replace("all", "flannel-v6.1").replace(":1", ":0")
    assert trace(edited(FLANNEL, "sysctls", lambda text: text + only), "single", "far").complete
    end = end_of(edited(FLANNEL, "sysctls", lambda text: text.replace(was, was.replace(":1", ":0"))), "single", "far")
    assert (end.kind, end.cause) == ("sysctl", "net.ipv6.conf.all.forwarding = 0")
    forced = "".join(f"/proc/sys/net/ipv6/conf/{dev}/force_forwarding:1\n" for dev in ("cni0", "flannel-v6.1"))
    off = edited(FLANNEL, "sysctls", lambda text: text.replace(was, was.replace(":1", ":0")))
    assert trace(switched(off, forced), "single", "far").complete
    off = edited(FLANNEL, "sysctls", lambda text: text.replace("ipv4/ip_forward:1", "ipv4/ip_forward:0"))
    assert trace(off, "single", "far").complete


def test_a_reverse_path_filter_is_for_ipv4_alone() -> None:
    strict = edited(FLANNEL, "sysctls", lambda text: text.replace("all/rp_filter:0", "all/rp_filter:1"))
    bare = changed({"gateway": "fd00:244::"}, gateway="fd00:77::20", dev="eth0", flags=[])
    found = trace(edited(strict, "routes6", bare), "far", "single")
    assert found.complete and "leaves node worker1 by flannel-v6.1" in found.shown.bends[0]


def test_a_bridge_calls_the_hooks_of_ipv6_by_a_switch_of_its_own() -> None:
    off = switched(FLANNEL, "/proc/sys/net/bridge/bridge-nf-call-ip6tables:0\n")
    found = trace(off, "single", "hoplab-verify/echo")
    [end] = [way.end for way in found.ways if way.end]
    assert (end.kind, end.reply) == ("client", True)
    assert end.cause == f"source [{pod_of(off, 'echo').address6}]:8080 is not [fd00:96::3b83]:80"
    assert traced(off, "single", "hoplab-verify/echo").complete


@pytest.mark.parametrize(("value", "note"), [("0", False), ("1", True), ("", True)])
def test_a_host_end_of_calico_without_its_address(value: str, note: bool) -> None:
    """A pod's default route leads to the link-local address of its host end, which answers for it."""
    pod = pod_of(CALICO, "single")
    assert pod.host_end
    end_dev = pod.host_end.name

    def bare(text: str) -> str:
        links = json.loads(text)
        return json.dumps([{**link, "addr_info": []} if link["ifname"] == end_dev else link for link in links])

    lab = edited(CALICO, "addresses6", bare)
    if value:
        lab = switched(lab, f"/proc/sys/net/ipv6/conf/{end_dev}/proxy_ndp:{value}\n")
    found = trace(lab, "single", "outside")
    switch = f"net.ipv6.conf.{end_dev}.proxy_ndp"
    if note:  # whether there is an entry (`ip -6 neigh show proxy`) is not known
        known = f"whether {end_dev} of node {pod.node.name} answers for fe80::ecee:eeff:feee:eeee is not in the facts"
        assert found.complete and any(text == f"{known}: {switch}" for text in found.notes)
        return
    end = found.shown.end
    assert end and (end.kind, end.cause, end.at.name) == ("sysctl", f"{switch} = 0", pod.node.name)
    assert "answers no neighbour solicitation for fe80::ecee:eeff:feee:eeee" in end.why


def test_who_has_an_address_is_asked_by_neighbour_discovery() -> None:
    end = end_of(FLANNEL, "worker1", "fd00:77::99")
    nobody = "nobody on the lab network has fd00:77::99"
    assert (end.kind, end.why) == ("neighbour", f"{nobody}: node worker1 gets no answer to its neighbour solicitation")
    end = end_of(FLANNEL, "outside", "fd00:77::99")
    assert end.why == "no node answers neighbour discovery for fd00:77::99"
    end = end_of(FLANNEL, "single", str(IPv6Address(int(pod_of(FLANNEL, "single").address6) + 99)))
    assert end.kind == "neighbour" and "gets no answer to its neighbour solicitation" in end.why
    end = end_of(FLANNEL, "outside", "fd00:96::1234")
    assert end.why == "the outside has no route to fd00:96::1234, an address that only the cluster knows"


def test_a_balancers_address_of_ipv6_comes_in_by_its_announcer() -> None:
    """MetalLB's speaker answers neighbour solicitations for it."""

    def change(item: dict[str, Any]) -> None:
        item["status"] = {"loadBalancer": {"ingress": [{"ip": "fd00:77::99"}]}}

    lab = in_api("services", api_item("echo", change), FLANNEL)
    metallb = replace(lab, setting=replace(lab.setting, load_balancer="metallb"))
    [first, second, *_] = trace(metallb, "outside", "hoplab-verify/echo", via="loadbalancer").shown.there
    assert str(first.header.dst) == "fd00:77::99"
    assert second.place.name == announcer(IPv6Address("fd00:77::99"), ["worker1", "worker2"])
    end = end_of(lab, "outside", "hoplab-verify/echo", via="loadbalancer")
    assert end.why == "no node answers neighbour discovery for fd00:77::99"


def test_link_local_addresses() -> None:
    """Those of IPv4 are like others, as NodeLocal DNSCache uses one; those of IPv6 are of one interface alone."""
    lab = edited(FLANNEL, "addresses", added(address_of("nodelocaldns", "169.254.20.10")))
    node = Topology(lab).nodes[home(lab).name]
    assert node.has(IPv4Address("169.254.20.10"), "cni0")
    own = next(own for own in node.own if own.dev == "cni0" and own.address.version == 6 and own.scope == "link")
    assert node.has(own.address, "cni0") and not node.has(own.address, "eth0")
    on_wire = next(own.address for own in node.own if own.dev == "eth0" and own.scope == "link")
    assert Topology(lab).on_lab_network(on_wire, None)[0].place == node.place
    assert Topology(lab).on_lab_network(own.address, None) == ()


def test_a_mac_of_ipv6_that_is_written_down_wrong() -> None:
    wrong = changed({"dst": "fd00:77::20"}, lladdr="02:00:00:00:00:09", state=["PERMANENT"])
    end = end_of(edited(FLANNEL, "neighbours6", wrong), "single", "far")
    assert end.kind == "neighbour" and "which is written down for fd00:77::20" in end.why


def test_a_pod_without_a_route_of_ipv6() -> None:
    lab = in_pod("routes6", without(dst="default"), FLANNEL, pod_of(FLANNEL, "single"))
    end = end_of(lab, "single", "outside")
    assert (end.kind, end.cause) == ("route", "no route to fd00:77::1")
    assert traced(lab, "single", "outside").complete


def test_a_node_that_listens_for_ipv4_alone() -> None:
    lab = edited(FLANNEL, "sockets", lambda text: text.replace("[::]:22", "[::1]:22"))
    end = end_of(lab, "outside", home(lab).name, port=22)
    assert (end.kind, end.cause) == ("socket", "no socket on TCP port 22")
    assert traced(lab, "outside", home(lab).name, port=22).complete


def test_a_pod_that_is_masqueraded_to_another_one() -> None:
    rule = "-A POSTROUTING -s fd00:244::/48 -j MASQUERADE"
    lab = edited(FLANNEL, "ip6tables", with_rules("nat", f"{rule}\n"))
    [bend] = trace(lab, "single", "far").shown.bends
    assert bend.startswith(f"`{rule}` in ip6tables nat, POSTROUTING of node {home(lab).name} hides")
    assert bend.endswith("becomes fd00:244:0:1::")


def test_what_an_older_recording_lacks_is_a_note() -> None:
    assert OLDER in trace(FLANNEL, "single", "far").notes and OLDER not in traced(FLANNEL, "single", "far").notes
    lab = FLANNEL
    for node in FLANNEL.nodes:
        lab = switched(lab, "/proc/sys/net/bridge/bridge-nf-call-ip6tables:1\n", node)
    [*_, note] = trace(lab, "single", "far").notes
    assert note == OLDER.replace("rules6, sysctls6", "rules6")
    for node in FLANNEL.nodes:
        facts = lab.node_facts[node.name]
        facts = replace(facts, outputs={**facts.outputs, "rules6": facts.outputs["rules"]}, _parsed={})
        lab = replace(lab, node_facts={**lab.node_facts, node.name: facts})
    assert not any("IPv6" in note for note in trace(lab, "single", "far").notes)
