"""What the expressions of nftables read from a packet, and whether a value is the wanted one; pure.

An answer is None where it depends on more than the packet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address

from hoplab.netfilter.extensions import FLAGS, in_network, in_range, protocol_number, tcp_flags
from hoplab.netfilter.packet import ECHO_REPLIES, Packet, any_of, port_in
from hoplab.observe.facts.nft_expressions import Match
from hoplab.observe.facts.nftables import Table

AFFINITY = "affinity-"  # prefix of kube-proxy's sets of clients, one for each endpoint
SOME_PORT = "ephemeral"  # the value of a port that is not known
CONCAT = " . "


def matches(table: Table, match: Match, packet: Packet) -> bool | None:
    """Return whether the packet matches the expression; None when that depends on more than the packet."""
    if any(wanted.startswith(f"@{AFFINITY}") for wanted in match.values) and not packet.known:
        return match.op == "!="
    if not all(applies(part, packet) for part in match.key):
        return False  # the kernel leaves a rule whose header is not in the packet, whatever the comparison
    if match.key[0].startswith("tcp flags"):
        return _flags(match, packet)
    if match.op in _COMPARISONS:
        return _compared(match, packet)
    if match.op not in ("==", "!=", "in"):
        return None
    key = [value(part, packet) for part in match.key]
    hit = any_of(_has(table, match, wanted, key) for wanted in match.values)
    return None if hit is None else hit != (match.op == "!=")


def _has(table: Table, match: Match, wanted: str, key: Sequence[str | None]) -> bool | None:
    """Return whether one value of a match, or one member of the named set, is that of the packet."""
    if not wanted.startswith("@"):
        parts = tuple(wanted.split(CONCAT)) if len(key) > 1 else (wanted,)
        return is_key(match.key, parts, key)
    named = table.sets.get(wanted[1:])
    if named is None or named.name.startswith(AFFINITY):  # its members change with every connection
        return None
    return any_of(is_key(match.key, element.key, key) for element in named.elements)


def is_key(parts: Sequence[str], wanted: Sequence[str], found: Sequence[str | None]) -> bool | None:
    """Return whether each part of a key is the wanted one."""
    if len(wanted) != len(found):
        return False
    answers = {_holds(part, one, other) for part, one, other in zip(parts, wanted, found, strict=False)}
    return False if False in answers else None if None in answers else True


def applies(part: str, packet: Packet) -> bool:
    """Return whether a packet has the header of a key: "ip saddr" is of IPv4 packets alone, also in a table `inet`."""
    header = part.split(maxsplit=1)[0]
    if header in ("ip", "ip6"):
        return packet.ipv6 == (header == "ip6")
    if header in ("arp", "vlan"):
        return False
    if header == "ct" and part != "ct state" and not packet.tracked:
        return False
    if part.startswith(("meta skuid", "meta skgid")):
        return not packet.in_dev  # a packet that arrived has no socket
    if header == "th":
        return packet.protocol in _WITH_PORTS
    return header not in _PROTOCOL_HEADERS or protocol_number(_PROTOCOL_HEADERS[header]) == protocol_number(
        packet.protocol
    )


_WITH_PORTS = ("tcp", "udp", "sctp", "dccp", "udplite")
_PROTOCOL_HEADERS = {
    **{name: name for name in (*_WITH_PORTS, "icmp", "icmpv6", "ah", "esp")},
    "igmp": "2",
    "comp": "108",
}


def value(part: str, packet: Packet) -> str | None:
    """Return the packet's value of a key; None when it is not in the packet."""
    name, _, mask = part.partition(" & ")
    if name == "meta mark" and re.fullmatch(r"0x[0-9a-f]+|", mask):
        return hex(packet.mark & int(mask, 16) if mask else packet.mark)
    if mask or part not in _VALUES:
        return None
    return _VALUES[part](packet)


def _icmp_type(packet: Packet) -> str | None:
    """Return a type of ICMP or ICMPv6 by nft's name."""
    if packet.icmp_type is None:
        return None
    names = {**dict.fromkeys(ECHO_REPLIES, "echo-request"), **dict.fromkeys(ECHO_REPLIES.values(), "echo-reply")}
    return names.get(packet.icmp_type)


def _new(found: str, packet: Packet) -> str | None:
    return found if packet.state == "NEW" else None


_VALUES: Mapping[str, Callable[[Packet], str | None]] = {
    "ip saddr": lambda packet: str(packet.src),
    "ip daddr": lambda packet: str(packet.dst),
    "ip6 saddr": lambda packet: str(packet.src),
    "ip6 daddr": lambda packet: str(packet.dst),
    "ip version": lambda packet: str(packet.dst.version),
    "ip protocol": lambda packet: packet.protocol,
    "ip6 nexthdr": lambda packet: packet.protocol,
    "meta l4proto": lambda packet: packet.protocol,
    "meta nfproto": lambda packet: f"ipv{packet.dst.version}",
    "meta protocol": lambda packet: "ip6" if packet.ipv6 else "ip",
    "ether type": lambda packet: "ip6" if packet.ipv6 else "ip",
    "meta pkttype": lambda packet: "multicast" if packet.dst.is_multicast else "host",
    **{f"{header} dport": lambda packet: str(packet.dport or SOME_PORT) for header in ("th", *_WITH_PORTS)},
    **{f"{header} sport": lambda packet: str(packet.sport or SOME_PORT) for header in ("th", *_WITH_PORTS)},
    "icmp type": _icmp_type,
    "icmpv6 type": _icmp_type,
    "iifname": lambda packet: packet.in_dev,
    "oifname": lambda packet: packet.out_dev,
    "iif": lambda packet: packet.in_dev,
    "oif": lambda packet: packet.out_dev,
    "ct state": lambda packet: packet.state.lower(),
    "ct status": lambda packet: packet.status,
    "ct direction": lambda packet: _new("original", packet),
    "ct mark": lambda packet: _new(hex(packet.connmark), packet),
    "fib daddr type": lambda packet: _address_type(packet.dst.is_multicast, packet.dst_is_local),
    "fib saddr type": lambda packet: _address_type(packet.src.is_multicast, packet.src_is_local),
}
_PROTOCOLS = ("ip protocol", "ip6 nexthdr", "meta l4proto")
_STATUS_KNOWN = ("dnat",)  # bits of conntrack's status that a packet has here


def _address_type(multicast: bool, local: bool) -> str:
    return "local" if local else "multicast" if multicast else "unicast"


def _holds(part: str, wanted: str, found: str | None) -> bool | None:
    """Return whether a value is the wanted one, or in the wanted range: ``10.244.0.0/16``, ``8000-8080``, ``eth*``."""
    if found is None or (part == "ct status" and wanted not in _STATUS_KNOWN):
        return None
    if wanted in (found, "*"):
        return True
    try:
        if part in _PROTOCOLS:
            return protocol_number(wanted) == protocol_number(found)
        if part == "meta pkttype":
            return {"unicast": "host"}.get(wanted, wanted) == found
        if "/" in wanted:
            return in_network(wanted, ip_address(found))
        low, dash, high = wanted.partition("-")
        if dash and re.match(r"[0-9a-f]*[.:]", low):
            return in_range(ip_address(low), ip_address(high), ip_address(found))
        if found == SOME_PORT:
            return port_in(range(int(low), int(high or low) + 1), 0)
        if dash and low.isdecimal():
            return int(low) <= int(found) <= int(high)
        if wanted.startswith("0x"):
            return int(wanted, 16) == int(found, 16)
    except ValueError:
        return False
    return wanted.endswith("*") and found.startswith(wanted[:-1])


_COMPARISONS: Mapping[str, Callable[[int, int], bool]] = {
    "<": lambda found, limit: found < limit,
    ">": lambda found, limit: found > limit,
    "<=": lambda found, limit: found <= limit,
    ">=": lambda found, limit: found >= limit,
}


def _compared(match: Match, packet: Packet) -> bool | None:
    """Return whether a number is above or below another; of a port that is not known, whether every one would be."""
    found = value(match.key[0], packet)
    try:
        limit = int("".join(match.values), 0)
        if found == SOME_PORT:
            ports = [port for port in range(65536) if _COMPARISONS[match.op](port, limit)]
            return port_in(range(ports[0], ports[-1] + 1), 0) if ports else False
        return None if found is None else _COMPARISONS[match.op](int(found, 0), limit)
    except ValueError:
        return None


def _flags(match: Match, packet: Packet) -> bool | None:
    """Return whether ``tcp flags & (fin | syn) == syn`` holds; of ``tcp flags syn,ack`` (in) any bit is enough."""
    found = tcp_flags(packet)
    if found is None or match.op not in ("==", "!=", "in") or any("{" in text for text in (*match.key, *match.values)):
        return None
    _, masked, mask = match.key[0].partition(" & ")
    wanted = _bits(",".join(match.values))
    looked_at = found & _bits(mask) if masked else found
    if match.op == "in":
        return bool(looked_at & wanted)
    return (looked_at == wanted) == (match.op == "==")


def _bits(text: str) -> int:
    """Return flags as a number: of "fin,syn", "(fin | syn)" or "0x2"."""
    named = sum({FLAGS[word.upper()] for word in re.findall(r"[a-z]{3}", text) if word.upper() in FLAGS})
    return named or sum(int(number, 0) for number in re.findall(r"\b(?:0x[0-9a-f]+|\d+)\b", text))
