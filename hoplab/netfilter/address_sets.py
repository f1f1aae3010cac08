"""Whether a packet is in the ipsets that a rule of iptables names; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from hoplab.netfilter.packet import Packet, any_of, port_in
from hoplab.observe.facts.ipset import IpSet, Member
from hoplab.observe.facts.iptables import MATCH_SET, Chain, Option, address_and_mask


def names_sets(chains: Mapping[str, Chain]) -> bool:
    """Return whether a rule refers to an ipset."""
    return any(chain.names_sets for chain in chains.values())


def with_sets(chains: Mapping[str, Chain], sets: Iterable[IpSet]) -> dict[str, Chain]:
    """Return the chains with the ipsets that their rules name; instead of a list of sets those that are in it."""
    known = {ipset.name: ipset for ipset in sets}

    def with_members(option: Option) -> Option:
        if option.name != MATCH_SET or not option.values or option.values[0] not in known:
            return option
        named = known[option.values[0]]
        listed = [known.get(member.element) for member in named.members] if named.kind == "list:set" else [named]
        found = tuple(ipset for ipset in listed if ipset)
        return replace(option, sets=found if len(found) == len(listed) else None)

    return {
        name: replace(
            chain, rules=tuple(replace(rule, matches=tuple(map(with_members, rule.matches))) for rule in chain.rules)
        )
        for name, chain in chains.items()
    }


def contain(option: Option, packet: Packet) -> bool | None:
    """Return whether ``--match-set NAME src,dst`` holds; None where that depends on more than the packet."""
    if option.sets is None:
        return None
    return any_of(_contains(ipset, option.values[1].split(","), packet) for ipset in option.sets)


def _contains(ipset: IpSet, directions: list[str], packet: Packet) -> bool | None:
    """Return whether one set has the packet: each dimension is of its source or destination, further words are ignored.

    A set of more dimensions than words, with other dimensions or with exceptions (``nomatch``) is not evaluated.
    """
    kinds = ipset.dimensions
    if len(directions) < len(kinds) or not set(kinds) <= {"ip", "net", "port"}:
        return None
    if any("nomatch" in member.options.split() for member in ipset.members):
        return None
    return any_of(_is_member(member, ipset, kinds, directions, packet) for member in ipset.members)


def _is_member(
    member: Member, ipset: IpSet, kinds: tuple[str, ...], directions: list[str], packet: Packet
) -> bool | None:
    parts = member.element.split(",")
    if len(parts) != len(kinds):
        return None
    unsure = False
    for part, kind, direction in zip(parts, kinds, directions, strict=False):
        source = direction == "src"
        try:
            if kind == "port":
                holds = _is_port(part, packet.sport if source else packet.dport, packet.protocol)
            else:
                holds = _is_address(part, int(packet.src if source else packet.dst), packet, ipset.option("netmask"))
        except ValueError:  # "tcp:http", "10.0.0.1-10.0.0.9": not printed by `ipset save`
            holds = None
        if holds is False:
            return False
        unsure = unsure or holds is None
    return None if unsure else True


def _is_address(part: str, address: int, packet: Packet, netmask: str) -> bool:
    """Return whether an address is the member; with the option netmask, a member stands for its whole range."""
    version, network, mask = address_and_mask(f"{part}/{netmask}" if netmask and "/" not in part else part)
    return version == packet.dst.version and address & mask == network & mask


def _is_port(part: str, port: int, protocol: str) -> bool | None:
    named, colon, number = part.rpartition(":")
    low, _, high = number.partition("-")
    if colon and named != protocol:
        return False
    return port_in(range(int(low), int(high or low) + 1), port)
