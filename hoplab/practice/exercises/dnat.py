"""Day 5: DNAT. A port of a router leads to a server behind it, as a NodePort leads to a pod."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from hoplab.netfilter.packet import Packet
from hoplab.observe.facts.iptables import IPTABLES, Iptables
from hoplab.practice import PORT, CheckResult, Exercise, Inspection, Request, Server, checks

VISITOR, EDGE, INNER = "practice-visitor", "practice-edge", "practice-inner"
OWN, EDGE_ADDRESS, SERVER = IPv4Address("172.31.6.80"), IPv4Address("172.31.6.1"), IPv4Address("10.200.6.2")
NODE_PORT = 30080
ASK = Request(VISITOR, EDGE_ADDRESS, NODE_PORT)


def check(inspection: Inspection) -> Iterator[CheckResult]:
    yield _rule(inspection[EDGE][IPTABLES])
    yield checks.answered(inspection, ASK, by=INNER, sees=OWN)


def _rule(found: Iptables) -> CheckResult:
    rules = [rule for chain in found.chains("nat").values() for rule in chain.rules]
    translating = [rule for rule in rules if rule.target == "DNAT"]
    arriving = Packet(OWN, EDGE_ADDRESS, dport=NODE_PORT, in_dev="outside0", dst_is_local=True)
    taken = checks.deciding(found, "nat", "PREROUTING", arriving, ("DNAT",))
    evidence = tuple(checks.counted(rule) for rule in rules)
    if not translating:
        return CheckResult(False, f"{EDGE} has no rule in nat PREROUTING that changes the destination", evidence)
    if not taken and all(rule.chain == "OUTPUT" for rule in translating):
        why = f"the rule is in OUTPUT, which only packets that {EDGE} sends itself go through"
        return CheckResult(False, why, evidence)
    if not taken:
        why = f"the rule is there, but does not match a TCP packet for {ASK} that arrives on outside0"
        return CheckResult(False, why, evidence)
    to = taken.value("--to-destination")
    if to != f"{SERVER}:{PORT}":
        kept = "" if ":" in to else f", on the port it came for ({NODE_PORT})"
        return CheckResult(
            False, f"the rule sends packets to {to}{kept}; the server listens on {SERVER}:{PORT}", evidence
        )
    return checks.result(
        taken.packets,
        f"{EDGE} changes the destination of what arrives for {ASK}, and counted it: {checks.counted(taken)}",
        "the rule is there, but no packet has met it: its counter is 0",
        *evidence,
    )


EXERCISE = Exercise(
    name="dnat",
    day=5,
    title="DNAT: a port of the router leads to a server behind it",
    task=f"""
A server listens on {SERVER}:{PORT} in {INNER}, behind {EDGE}, which forwards:
its outside0 is {EDGE_ADDRESS}/24, its inside0 is 10.200.6.1/24.
{VISITOR} ({OWN}) is outside and has no route to 10.200.6.0/24.

With one iptables rule in {EDGE}, let {VISITOR} reach the server by asking
{ASK}, as one asks a NodePort. The server is to see the visitor's own address.
""",
    hints=(
        "The destination changes first, before the router looks for a route: otherwise it would take the packet for "
        "its own. Which hook is that?",
        "The rule has to match protocol and port (`-p tcp --dport PORT`) of a packet that arrives.",
        "The target is DNAT, `--to-destination ADDRESS:PORT`. A rule that changes the source too hides the visitor.",
    ),
    namespaces=(VISITOR, EDGE, INNER),
    setup=f"""
ip -n {VISITOR} link add eth0 type veth peer name outside0 netns {EDGE}
ip -n {VISITOR} address add {OWN}/24 dev eth0
ip -n {VISITOR} link set eth0 up
ip -n {EDGE} address add {EDGE_ADDRESS}/24 dev outside0
ip -n {EDGE} link set outside0 up
ip -n {EDGE} link add inside0 type veth peer name eth0 netns {INNER}
ip -n {EDGE} address add 10.200.6.1/24 dev inside0
ip -n {EDGE} link set inside0 up
ip -n {INNER} address add {SERVER}/24 dev eth0
ip -n {INNER} link set eth0 up
ip -n {INNER} route add default via 10.200.6.1
nsenter --net=/run/netns/{EDGE} sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
""",
    facts={EDGE: (IPTABLES,)},
    check=check,
    servers=(Server(INNER),),
    requests=(ASK,),
)
