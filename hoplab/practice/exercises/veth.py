"""Day 3: a veth pair, the cable between two network namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Interface

from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.links import LINKS
from hoplab.practice import CheckResult, Exercise, Inspection, Request, Server, checks

LEFT, RIGHT = "practice-left", "practice-right"
LEFT_ADDRESS, RIGHT_ADDRESS = IPv4Interface("172.31.3.1/24"), IPv4Interface("172.31.3.2/24")
ENDS = ((LEFT, "left0", LEFT_ADDRESS), (RIGHT, "right0", RIGHT_ADDRESS))
ASK = Request(LEFT, RIGHT_ADDRESS.ip)


def check(inspection: Inspection) -> Iterator[CheckResult]:
    for namespace, name, _ in ENDS:
        yield checks.link_there(inspection, namespace, name, "veth")
    left, right = checks.link(inspection, LEFT, "left0"), checks.link(inspection, RIGHT, "right0")
    yield checks.result(
        left and right and left.peer_index == right.index and right.peer_index == left.index,
        "left0 and right0 are the two ends of one pair",
        "left0 and right0 are ends of two different pairs" if left and right else "there is no pair left0 and right0",
    )
    for namespace, name, address in ENDS:
        yield checks.has_address(inspection, namespace, name, address)
    for namespace, name, _ in ENDS:
        yield checks.link_up(inspection, namespace, name)
    yield checks.answered(inspection, ASK, by=RIGHT, sees=LEFT_ADDRESS.ip)


EXERCISE = Exercise(
    name="veth",
    day=3,
    title="a veth pair between two namespaces",
    task=f"""
{LEFT} and {RIGHT} are two hosts with nothing between them. Join them with a veth
pair, whose ends are to be
  left0 in {LEFT}, with the address {LEFT_ADDRESS}, up,
  right0 in {RIGHT}, with the address {RIGHT_ADDRESS}, up.
""",
    hints=(
        "A veth pair is a cable: what goes in at one end comes out at the other. Both ends are made by one command, "
        "and each can be in a network namespace of its own.",
        "`ip link add NAME type veth peer name OTHER netns NAMESPACE` makes one end here and the other end there.",
        "A new interface is down and has no address: `ip link set`, `ip address add`. Both ends need both.",
    ),
    namespaces=(LEFT, RIGHT),
    setup="",
    facts={LEFT: (LINKS, ADDRESSES), RIGHT: (LINKS, ADDRESSES)},
    check=check,
    servers=(Server(RIGHT),),
    requests=(ASK,),
    makes={"left0": "veth", "right0": "veth"},
)
