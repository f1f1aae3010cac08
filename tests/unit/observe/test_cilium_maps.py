"""What Cilium's programs find in the maps of a node: the smallest range, a client's frontend, an entry that decides."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from hoplab.observe.cilium_maps import WORLD, CiliumMaps
from hoplab.observe.facts import Facts
from hoplab.observe.facts.cilium_endpoints import Endpoint
from hoplab.observe.script import Output
from tests.support.recordings import recording

NODE = recording("cilium-vxlan").nodes[0]
MAPS = CiliumMaps(NODE.facts)
POD = Endpoint(ip_address("10.244.1.52"), 695, 3358, 15, "42:34:eb:75:2b:e6", "de:06:1a:e0:de:79")


def maps(**facts: Any) -> CiliumMaps:
    return CiliumMaps(Facts("worker1", {name: Output(0, json.dumps(found)) for name, found in facts.items()}))


def entry(identity: int, *, port: int = 0, protocol: int = 0, deny: bool = False) -> Any:
    key = {
        "Identity": identity,
        "TrafficDirection": 0,
        "Nexthdr": protocol,
        "DestPortNetwork": int.from_bytes(port.to_bytes(2, "big"), "little"),
    }
    return {"Flags": int(deny), "Packets": 0, "Key": key}


def test_programs_are_found_by_interface_and_direction() -> None:
    assert str(MAPS.program("cilium_host", "egress")) == "cil_from_host at tcx/egress of cilium_host"
    assert MAPS.program("eth0", "egress") is None
    assert CiliumMaps(recording("flannel-vxlan").nodes[0].facts).programs == {}


def test_an_address_is_of_a_pod_or_of_the_node_itself() -> None:
    assert MAPS.endpoint(POD.address) == POD
    router = MAPS.endpoint(ip_address("10.244.1.181"))
    assert router and router.id == 0 and router not in MAPS.pods()
    assert MAPS.endpoint(ip_address("10.244.0.46")) is None
    assert POD in MAPS.pods()


def test_the_smallest_range_says_whose_an_address_is() -> None:
    assert str(MAPS.owner(ip_address("10.244.0.46"))) == "10.244.0.46/32 identity 36854 behind 192.168.77.21"
    assert str(MAPS.owner(ip_address("10.244.0.99"))) == "10.244.0.0/24 identity 2 behind 192.168.77.21"
    assert MAPS.identity(ip_address("198.51.100.9")) == WORLD == maps(cilium_ipcache={}).identity(POD.address)


def test_clients_outside_have_a_frontend_of_their_own() -> None:
    known = maps(
        cilium_services={
            "192.168.77.20:30081/TCP (0)": ["0.0.0.0:0 (9) (0) [NodePort, Local] "],
            "192.168.77.20:30081/TCP/i (0)": ["0.0.0.0:0 (9) (0) [NodePort, Local] "],
            "192.168.77.20:30081/TCP/i (1)": ["10.244.0.7:8080/TCP (9) (1)"],
            "10.96.0.1:443/TCP (1)": ["192.168.77.1:6443/TCP (4) (1)"],
        }
    )
    address = ip_address("192.168.77.20")
    inside, outside = (known.frontend(address, 30081, "tcp", inside=inside) for inside in (True, False))
    assert inside and outside
    assert (len(inside.backends), len(outside.backends)) == (1, 0)
    assert known.serves(address) and known.frontend(address, 30081, "udp", inside=True) is None
    assert known.frontend(ip_address("10.96.0.1"), 443, "tcp", inside=True) is None  # without a slot 0 nobody finds it
    assert not known.serves(ip_address("10.96.0.1"))


@pytest.mark.parametrize(
    ("identity", "aggregate"), [(3358, 11), (16777217, 13), (33554433, 14)], ids=["pod", "world", "other node"]
)
def test_an_entry_may_be_of_many(identity: int, aggregate: int) -> None:
    known = maps(cilium_policy=[{"EndpointID": "695", "Content": [entry(aggregate)]}])
    found = known.deciding(POD, identity, "tcp", 8080, egress=False)
    assert found and found.identity == aggregate
    assert known.deciding(POD, identity, "tcp", 8080, egress=True) is None
    assert known.deciding(POD, 1, "tcp", 8080, egress=False) is None
    assert known.has_policy_map(POD)


@pytest.mark.parametrize(
    ("entries", "allowed"),
    [
        ([], None),
        ([entry(0)], True),
        ([entry(0, protocol=6, port=8080)], True),
        ([entry(0, protocol=6, port=8081)], None),
        ([entry(0, protocol=17, port=8080)], None),
        ([entry(3358), entry(11, deny=True)], False),
        ([entry(0, deny=True), entry(3358)], True),  # everybody's counts where there is no other
    ],
)
def test_the_entry_that_decides(entries: list[Any], allowed: bool | None) -> None:
    known = maps(cilium_policy=[{"EndpointID": "695", "Content": entries}])
    found = known.deciding(POD, 3358, "tcp", 8080, egress=False)
    assert (found and not found.deny) is allowed if found else allowed is None
