"""The kernel's reverse-path filter, rp_filter: whether a host accepts a packet by the interface it arrives at; pure."""

from __future__ import annotations

from ipaddress import IPv4Address

from hoplab.observe.facts.sysctls import SYSCTLS
from hoplab.observe.routing import UNKNOWN, Flow, decide_on
from hoplab.observe.snapshot import Node

OFF, STRICT, LOOSE = 0, 1, 2  # values of net.ipv4.conf.*.rp_filter
ALL = "all"  # the switch of all interfaces; the higher value of it and the interface's own applies


def switch(dev: str) -> str:
    """Return the name of the sysctl of an interface, or of ``all``."""
    return f"net.ipv4.conf.{dev}.rp_filter"


def mode(node: Node, dev: str) -> int:
    """Return the value that applies to an interface: the higher one of ``all`` and its own."""
    return max(_value(node, ALL), _value(node, dev))


def deciding(node: Node, dev: str) -> str:
    """Return the sysctl from which this value comes; ``all`` where both have it."""
    return switch(ALL if _value(node, ALL) >= _value(node, dev) else dev)


def _value(node: Node, dev: str) -> int:
    found = node[SYSCTLS].get(switch(dev), "")
    return int(found) if found.isdecimal() else OFF


def refusal(node: Node, source: IPv4Address, dev: str) -> str:
    """Return why the node drops what comes from an address by an interface; "" where it accepts that.

    A strict filter accepts a packet where the route back leaves by the same interface, a loose one where there is any.
    A route that cannot be determined refuses nothing.
    """
    applied = mode(node, dev)
    if applied == OFF:
        return ""
    back = decide_on(node.facts, Flow(source))
    if back.verdict == UNKNOWN or back.doubts:
        return ""
    devs = {hop.dev for hop in back.hops} | ({back.route.dev} if back.route and back.route.dev else set())
    if back.verdict == "unicast" and (applied == LOOSE or dev in devs):
        return ""
    return (
        f"{deciding(node, dev)} is {applied} on {node.name}: {dev} drops what comes from {source}, "
        f"which the node would answer by `{back.way}`"
    )
