"""Day 5: SNAT. A router forwards a client's packets with the router's address as their source."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from hoplab.netfilter.packet import Packet
from hoplab.observe.facts.iptables import IPTABLES, Iptables
from hoplab.practice import PORT, CheckResult, Exercise, Inspection, Request, Server, checks

CLIENT, ROUTER, OUTSIDE = "practice-client", "practice-router", "practice-outside"
OWN, ROUTER_ADDRESS, SERVER = IPv4Address("10.200.5.2"), IPv4Address("172.31.5.1"), IPv4Address("172.31.5.80")
TARGETS = ("MASQUERADE", "SNAT")
ASK = Request(CLIENT, SERVER)


def check(inspection: Inspection) -> Iterator[CheckResult]:
    yield _rule(inspection[ROUTER][IPTABLES])
    yield checks.answered(inspection, ASK, by=OUTSIDE, sees=ROUTER_ADDRESS)


def _rule(found: Iptables) -> CheckResult:
    rules = [rule for chain in found.chains("nat").values() for rule in chain.rules]
    translating = [rule for rule in rules if rule.target in TARGETS]
    leaving = Packet(OWN, SERVER, dport=PORT, out_dev="outside0")
    taken = checks.deciding(found, "nat", "POSTROUTING", leaving, TARGETS)
    evidence = tuple(checks.counted(rule) for rule in rules)
    if not translating:
        return CheckResult(False, f"{ROUTER} has no rule in nat POSTROUTING that changes the source", evidence)
    if not taken:
        why = f"the rule is there, but does not match a packet of {OWN} to {SERVER} that leaves {ROUTER} by outside0"
        return CheckResult(False, why, evidence)
    if taken.target == "SNAT" and taken.value("--to-source") != str(ROUTER_ADDRESS):
        why = f"the rule gives packets the source {taken.value('--to-source')}, which outside0 does not have"
        return CheckResult(False, why, evidence)
    return checks.result(
        taken.packets,
        f"{ROUTER} changes the source of what leaves by outside0, and counted it: {checks.counted(taken)}",
        "the rule is there, but no packet has met it: its counter is 0",
        *evidence,
    )


EXERCISE = Exercise(
    name="snat",
    day=5,
    title="SNAT: a client is seen with its router's address",
    task=f"""
{CLIENT} ({OWN}) is behind {ROUTER}, which forwards for it:
its inside0 is 10.200.5.1/24, its outside0 is {ROUTER_ADDRESS}/24.
{SERVER} is in {OUTSIDE}, which knows nothing of 10.200.5.0/24: it has no route for its
answers, and gets none.

With one iptables rule in {ROUTER}, let {OUTSIDE} see the router's address in place of
the client's.
""",
    hints=(
        f"Packets of the client arrive already; the answers do not know where to go. See it: `tcpdump -ni eth0` in "
        f"{OUTSIDE} while {CLIENT} asks: `curl {SERVER}:{PORT}`.",
        "The source changes last, when it is known by which interface a packet leaves: table nat, chain POSTROUTING.",
        "`-o NAME` matches the interface a packet leaves by. The targets are SNAT --to-source ADDRESS, or MASQUERADE, "
        "which takes the address that interface has.",
    ),
    namespaces=(CLIENT, ROUTER, OUTSIDE),
    setup=f"""
ip -n {CLIENT} link add eth0 type veth peer name inside0 netns {ROUTER}
ip -n {CLIENT} address add {OWN}/24 dev eth0
ip -n {CLIENT} link set eth0 up
ip -n {CLIENT} route add default via 10.200.5.1
ip -n {ROUTER} address add 10.200.5.1/24 dev inside0
ip -n {ROUTER} link set inside0 up
ip -n {ROUTER} link add outside0 type veth peer name eth0 netns {OUTSIDE}
ip -n {ROUTER} address add {ROUTER_ADDRESS}/24 dev outside0
ip -n {ROUTER} link set outside0 up
ip -n {OUTSIDE} address add {SERVER}/24 dev eth0
ip -n {OUTSIDE} link set eth0 up
nsenter --net=/run/netns/{ROUTER} sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
""",
    facts={ROUTER: (IPTABLES,)},
    check=check,
    servers=(Server(OUTSIDE),),
    requests=(ASK,),
)
