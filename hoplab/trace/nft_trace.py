"""The rules that a real packet met, from ``nft -a monitor trace``, and the table that makes the kernel report it; pure.

A table of hoplab's own sets ``meta nftrace`` on the packet before any other rule sees it. ``nft -i`` holds the table
(``flags owner``): the kernel removes it when that process ends, by Ctrl-C, by a kill or because the connection that
feeds it is lost. iptables-nft's rules are reported as nft would write them; ``as_saved`` finds them in iptables-save.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from hoplab.observe.facts.iptables import Iptables
from hoplab.observe.facts.nftables import Nftables
from hoplab.trace.model import PORTLESS, Header

TABLE = "hoplab_trace"
PRIORITY = -500  # before fragments are put together (-400), and before raw (-300)
HOOKS = ("prerouting", "output")  # where packets come into a host; the mark stays with them
MONITOR = "nft -a monitor trace"  # -a: with the handles of rules

_LINE = re.compile(r"trace id ([0-9a-f]+) (\S+) (\S+) (\S+) (packet:|rule|verdict|policy) ?(.*?)\s*")
_RULE = re.compile(r"(.*?)(?:\s*# handle (\d+))? \(verdict (\S+)(?: (\S+))?\)")
_COUNTED = re.compile(r" *\bcounter packets \d+ bytes \d+")
_DEVICE = re.compile(r'\b(iif|oif) "([^"]*)"')
_ADDRESSES = re.compile(r"\bip6? saddr (\S+) ip6? daddr (\S+)")
_PORTS = re.compile(r"\b(tcp|udp) sport (\d+) \1 dport (\d+)")
_ICMP = re.compile(r"\bicmp(?:v6)? type ")


@dataclass(frozen=True)
class Hit:
    """One line of the report: a rule that matched, or the policy or end of a base chain."""

    family: str  # "ip", "inet"
    table: str  # "nat"
    chain: str  # "KUBE-SVC-47UHDF5OHX5VB7DP"
    text: str  # of the rule, as nft writes it, without its counter; "policy accept"; "" at the end of a chain
    verdict: str  # "accept", "drop", "jump", "continue", ...
    target: str = ""  # the chain of a jump or goto
    handle: int = 0  # of the rule; 0 where it has none

    @property
    def drops(self) -> bool:
        return self.verdict == "drop"


@dataclass(frozen=True)
class Seen:
    """One packet on one host, as far as the kernel reports it: from where it is sent or arrives to where it goes on."""

    identity: str  # the kernel's, "583b735b"; another one after the packet has left and come in again
    header: Header | None  # as the first chain sees it
    in_dev: str
    out_dev: str
    hits: tuple[Hit, ...]

    @property
    def dropped_by(self) -> Hit | None:
        """Return the rule or policy that drops the packet."""
        return next((hit for hit in self.hits if hit.drops), None)


def commands(packets: Iterable[Header]) -> str:
    """Return the input of ``nft -i`` that makes the kernel report packets with these addresses and ports.

    A port 0 is any. Both directions of a connection are two headers.
    """
    known = tuple(dict.fromkeys(packets))
    lines = [f"add table inet {TABLE} {{ flags owner; }}"]
    for hook in HOOKS:
        base = f"type filter hook {hook} priority {PRIORITY};"
        lines.append(f"add chain inet {TABLE} {hook} {{ {base} }}")
        lines += [f"add rule inet {TABLE} {hook} {_matches(header)} meta nftrace set 1" for header in known]
    return "\n".join(lines) + "\n"


def _matches(header: Header) -> str:
    ip = "ip" if header.dst.version == 4 else "ip6"
    words = [f"{ip} saddr {header.src} {ip} daddr {header.dst}"]
    if header.protocol in PORTLESS:
        number = {"ipencap": "4"}.get(header.protocol, header.protocol)
        words.append(f"meta l4proto {number if ip == 'ip' or number != 'icmp' else 'ipv6-icmp'}")
    for name, port in (("sport", header.sport), ("dport", header.dport)):
        words += [f"{header.protocol} {name} {port}"] if port else []
    if header.protocol not in PORTLESS and not header.sport and not header.dport:
        words.append(f"meta l4proto {header.protocol}")
    return " ".join(words)


def parse(text: str) -> tuple[Seen, ...]:
    """Return the packets of a report in the order in which they were first seen; other lines are left out.

    The hits of hoplab's own table are not among those of a packet.
    """
    found: dict[str, list[Seen | Hit]] = {}
    for line in text.splitlines():
        if match := _LINE.fullmatch(line):
            identity, family, table, chain, kind, rest = match.groups()
            parts = found.setdefault(identity, [])
            if kind == "packet:":
                parts.append(_packet(identity, rest))
            elif (family, table) != ("inet", TABLE):
                parts += _hit(family, table, chain, kind, rest)
    return tuple(_joined(identity, parts) for identity, parts in found.items())


def _joined(identity: str, parts: list[Seen | Hit]) -> Seen:
    first = next((part for part in parts if isinstance(part, Seen)), Seen(identity, None, "", "", ()))
    hits = tuple(part for part in parts if isinstance(part, Hit))
    return Seen(identity, first.header, first.in_dev, first.out_dev, hits)


def _packet(identity: str, text: str) -> Seen:
    devices = {which: name for which, name in _DEVICE.findall(text)}
    header = None
    if addresses := _ADDRESSES.search(text):
        src, dst = map(ip_address, addresses.groups())
        if ports := _PORTS.search(text):
            header = Header(src, dst, ports[1], int(ports[2]), int(ports[3]))
        else:
            header = Header(src, dst, "icmp" if _ICMP.search(text) else "")
    return Seen(identity, header, devices.get("iif", ""), devices.get("oif", ""), ())


def _hit(family: str, table: str, chain: str, kind: str, text: str) -> Iterator[Hit]:
    if kind == "rule":
        if rule := _RULE.fullmatch(text):
            plain = _COUNTED.sub("", rule[1]).strip()
            yield Hit(family, table, chain, plain, rule[3], rule[4] or "", int(rule[2] or 0))
    else:
        verdict, _, target = text.partition(" ")
        yield Hit(family, table, chain, f"policy {verdict}" if kind == "policy" else "", verdict, target)


def as_saved(hit: Hit, listed: Nftables, saved: Iptables) -> str:
    """Return a rule as its user knows it: as iptables-save prints it, where iptables-nft has made it.

    Both list the rules of a chain in the same order; ``listed`` (``nft -j list ruleset``) gives the place of a handle.
    """
    table = listed.table(hit.table, hit.family)
    rules = saved.rules(hit.table, hit.chain) if hit.family in ("ip", "ip6") and not saved.legacy else ()
    handles = [rule.handle for rule in table.rules(hit.chain)] if table else []
    if not hit.handle or hit.handle not in handles or len(handles) != len(rules):
        return hit.text
    return str(rules[handles.index(hit.handle)])
