"""Day 6: iptables hooks. Forwarded packets and locally generated packets traverse different chains."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from hoplab.netfilter.iptables import matches, walk
from hoplab.netfilter.packet import Outcome, Packet
from hoplab.observe.facts.iptables import IPTABLES, Iptables, Rule
from hoplab.practice import PORT, CheckResult, Exercise, Inspection, Request, Server, checks

GUEST, FIREWALL, VAULT = "practice-guest", "practice-firewall", "practice-vault"
GUEST_ADDRESS, SERVER = IPv4Address("172.31.7.80"), IPv4Address("10.200.7.2")
OWN = IPv4Address("10.200.7.1")  # the firewall's, towards the vault
OTHER_PORT = 8081
REFUSED, PASSES = Request(GUEST, SERVER), Request(GUEST, SERVER, OTHER_PORT)
ITS_OWN = Request(FIREWALL, SERVER)
REFUSALS = ("DROP", "REJECT")

FORWARDED = Packet(GUEST_ADDRESS, SERVER, dport=PORT, in_dev="guest0", out_dev="vault0")
SENT = Packet(OWN, SERVER, dport=PORT, out_dev="vault0")
SENT_ELSEWHERE = Packet(OWN, SERVER, dport=OTHER_PORT, out_dev="vault0")


def check(inspection: Inspection) -> Iterator[CheckResult]:
    found = inspection[FIREWALL][IPTABLES]
    yield _refusing(found)
    answer = inspection.answers[REFUSED]
    yield checks.result(
        answer.code,
        f"{GUEST} gets no answer from {REFUSED}: {answer.err.strip()}",
        f"{GUEST} still gets an answer from {REFUSED}",
    )
    yield checks.answered(inspection, PASSES, by=VAULT, sees=GUEST_ADDRESS)
    yield checks.answered(inspection, ITS_OWN, by=VAULT, sees=OWN)
    yield _counting(found)


def _refusing(found: Iptables) -> CheckResult:
    """Check that filter FORWARD drops or rejects the forwarded packet."""
    ends = walk(found.chains("filter"), "FORWARD", FORWARDED)
    refused = [end for end in ends if end.verdict in REFUSALS]
    if not refused:
        return CheckResult(False, *_not_refused(found))
    rule = next((rule for rule in refused[0].path if rule.target in REFUSALS), None)
    return checks.result(
        rule is None or rule.packets,  # without a rule, the chain's policy
        f"{FIREWALL} refuses it in FORWARD: {checks.counted(rule) if rule else 'its policy is DROP'}",
        "the rule is in FORWARD, but no packet has met it: its counter is 0",
        *([checks.counted(rule)] if rule else []),
    )


def _not_refused(found: Iptables) -> tuple[str, tuple[str, ...]]:
    chains = [(table, chain) for table, chains in found.tables.items() for chain in chains.values()]
    refusing = [(table, rule) for table, chain in chains for rule in chain.rules if rule.target in REFUSALS]
    evidence = tuple(checks.counted(rule) for _, rule in refusing)
    places = {(table, rule.chain) for table, rule in refusing}
    if ("filter", "FORWARD") in places:
        return f"a rule in FORWARD refuses, but not a TCP packet of {GUEST_ADDRESS} to {REFUSED}", evidence
    if ("filter", "INPUT") in places:
        return f"the rule is in INPUT, which only packets for {FIREWALL} itself go through", evidence
    if ("filter", "OUTPUT") in places:
        return f"the rule is in OUTPUT, which only what {FIREWALL} sends itself goes through", evidence
    if refusing:
        return f"the rule is in {refusing[0][0]} {refusing[0][1].chain}, not in filter FORWARD", evidence
    return f"no rule in filter FORWARD of {FIREWALL} refuses a packet to {REFUSED}", evidence


def _counting(found: Iptables) -> CheckResult:
    """Check that a rule of filter OUTPUT counts the firewall's own packets to the server's port, and no others."""
    rules = _met(walk(found.chains("filter"), "OUTPUT", SENT))
    counting = [rule for rule in rules if rule.target in ("", "ACCEPT") and matches(rule, SENT_ELSEWHERE) is False]
    if counting:
        rule = max(counting, key=lambda rule: rule.packets)
        return checks.result(
            rule.packets,
            f"{FIREWALL} counts what it sends to {ITS_OWN} itself: {checks.counted(rule)}",
            "the rule in OUTPUT is there, but has counted nothing",
            checks.counted(rule),
        )
    if rules:
        return CheckResult(
            False,
            f"the rule in OUTPUT counts more than what is sent to {ITS_OWN}",
            tuple(checks.counted(rule) for rule in rules),
        )
    elsewhere = tuple(
        checks.counted(rule)
        for name, chain in found.chains("filter").items()
        for rule in chain.rules
        if name != "OUTPUT" and rule.target in ("", "ACCEPT")
    )
    return CheckResult(
        False, f"no rule in filter OUTPUT of {FIREWALL} counts what it sends to {ITS_OWN} itself", elsewhere
    )


def _met(ends: tuple[Outcome[Rule], ...]) -> list[Rule]:
    return [rule for end in ends for rule in end.path]


EXERCISE = Exercise(
    name="hooks",
    day=6,
    title="iptables hooks: what passes through, what a host sends",
    task=f"""
{GUEST} ({GUEST_ADDRESS}) reaches the vault ({SERVER}, ports {PORT} and {OTHER_PORT}, in
{VAULT}) through {FIREWALL}, whose interfaces are guest0 and vault0.

With iptables in {FIREWALL}, in the table filter:
  refuse what the guest sends to port {PORT} of the vault; port {OTHER_PORT} goes on answering it,
  let the firewall itself ask port {PORT} of the vault as before,
  count what the firewall itself sends to port {PORT} of the vault, with a rule that decides nothing.
""",
    hints=(
        "A packet that passes through goes PREROUTING, FORWARD, POSTROUTING; one for the host itself PREROUTING, "
        "INPUT; one that the host sends OUTPUT, POSTROUTING. Which chain does only the one kind go through, and not "
        "the other?",
        "A rule without `-j` decides nothing and counts. `iptables -nvL` shows the counters, `iptables -Z` sets them "
        "to 0.",
        "Match by protocol, destination and port: `-p tcp -d ADDRESS --dport PORT`. DROP says nothing to the sender, "
        "REJECT does; try both and see how long the guest waits.",
    ),
    namespaces=(GUEST, FIREWALL, VAULT),
    setup=f"""
ip -n {GUEST} link add eth0 type veth peer name guest0 netns {FIREWALL}
ip -n {GUEST} address add {GUEST_ADDRESS}/24 dev eth0
ip -n {GUEST} link set eth0 up
ip -n {GUEST} route add default via 172.31.7.1
ip -n {FIREWALL} address add 172.31.7.1/24 dev guest0
ip -n {FIREWALL} link set guest0 up
ip -n {FIREWALL} link add vault0 type veth peer name eth0 netns {VAULT}
ip -n {FIREWALL} address add {OWN}/24 dev vault0
ip -n {FIREWALL} link set vault0 up
ip -n {VAULT} address add {SERVER}/24 dev eth0
ip -n {VAULT} link set eth0 up
ip -n {VAULT} route add default via {OWN}
nsenter --net=/run/netns/{FIREWALL} sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
""",
    facts={FIREWALL: (IPTABLES,)},
    check=check,
    servers=(Server(VAULT), Server(VAULT, OTHER_PORT)),
    requests=(REFUSED, PASSES, ITS_OWN),
)
