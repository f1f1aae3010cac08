"""Day 1: the first and the last usable address of a range, on two interfaces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network

from hoplab.observe.facts.addresses import ADDRESSES, Address
from hoplab.observe.facts.links import LINKS
from hoplab.practice import CheckResult, Exercise, Inspection, Request, Server, checks

FIRST, LAST = "practice-first", "practice-last"


@dataclass(frozen=True)
class Cable:
    """A cable between the two namespaces, and one address of the range to use on it."""

    dev: str  # on both ends
    given: IPv4Interface

    @property
    def network(self) -> IPv4Network:
        return self.given.network

    @property
    def request(self) -> Request:
        return Request(FIRST, self.network[-2])


CABLES = (Cable("eth0", IPv4Interface("172.31.21.77/20")), Cable("eth1", IPv4Interface("10.200.1.142/30")))


def check(inspection: Inspection) -> Iterator[CheckResult]:
    """Check both ends of each cable; no message contains an address that is not set, because it is the solution."""
    for cable in CABLES:
        ends = [_end(inspection, FIRST, cable), _end(inspection, LAST, cable)]
        yield from ends
        if all(end.passed for end in ends):
            yield checks.answered(inspection, cable.request, by=LAST, sees=cable.network[1])
        else:
            yield CheckResult(False, f"{FIRST} can't ask {LAST} over {cable.dev} before both have their addresses")


def _end(inspection: Inspection, namespace: str, cable: Cable) -> CheckResult:
    network, end = cable.network, f"{cable.dev} of {namespace}"
    which, wanted = ("first", network[1]) if namespace == FIRST else ("last", network[-2])
    up = checks.link_up(inspection, namespace, cable.dev)
    found = [address for address in inspection[namespace][ADDRESSES] if address.dev == cable.dev]
    if not up.passed:
        return up
    if not found:
        return CheckResult(
            False, f"{end} has no address; it is to have the {which} usable one of the range of {cable.given}"
        )
    right = next((address for address in found if address.address == wanted), None)
    if not right:
        return CheckResult(False, _why_not(end, found[0], which, network), (str(found[0]),))
    if right.network != network:
        return CheckResult(
            False, f"{end} has the right address, but not the prefix /{network.prefixlen}", (str(right),)
        )
    return checks.result(
        right.broadcast == network.broadcast_address,
        f"{end} has {wanted}/{network.prefixlen}, the {which} usable address, and broadcast {right.broadcast}",
        f"{end} has the right address, but its broadcast address is {right.broadcast or 'not set'}",
        right,
    )


def _why_not(end: str, found: Address, which: str, network: IPv4Network) -> str:
    if found.address == network.network_address:
        return f"{end} has the address of the network itself: all host bits are 0"
    if found.address == network.broadcast_address:
        return f"{end} has the broadcast address: all host bits are 1"
    if found.address in network:
        return f"{end} has an address of the right range, but not the {which} usable one"
    return f"{end} has an address outside of the range"


EXERCISE = Exercise(
    name="addresses",
    day=1,
    title="the first and the last usable address of a range",
    task=f"""
Two cables join {FIRST} and {LAST}: eth0 to eth0 and eth1 to eth1.
On eth0 the range is used that {CABLES[0].given} lies in, on eth1 the one of {CABLES[1].given}.

On each cable, {FIRST} is to have the first usable address of the range and {LAST} the
last usable one, with the range's prefix length and its broadcast address.
""",
    hints=(
        "The prefix length says how many bits, from the left, are the same in the whole range. /20 is 8 + 8 + 4: the "
        "third number is cut in the middle, in steps of 16.",
        "All host bits 0 is the network's own address, all 1 the broadcast address: neither is for a host. A /30 has "
        "two host bits, so four addresses.",
        "`ip address add ADDRESS/PREFIX broadcast + dev NAME` gives an interface an address; `broadcast +` sets the "
        "host bits to 1 for you. `ip address` shows all, `ip address delete ...` takes one away.",
    ),
    namespaces=(FIRST, LAST),
    setup="\n".join(
        f"ip -n {FIRST} link add {cable.dev} type veth peer name {cable.dev} netns {LAST}\n"
        f"ip -n {FIRST} link set {cable.dev} up\n"
        f"ip -n {LAST} link set {cable.dev} up"
        for cable in CABLES
    ),
    facts={FIRST: (LINKS, ADDRESSES), LAST: (LINKS, ADDRESSES)},
    check=check,
    servers=(Server(LAST),),
    requests=tuple(cable.request for cable in CABLES),
)
