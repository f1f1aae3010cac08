"""Day 2: a pod's routing table, to which the learner adds the default gateway."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from hoplab.observe.facts.routes import DEFAULT, ROUTES, Route, lookup
from hoplab.practice import CheckResult, Exercise, Inspection, Request, Server, checks

POD, NODE, FAR = "practice-pod", "practice-node", "practice-far"
OWN, GATEWAY, NEIGHBOUR = IPv4Address("10.200.2.5"), IPv4Address("10.200.2.1"), IPv4Address("10.200.2.9")
SERVER = IPv4Address("172.31.2.80")
ASK = Request(POD, SERVER)


def check(inspection: Inspection) -> Iterator[CheckResult]:
    routes = inspection[POD][ROUTES]
    main = [route for route in routes if route.table == "main"]
    default = next((route for route in main if route.dst == DEFAULT), None)
    to_far, to_neighbour = lookup(routes, SERVER), lookup(routes, NEIGHBOUR)
    yield checks.result(
        default and default.via == GATEWAY, f"{POD} has the route {default}", _default_missing(default, to_far), *main
    )
    yield checks.result(
        to_far and to_far.via == GATEWAY,
        f"a packet to {SERVER} takes {to_far}",
        f"a packet to {SERVER} takes {to_far}" if to_far else f"no route leads to {SERVER}: network is unreachable",
    )
    yield checks.result(
        to_neighbour and not to_neighbour.via and to_neighbour.kind == "unicast",
        f"a packet to {NEIGHBOUR}, of the pod's own range, takes {to_neighbour}: directly",
        f"a packet to {NEIGHBOUR}, of the pod's own range, should go directly, but takes {to_neighbour or 'no route'}",
    )
    yield checks.answered(inspection, ASK, by=FAR, sees=OWN)


def _default_missing(default: Route | None, to_far: Route | None) -> str:
    if default and default.via:
        return f"the default route goes via {default.via}, which is not {NODE}'s address in the pod's range"
    if default:
        return f"the default route of {POD} has no gateway: the pod would look for {SERVER} on its own cable"
    if to_far:
        return f"{POD} has a route for {to_far.dst} only, and no default route: a pod has one way for all that is far"
    return f"{POD} has no default route"


EXERCISE = Exercise(
    name="gateway",
    day=2,
    title="a pod's routing table and its gateway",
    task=f"""
{POD} is a pod without a way out: its eth0 has {OWN}/24, and it reaches its own range
only. As in a cluster, the other end of its cable is on its node ({NODE}), which forwards
packets. Behind the node, {SERVER} is in {FAR}.

Give {POD} a routing table like a real pod's, so that it reaches {SERVER} and any other
far address through its node. A real pod's to compare with, where there is one on this node:
  for ns in /run/netns/cni-*; do sudo nsenter --net=$ns ip route; done
""",
    hints=(
        'Without a route that matches, the kernel says "network is unreachable" and sends nothing. A route that '
        "matches everything is called the default route.",
        "A gateway has to be reachable directly, so it has an address in the pod's own range. Look at the node: "
        f"`ip -n {NODE} address`.",
        "`ip route add default via GATEWAY` adds it, `ip route get ADDRESS` says which way a packet would take.",
    ),
    namespaces=(POD, NODE, FAR),
    setup=f"""
ip -n {POD} link add eth0 type veth peer name veth0 netns {NODE}
ip -n {POD} address add {OWN}/24 dev eth0
ip -n {POD} link set eth0 up
ip -n {NODE} address add {GATEWAY}/24 dev veth0
ip -n {NODE} link set veth0 up
ip -n {NODE} link add eth0 type veth peer name eth0 netns {FAR}
ip -n {NODE} address add 172.31.2.1/24 dev eth0
ip -n {NODE} link set eth0 up
ip -n {FAR} address add {SERVER}/24 dev eth0
ip -n {FAR} link set eth0 up
ip -n {FAR} route add 10.200.2.0/24 via 172.31.2.1
nsenter --net=/run/netns/{NODE} sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
""",
    facts={POD: (ROUTES,)},
    check=check,
    servers=(Server(FAR),),
    requests=(ASK,),
)
