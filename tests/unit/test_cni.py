"""What flannel promises, computed from the setting and what Kubernetes knows."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from hoplab import cni
from hoplab.cni import FdbPromise, NeighbourPromise, RoutePromise, flannel
from hoplab.errors import LabError
from hoplab.facts import Facts
from hoplab.facts.fdb import FdbEntry
from hoplab.facts.neighbours import Neighbour
from hoplab.facts.routes import Route
from hoplab.paths import PROJECT
from hoplab.snapshot import load

RECORDED = load(PROJECT / "tests" / "recordings" / "flannel-vxlan.json")
FIRST, SECOND = RECORDED.nodes[:2]


def test_vxlan_leads_to_the_remote_flannel_interface() -> None:
    promised = cni.promises(RECORDED)[FIRST.name]
    assert promised.own_routes == (RoutePromise(FIRST.pod_cidr, "cni0"),)
    assert promised.routes[0] == RoutePromise(SECOND.pod_cidr, "flannel.1", SECOND.pod_cidr[0], onlink=True)
    mac = flannel.vtep_mac(SECOND)
    assert promised.neighbours[0] == NeighbourPromise(SECOND.pod_cidr[0], "flannel.1", mac)
    assert promised.fdb[0] == FdbPromise(mac, "flannel.1", SECOND.address)
    assert (promised.pod_gateway, promised.bridge, promised.overhead) == (FIRST.pod_cidr[1], "cni0", 50)


def test_host_gw_leads_to_the_remote_node() -> None:
    lab = replace(RECORDED, setting=replace(RECORDED.setting, backend="host-gw"))
    promised = cni.promises(lab)[FIRST.name]
    assert promised.routes[0] == RoutePromise(SECOND.pod_cidr, "eth0", SECOND.address)
    assert "flannel.1" not in promised.interfaces and promised.fdb == ()


def test_promises_read_as_the_tools_print() -> None:
    assert str(RoutePromise(IPv4Network("10.244.1.0/24"), "flannel.1", IPv4Address("10.244.1.0"), onlink=True)) == (
        "10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink"
    )
    assert str(NeighbourPromise(IPv4Address("10.244.1.0"), "flannel.1", "aa:bb")) == (
        "10.244.1.0 dev flannel.1 lladdr aa:bb PERMANENT"
    )
    assert (
        str(FdbPromise("aa:bb", "flannel.1", IPv4Address("192.168.77.21"))) == "aa:bb dev flannel.1 dst 192.168.77.21"
    )


def test_a_route_keeps_its_promise_in_every_part() -> None:
    dst, via = IPv4Network("10.244.1.0/24"), IPv4Address("10.244.1.0")
    promise = RoutePromise(dst, "flannel.1", via, onlink=True)
    good = Route(dst, via, "flannel.1", flags=("onlink",))
    assert promise.kept_by(good)
    for bad in (
        replace(good, dst=IPv4Network("10.244.2.0/24")),
        replace(good, via=None),
        replace(good, dev="eth0"),
        replace(good, flags=()),
        replace(good, flags=("onlink", "linkdown")),
        replace(good, table="42"),
        replace(good, kind="blackhole"),
    ):
        assert not promise.kept_by(bad), bad


def test_neighbours_and_fdb_entries_keep_theirs() -> None:
    address = IPv4Address("10.244.1.0")
    neighbour = Neighbour(address, "flannel.1", "aa:bb", ("PERMANENT",))
    assert NeighbourPromise(address, "flannel.1", "aa:bb").kept_by(neighbour)
    assert not NeighbourPromise(address, "flannel.1", "aa:bb").kept_by(replace(neighbour, states=("STALE",)))
    assert not NeighbourPromise(address, "flannel.1", "aa:cc").kept_by(neighbour)
    entry = FdbEntry("aa:bb", "flannel.1", "192.168.77.21", "", "permanent")
    assert FdbPromise("aa:bb", "flannel.1", IPv4Address("192.168.77.21")).kept_by(entry)
    assert not FdbPromise("aa:bb", "flannel.1", IPv4Address("192.168.77.22")).kept_by(entry)


def test_a_node_that_announces_nothing_is_named() -> None:
    api = json.loads(RECORDED.api.outputs["nodes"].out)
    for item in api["items"]:
        item["metadata"]["annotations"] = {}
    output = replace(RECORDED.api.outputs["nodes"], out=json.dumps(api))
    lab = replace(RECORDED, api=Facts("api", {**RECORDED.api.outputs, "nodes": output}))
    with pytest.raises(LabError, match="announces no VXLAN interface") as caught:
        cni.promises(lab)
    assert "get pods" in caught.value.remedy


def test_an_unknown_cni_is_named() -> None:
    with pytest.raises(LabError, match="nothing is known of the CNI 'weave'"):
        cni.chosen("weave")
