"""Recordings of labs with Calico, with one thing broken at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hoplab.expectations import cni
from hoplab.expectations.cni import calico
from hoplab.observe.snapshot import Snapshot
from tests.support import edits
from tests.support.edits import Edit, Fault, added, address_of, also, changed, lines_without, without
from tests.support.recordings import recording

LABS = {name: recording(f"calico-{name}") for name in calico.BACKENDS}
BGP, IPIP, VXLAN = LABS["bgp"], LABS["ipip"], LABS["vxlan"]
FIRST, SECOND = BGP.nodes[:2]
POD = next(pod for pod in BGP.pods_on(FIRST) if pod.api.label("app") == "echo")
ANY = BGP.pods_on(FIRST)[0]  # whose name stands first where all pods of the node are wrong
HOST_END = calico.host_end(POD.api)
OWN, REMOTE = (str(calico.blocks(BGP, node)[0].cidr) for node in (FIRST, SECOND))


def on_node(fact: str, edit: Edit, lab: Snapshot = BGP) -> Snapshot:
    return edits.on_node(fact, edit, lab, FIRST.name)


def in_pod(fact: str, edit: Edit) -> Snapshot:
    return edits.in_pod(fact, edit, BGP, POD)


def in_blocks(change: Callable[[list[dict[str, Any]]], None]) -> Snapshot:
    """The lab with something else in the specs of its blocks, the first of them the node's."""

    def edit(text: str) -> str:
        document = json.loads(text)
        specs = [item["spec"] for item in document["items"]]
        change(sorted(specs, key=lambda spec: str(spec["cidr"]) != OWN))
        return json.dumps(document)

    return replace(BGP, api=edits.edited_facts(BGP.api, "ipam_blocks", edit))


def set_in(key: str, value: Any) -> Callable[[list[dict[str, Any]]], None]:
    def change(specs: list[dict[str, Any]]) -> None:
        specs[0][key] = value

    return change


def of_another_pod(specs: list[dict[str, Any]]) -> None:
    for attribute in specs[0]["attributes"]:
        attribute["secondary"] |= {"pod": "stranger"} if attribute["secondary"].get("pod") == POD.api.name else {}


def switched_off(name: str) -> Edit:
    return lambda text: text.replace(f"{name}:1", f"{name}:0")


def tunnel_of(lab: Snapshot) -> str:
    tunnel = cni.expectations(lab)[FIRST.name].tunnel
    assert tunnel
    return tunnel.dev


FAULTS = (
    Fault(
        "a bridge beside Calico",
        lambda: on_node("links", added({"ifindex": 99, "ifname": "br0", "linkinfo": {"info_kind": "bridge"}})),
        ("calico_has_no_bridge",),
        f"{FIRST.name} has 1 bridge: br0",
    ),
    Fault(
        "an end is the port of a bridge beside Calico",
        lambda: on_node("links", changed({"ifname": HOST_END}, master="br0")),
        ("calico_has_no_bridge",),
        f"{HOST_END}, the end of {POD} on {FIRST.name}, is a port of br0",
    ),
    Fault(
        "a pod has no route of its own",
        lambda: on_node("routes", without(dst=str(POD.address))),
        ("a_node_routes_its_own_range_to_its_pods", "the_longest_prefix_decides", "proc_and_ip_route_agree"),
        f"{FIRST.name} has no route {POD.address}/32 dev {HOST_END}",
    ),
    Fault(
        "the own block is no blackhole",
        lambda: on_node("routes", without(dst=OWN, type="blackhole")),
        ("an_address_that_no_pod_has_leads_nowhere", "proc_and_ip_route_agree"),
        f"{FIRST.name} has no route blackhole {OWN} proto bird",
    ),
    Fault(
        "a block's route is not from BGP",
        lambda: on_node("routes", changed({"dst": REMOTE}, protocol="static")),
        ("a_node_routes_every_other_range_to_its_node",),
        f"{FIRST.name} has no route {REMOTE} via {SECOND.address} dev eth0 proto bird",
    ),
    Fault(
        "a block goes by eth0 where it should be wrapped",
        lambda: on_node("routes", changed({"dst": str(calico.blocks(IPIP, IPIP.nodes[1])[0].cidr)}, dev="eth0"), IPIP),
        ("a_node_routes_every_other_range_to_its_node", "the_longest_prefix_decides", "proc_and_ip_route_agree"),
        f"via {SECOND.address} dev tunl0 onlink proto bird",
    ),
    Fault(
        "a BGP session is down",
        lambda: on_node("bgp", lambda text: text.replace("Established", "Idle")),
        ("bgp_tells_the_nodes_of_each_other",),
        f"a session of {FIRST.name} is not established: Mesh_",
    ),
    Fault(
        "nobody speaks BGP",
        lambda: on_node("bgp", lines_without("BGP")),
        ("bgp_tells_the_nodes_of_each_other",),
        f"BIRD on {FIRST.name} has sessions with nothing, not with {SECOND.address}",
    ),
    Fault(
        "somebody owns 169.254.1.1",
        lambda: on_node("addresses", added(address_of("lo", "169.254.1.1"))),
        ("calicos_gateway_is_nobodys_address", "all_addresses_are_private"),
        f"169.254.1.1 is on lo of {FIRST.name}",
    ),
    Fault(
        "a host end answers for nobody",
        lambda: on_node("sysctls", switched_off(f"{HOST_END}/proxy_arp")),
        ("calicos_gateway_is_nobodys_address",),
        f"{HOST_END} of {FIRST.name} answers for no other",
    ),
    Fault(
        "a host end has a MAC of its own",
        lambda: on_node("links", changed({"ifname": HOST_END}, address="02:00:00:00:00:01")),
        ("calicos_gateway_is_nobodys_address",),
        f"{HOST_END}, the end of {POD}, has the MAC 02:00:00:00:00:01",
    ),
    Fault(
        "a block says that another pod has the address",
        lambda: in_blocks(of_another_pod),
        ("calico_wrote_down_who_has_which_address",),
        f"says that {POD.address} is of hoplab-verify/stranger, not of {POD}",
    ),
    Fault(
        "a block is of another size",
        lambda: replace(BGP, setting=replace(BGP.setting, block_size=25)),
        ("blocks_do_not_overlap",),
        "is no /25 of",
    ),
)


def twice(specs: list[dict[str, Any]]) -> None:
    specs[1]["cidr"] = OWN


OF_THE_OTHER = set_in("affinity", f"host:{SECOND.name}")
NO_END = without(ifname=HOST_END)
NO_PAIR = {
    "first": "a_pod_hangs_on_a_veth_pair",
    "first_says": f"no interface with the index that the eth0 of {POD} names",
}
NO_BLOCK = {"first": "blocks_do_not_overlap", "first_says": f"no block belongs to {FIRST.name}"}

MORE = (
    also(
        "calico_has_no_bridge",
        f"the node's end of the pair of {POD} is missing",
        lambda: on_node("links", NO_END),
        **NO_PAIR,
    ),
    also(
        "calico_has_no_bridge",
        f"the end of {POD} is cali0, not {HOST_END}",
        lambda: on_node("links", changed({"ifname": HOST_END}, ifname="cali0")),
    ),
    also(
        "calico_wrote_down_who_has_which_address",
        f"no block has {ANY.address}, the address of {ANY}",
        lambda: in_blocks(set_in("allocations", [])),
    ),
    also(
        "calico_wrote_down_who_has_which_address",
        f"{ANY} of {FIRST.name} has {ANY.address} from a block of {SECOND.name}",
        lambda: in_blocks(OF_THE_OTHER),
        **NO_BLOCK,
    ),
    also(
        "an_address_that_no_pod_has_leads_nowhere",
        f"no block of the pod range belongs to {FIRST.name}",
        lambda: in_blocks(OF_THE_OTHER),
        **NO_BLOCK,
    ),
    also(
        "calicos_gateway_is_nobodys_address",
        f"{POD} has other routes than the two to 169.254.1.1",
        lambda: in_pod("routes", added({"dst": "10.9.9.0/24", "gateway": "169.254.1.1", "dev": "eth0"})),
    ),
    also(
        "calicos_gateway_is_nobodys_address",
        f"the node's end of the pair of {POD} is missing",
        lambda: on_node("links", NO_END),
        **NO_PAIR,
    ),
    also(
        "calicos_gateway_is_nobodys_address",
        f"{POD} was told that 169.254.1.1 is at 02:00:00:00:00:01",
        lambda: in_pod(
            "neighbours", lambda _: '[{"dst": "169.254.1.1", "dev": "eth0", "lladdr": "02:00:00:00:00:01"}]'
        ),
    ),
    also("blocks_do_not_overlap", f"overlaps {OWN} of", lambda: in_blocks(twice)),
    also("blocks_do_not_overlap", f"no block belongs to {FIRST.name}", lambda: in_blocks(OF_THE_OTHER)),
)
