"""What flannel and Calico are expected to leave, computed from the setting and what Kubernetes knows."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from hoplab.core.errors import LabError
from hoplab.expectations import cni
from hoplab.expectations.cni import FdbExpectation, NeighbourExpectation, RouteExpectation, calico, flannel
from hoplab.observe.facts import Facts
from hoplab.observe.facts.fdb import FdbEntry
from hoplab.observe.facts.neighbours import Neighbour
from hoplab.observe.facts.routes import Route
from hoplab.observe.snapshot import Snapshot
from tests.support.recordings import recording

RECORDED = recording("flannel-vxlan")
FIRST, SECOND = RECORDED.nodes[:2]


def test_vxlan_leads_to_the_remote_flannel_interface() -> None:
    expected = cni.expectations(RECORDED)[FIRST.name]
    assert expected.own_routes == (RouteExpectation(FIRST.pod_cidr, "cni0"),)
    assert expected.routes[0] == RouteExpectation(SECOND.pod_cidr, "flannel.1", SECOND.pod_cidr[0], onlink=True)
    mac = flannel.vtep_mac(SECOND)
    assert expected.neighbours[0] == NeighbourExpectation(SECOND.pod_cidr[0], "flannel.1", mac)
    assert expected.fdb[0] == FdbExpectation(mac, "flannel.1", SECOND.address)
    assert (expected.pod_gateway, expected.bridge, expected.overhead) == (FIRST.pod_cidr[1], "cni0", 50)


def test_host_gw_leads_to_the_remote_node() -> None:
    lab = replace(RECORDED, setting=replace(RECORDED.setting, backend="host-gw"))
    expected = cni.expectations(lab)[FIRST.name]
    assert expected.routes[0] == RouteExpectation(SECOND.pod_cidr, "eth0", SECOND.address)
    assert "flannel.1" not in expected.interfaces and expected.fdb == ()


def test_what_is_wrapped_is_found_by_its_port_or_protocol() -> None:
    labs = [RECORDED, *(with_calico(backend) for backend in calico.BACKENDS)]
    tunnels = [cni.expectations(lab)[FIRST.name].tunnel for lab in labs]
    assert [tunnel.filter if tunnel else "" for tunnel in tunnels] == [
        *("udp port 8472", "", "ip proto 4", "udp port 4789"),
    ]


def test_expectations_read_as_the_tools_print() -> None:
    assert str(RouteExpectation(IPv4Network("10.244.1.0/24"), "flannel.1", IPv4Address("10.244.1.0"), onlink=True)) == (
        "10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink"
    )
    assert str(NeighbourExpectation(IPv4Address("10.244.1.0"), "flannel.1", "aa:bb")) == (
        "10.244.1.0 dev flannel.1 lladdr aa:bb PERMANENT"
    )
    assert (
        str(FdbExpectation("aa:bb", "flannel.1", IPv4Address("192.168.77.21")))
        == "aa:bb dev flannel.1 dst 192.168.77.21"
    )


def test_a_route_meets_its_expectation_in_every_part() -> None:
    dst, via = IPv4Network("10.244.1.0/24"), IPv4Address("10.244.1.0")
    expectation = RouteExpectation(dst, "flannel.1", via, onlink=True)
    good = Route(dst, via, "flannel.1", flags=("onlink",))
    assert expectation.met_by(good)
    for bad in (
        replace(good, dst=IPv4Network("10.244.2.0/24")),
        replace(good, via=None),
        replace(good, dev="eth0"),
        replace(good, flags=()),
        replace(good, flags=("onlink", "linkdown")),
        replace(good, table="42"),
        replace(good, kind="blackhole"),
        replace(good, tos=16),
        replace(good, senders=dst),
    ):
        assert not expectation.met_by(bad), bad


def test_neighbours_and_fdb_entries_keep_theirs() -> None:
    address = IPv4Address("10.244.1.0")
    neighbour = Neighbour(address, "flannel.1", "aa:bb", ("PERMANENT",))
    assert NeighbourExpectation(address, "flannel.1", "aa:bb").met_by(neighbour)
    assert not NeighbourExpectation(address, "flannel.1", "aa:bb").met_by(replace(neighbour, states=("STALE",)))
    assert not NeighbourExpectation(address, "flannel.1", "aa:cc").met_by(neighbour)
    entry = FdbEntry("aa:bb", "flannel.1", "192.168.77.21", "", "permanent")
    assert FdbExpectation("aa:bb", "flannel.1", IPv4Address("192.168.77.21")).met_by(entry)
    assert not FdbExpectation("aa:bb", "flannel.1", IPv4Address("192.168.77.22")).met_by(entry)
    for other in (replace(entry, vni=7), replace(entry, port=4789)):  # the host does not listen there
        assert not FdbExpectation("aa:bb", "flannel.1", IPv4Address("192.168.77.21")).met_by(other)


def test_a_node_that_announces_nothing_is_named() -> None:
    api = json.loads(RECORDED.api.outputs["nodes"].out)
    for item in api["items"]:
        item["metadata"]["annotations"] = {}
    output = replace(RECORDED.api.outputs["nodes"], out=json.dumps(api))
    lab = replace(RECORDED, api=Facts("api", {**RECORDED.api.outputs, "nodes": output}))
    with pytest.raises(LabError, match="announces no VXLAN interface") as caught:
        cni.expectations(lab)
    assert "get pods" in caught.value.remedy


def with_calico(backend: str) -> Snapshot:
    """The same nodes and pods in a lab with Calico, each node with the block that its pods' addresses are in."""
    nodes = json.loads(RECORDED.api.outputs["nodes"].out)
    for index, item in enumerate(nodes["items"]):
        item["metadata"]["annotations"] = {
            "projectcalico.org/IPv4VXLANTunnelAddr": str(RECORDED.nodes[index].pod_cidr[0]),
        }
    blocks = [{"spec": {"cidr": f"{node.pod_cidr[0]}/26", "affinity": f"host:{node.name}"}} for node in RECORDED.nodes]
    outputs = {**RECORDED.api.outputs}
    outputs["nodes"] = replace(outputs["nodes"], out=json.dumps(nodes))
    outputs["ipam_blocks"] = replace(outputs["nodes"], out=json.dumps({"items": blocks}))
    return replace(
        RECORDED,
        setting=replace(RECORDED.setting, cni="calico", backend=backend),
        api=Facts("api", outputs),
    )


BLOCK, OWN_BLOCK = (IPv4Network(f"{node.pod_cidr[0]}/26") for node in (SECOND, FIRST))


def test_bgp_leads_to_the_remote_node() -> None:
    expected = cni.expectations(with_calico("bgp"))[FIRST.name]
    assert expected.routes == (RouteExpectation(BLOCK, "eth0", SECOND.address, protocol="bird"),)
    assert [str(route) for route in expected.blackholes] == [f"blackhole {OWN_BLOCK} proto bird"]
    assert (expected.interfaces, expected.bridge, expected.overhead) == (("lo", "eth0"), "", 0)
    assert (expected.ranges, expected.bgp, expected.fdb) == ((OWN_BLOCK,), (SECOND.address,), ())
    assert expected.pod_gateway == IPv4Address("169.254.1.1")
    pods = [pod for pod in RECORDED.own_address_pods if pod.node == FIRST.name]
    assert {str(route) for route in expected.own_routes} == {
        f"{pod.address}/32 dev {calico.host_end(pod)}" for pod in pods
    }


def test_ipip_leads_through_tunl0() -> None:
    expected = cni.expectations(with_calico("ipip"))[FIRST.name]
    assert expected.routes == (RouteExpectation(BLOCK, "tunl0", SECOND.address, onlink=True, protocol="bird"),)
    assert (expected.interfaces, expected.overhead, expected.bgp) == (("lo", "eth0", "tunl0"), 20, (SECOND.address,))


def test_vxlan_leads_to_the_remote_interface_without_bgp() -> None:
    expected, mac = cni.expectations(with_calico("vxlan"))[FIRST.name], calico.vxlan_mac(SECOND)
    via = SECOND.pod_cidr[0]
    assert expected.routes == (RouteExpectation(BLOCK, "vxlan.calico", via, onlink=True, protocol="boot"),)
    assert [route.protocol for route in expected.blackholes] == ["80"]
    assert expected.neighbours == (NeighbourExpectation(via, "vxlan.calico", mac),)
    assert expected.fdb == (FdbExpectation(mac, "vxlan.calico", SECOND.address),)
    assert expected.tunnel and (expected.tunnel.mac, expected.tunnel.vni) == (calico.vxlan_mac(FIRST), 4096)
    assert (expected.overhead, expected.bgp) == (50, ())


def test_the_mac_of_vxlan_follows_from_the_nodes_name() -> None:
    node = replace(FIRST, name="worker1")
    assert calico.vxlan_mac(node) == "66:3c:05:84:20:98"
    assert calico.vxlan_mac(node, "-v6") == "66:ed:a6:2d:2b:8d"


def test_a_pods_end_has_a_name_that_anybody_can_work_out() -> None:
    pod = replace(RECORDED.own_address_pods[0], namespace="kube-system", name="coredns-76f75df574-abcde")
    assert calico.host_end(pod) == "cali49d349094ad"
    assert calico.chain("to", "cali1") == "cali-tw-cali1" and calico.chain("from", "cali1") == "cali-fw-cali1"


def test_a_node_of_which_calico_says_nothing_is_named() -> None:
    lab = replace(with_calico("vxlan"), api=with_calico("bgp").api)
    nodes = json.loads(lab.api.outputs["nodes"].out)
    for item in nodes["items"]:
        item["metadata"]["annotations"] = {}
    lab = replace(
        lab, api=Facts("api", {**lab.api.outputs, "nodes": replace(lab.api.outputs["nodes"], out=json.dumps(nodes))})
    )
    with pytest.raises(LabError, match="calico-node on worker2 announces no IPv4VXLANTunnelAddr"):
        cni.expectations(lab)


def test_a_route_names_its_maker_where_that_is_expected() -> None:
    expectation = RouteExpectation(BLOCK, "", kind="blackhole", protocol="bird")
    good = Route(BLOCK, kind="blackhole", protocol="bird")
    assert expectation.met_by(good)
    assert not expectation.met_by(replace(good, protocol="80")) and not expectation.met_by(
        replace(good, kind="unicast")
    )
    assert replace(expectation, protocol="").met_by(replace(good, protocol="80"))


def test_an_unknown_cni_is_named() -> None:
    with pytest.raises(LabError, match=r"there is no CNI 'weave'; known: calico, cilium, flannel$"):
        cni.get_cni("weave")


def with_cilium(backend: str) -> Snapshot:
    """The same nodes and pods in a lab with Cilium."""
    nodes = json.loads(RECORDED.api.outputs["nodes"].out)
    for index, item in enumerate(nodes["items"]):
        item["metadata"]["annotations"] = {
            "network.cilium.io/ipv4-cilium-host": str(RECORDED.nodes[index].pod_cidr[77]),
            "network.cilium.io/ipv6-cilium-host": f"fd00:244:0:{index}::77",
        }
        item["spec"]["podCIDRs"] = [item["spec"]["podCIDR"], f"fd00:244:0:{index}::/64"]
    output = replace(RECORDED.api.outputs["nodes"], out=json.dumps(nodes))
    return replace(
        RECORDED,
        setting=replace(RECORDED.setting, cni="cilium", backend=backend),
        api=Facts("api", {**RECORDED.api.outputs, "nodes": output}),
    )


def test_cilium_routes_to_the_program_that_wraps() -> None:
    expected, router = cni.expectations(with_cilium("vxlan"))[FIRST.name], FIRST.pod_cidr[77]
    assert [str(route) for route in expected.own_routes] == [
        f"{FIRST.pod_cidr} via {router} dev cilium_host proto kernel",
        f"{router}/32 dev cilium_host",
    ]
    assert [str(route) for route in expected.routes] == [f"{SECOND.pod_cidr} via {router} dev cilium_host proto kernel"]
    assert expected.interfaces == ("lo", "eth0", "cilium_net", "cilium_host", "cilium_vxlan")
    assert [str(program) for program in expected.programs] == [
        "cil_to_host at ingress of cilium_host",
        "cil_from_host at egress of cilium_host",
        "cil_to_host at ingress of cilium_net",
        "cil_from_netdev at ingress of eth0",
        "cil_from_overlay at ingress of cilium_vxlan",
        "cil_to_overlay at egress of cilium_vxlan",
    ]
    assert (expected.pod_gateway, expected.bridge, expected.overhead) == (router, "", 50)
    tunnel = expected.tunnel
    assert tunnel and (tunnel.filter, tunnel.mac, tunnel.vni, tunnel.vni_per_packet) == (
        "udp port 8472",
        "",
        None,
        True,
    )


def test_cilium_without_a_tunnel_routes_to_the_node() -> None:
    expected = cni.expectations(with_cilium("native"))[FIRST.name]
    assert [str(route) for route in expected.routes] == [
        f"{SECOND.pod_cidr} via {SECOND.address} dev eth0 proto kernel"
    ]
    assert (expected.tunnel, expected.interfaces[-1]) == (None, "cilium_host")


def test_without_kube_proxy_a_program_sees_what_leaves_the_node() -> None:
    lab = with_cilium("native")
    lab = replace(lab, setting=replace(lab.setting, proxy_mode="cilium"))
    assert "cil_to_netdev at egress of eth0" in map(str, cni.expectations(lab)[FIRST.name].programs)


def test_a_route_of_ipv6_by_cilium_has_no_gateway() -> None:
    expected = cni.expectations6(with_cilium("vxlan"))[FIRST.name]
    assert [str(route) for route in expected.own_routes] == ["fd00:244::/64 dev cilium_host proto kernel"]
    assert [str(route) for route in expected.routes] == ["fd00:244:0:1::/64 dev cilium_host proto kernel"]


def test_a_node_without_ciliums_address_is_named() -> None:
    lab = replace(RECORDED, setting=replace(RECORDED.setting, cni="cilium"))
    with pytest.raises(LabError, match=f"cilium-agent on {FIRST.name} announces no ipv4-cilium-host") as caught:
        cni.expectations(lab)
    assert "logs ds/cilium" in caught.value.remedy
