"""Day 4: a bridge, the switch that a bridge CNI attaches its pods to."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from hoplab.observe.facts.links import LINKS
from hoplab.practice import CheckResult, Exercise, Inspection, Request, Server, checks

RED, BLUE, SWITCH = "practice-red", "practice-blue", "practice-switch"
RED_ADDRESS, BLUE_ADDRESS = IPv4Address("172.31.4.1"), IPv4Address("172.31.4.2")
PORTS = ("red0", "blue0")
ASK = Request(RED, BLUE_ADDRESS)


def check(inspection: Inspection) -> Iterator[CheckResult]:
    yield checks.link_there(inspection, SWITCH, "br0", "bridge")
    yield checks.link_up(inspection, SWITCH, "br0")
    for name in PORTS:
        port = checks.link(inspection, SWITCH, name)
        yield checks.result(
            port and port.master == "br0",
            f"{name} is a port of br0",
            f"{name} of {SWITCH} is no port of br0",
            *checks.shown([port] if port else []),
        )
        yield checks.link_up(inspection, SWITCH, name)
    yield checks.answered(inspection, ASK, by=BLUE, sees=RED_ADDRESS)


EXERCISE = Exercise(
    name="bridge",
    day=4,
    title="a bridge with two namespaces on it",
    task=f"""
{RED} ({RED_ADDRESS}/24) and {BLUE} ({BLUE_ADDRESS}/24) each have a cable to
{SWITCH}, where its other end lies loose: red0 and blue0, both down.

Make {SWITCH} the switch between them: a bridge br0 with red0 and blue0 as its ports,
everything up.
""",
    hints=(
        "A bridge is an interface too, of type bridge, and it is made in the namespace where its ports are.",
        "An interface becomes a port by getting the bridge as its master: `ip link set NAME master BRIDGE`.",
        "Three interfaces of the switch have to be up. `bridge link` shows the ports, `bridge fdb show br br0` what "
        "the bridge has learned.",
    ),
    namespaces=(RED, BLUE, SWITCH),
    setup=f"""
ip -n {SWITCH} link add red0 type veth peer name eth0 netns {RED}
ip -n {SWITCH} link add blue0 type veth peer name eth0 netns {BLUE}
ip -n {RED} address add {RED_ADDRESS}/24 dev eth0
ip -n {RED} link set eth0 up
ip -n {BLUE} address add {BLUE_ADDRESS}/24 dev eth0
ip -n {BLUE} link set eth0 up
""",
    facts={SWITCH: (LINKS,)},
    check=check,
    servers=(Server(BLUE),),
    requests=(ASK,),
    makes={"br0": "bridge"},
)
