"""The rules that a real packet met, as nftables reports them, and the table that makes it report; pure.

A table of hoplab's own sets ``meta nftrace`` on the packet before any other rule sees it. ``nft -i`` holds the table
(``flags owner``): the kernel removes it when that process ends, by Ctrl-C, by a kill or because the connection that
feeds it is lost. Reports, which ``nft monitor trace`` prints, are read as the kernel sends them: they name rules by
their handles. ``as_saved`` gives a rule the words of its user: those of iptables-save where iptables-nft made it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hoplab.observe.facts.iptables import Iptables
from hoplab.observe.facts.nftables import Nftables
from hoplab.trace.live.node_program import FAMILIES, attributes
from hoplab.trace.live.sightings import header_of
from hoplab.trace.model import Header

TABLE = "hoplab_trace"
PRIORITY = -500  # before fragments are put together (-400), and before raw (-300)
HOOKS = ("prerouting", "output")  # where packets come into a host; the mark stays with them
UNKNOWN = "the rule with handle"  # for want of its text
HOLDER = ("env", "TERM=dumb", "nft", "-i")  # reads commands, and keeps what it owns until its input ends

TRACED, NEW_RULE = 0x0A11, 0x0A06  # kinds of messages: subsystem nftables, and the message
_TABLE, _CHAIN, _HANDLE, _TYPE, _VERDICT, _ID, _NETWORK, _TRANSPORT = 1, 2, 3, 4, 5, 6, 8, 9  # NFTA_TRACE_*
_POLICY = 16
_TYPES = {1: "policy", 2: "return", 3: "rule"}
_VERDICTS = {
    0: "drop",
    1: "accept",
    2: "stolen",
    3: "queue",
    -1: "continue",
    -2: "break",
    -3: "jump",
    -4: "goto",
    -5: "return",
}
_CODE, _TARGET = 1, 2  # of a verdict


@dataclass(frozen=True)
class Hit:
    """A rule that matched, or the policy or end of a chain."""

    family: str  # "ip", "inet"
    table: str  # "nat"
    chain: str  # "KUBE-SVC-47UHDF5OHX5VB7DP"
    verdict: str  # "accept", "drop", "jump", "continue", ...
    target: str = ""  # the chain of a jump or goto
    handle: int = 0  # of the rule; 0 of a policy, and at the end of a chain
    policy: bool = False

    @property
    def drops(self) -> bool:
        return self.verdict == "drop"


@dataclass(frozen=True)
class Reported:
    """One packet on one host, as far as the kernel reports it: from where it is sent or arrives to where it goes on."""

    identity: int  # the kernel's; another one after the packet has left and come in again
    header: Header | None  # as the first chain sees it
    hits: tuple[Hit, ...]

    @property
    def dropped_by(self) -> Hit | None:
        """Return the rule or policy that drops the packet."""
        return next((hit for hit in self.hits if hit.drops), None)


def commands(matches: Iterable[str]) -> str:
    """Return the input of ``nft -i`` that makes the kernel report packets with any of these matches."""
    rules = "; ".join(f"{match} meta nftrace set 1" for match in dict.fromkeys(matches))
    chains = " ".join(f"chain {hook} {{ type filter hook {hook} priority {PRIORITY}; {rules}; }};" for hook in HOOKS)
    return f"table inet {TABLE} {{ flags owner; {chains} }}\n"


def parse(reports: Sequence[bytes]) -> tuple[Reported, ...]:
    """Return the packets of netlink's messages in the order in which they were first seen; others are left out.

    The hits of hoplab's own table are not among those of a packet.
    """
    found: dict[int, Reported] = {}
    for data in reports:
        for kind, family, parts in _messages(data):
            if kind != TRACED or _ID not in parts:
                continue
            identity = int.from_bytes(parts[_ID], "big")
            packet = found.setdefault(identity, Reported(identity, None, ()))
            if packet.header is None and _NETWORK in parts:
                packet = replace(packet, header=header_of(parts[_NETWORK] + parts.get(_TRANSPORT, b"")))
            hit = _hit(family, parts)
            own = (hit.family, hit.table) == ("inet", TABLE)
            found[identity] = packet if own else replace(packet, hits=(*packet.hits, hit))
    return tuple(found.values())


def made(reports: Sequence[bytes]) -> bool:
    """Return whether netlink's messages say that the rules of hoplab's table are there, at every hook."""
    hooks = {
        parts[_CHAIN].rstrip(b"\0").decode()
        for data in reports
        for kind, _, parts in _messages(data)
        if kind == NEW_RULE and parts.get(_TABLE, b"").rstrip(b"\0") == TABLE.encode()
    }
    return hooks >= set(HOOKS)


def _messages(data: bytes) -> Iterator[tuple[int, str, dict[int, bytes]]]:
    at = 0
    while at + 20 <= len(data):
        size, kind = struct.unpack_from("=IH", data, at)
        if size < 20:
            return
        yield kind, FAMILIES.get(data[at + 16], ""), attributes(data[at + 20 : at + size])
        at += (size + 3) & ~3


def _hit(family: str, parts: Mapping[int, bytes]) -> Hit:
    table, chain = (parts.get(name, b"").rstrip(b"\0").decode() for name in (_TABLE, _CHAIN))
    kind = _TYPES.get(int.from_bytes(parts.get(_TYPE, b""), "big"), "")
    handle = int.from_bytes(parts.get(_HANDLE, b""), "big")
    if kind == "policy":
        code, target = int.from_bytes(parts.get(_POLICY, b""), "big", signed=True), ""
    else:
        verdict = attributes(parts.get(_VERDICT, b""))
        code = int.from_bytes(verdict.get(_CODE, b"\xff\xff\xff\xff"), "big", signed=True)
        target = verdict.get(_TARGET, b"").rstrip(b"\0").decode()
    return Hit(family, table, chain, _VERDICTS.get(code, str(code)), target, handle, kind == "policy")


def as_saved(hit: Hit, handles: Mapping[str, Sequence[int]], saved: Mapping[str, Iptables], listed: Nftables) -> str:
    """Return a rule as its user knows it: as iptables-save prints it, or as nft does.

    ``saved`` are the tables of iptables by the family: "ip", "ip6". ``handles`` are those of the rules of each chain,
    "ip nat PREROUTING"; iptables lists the rules of a chain in the same order. What was changed meanwhile is named by
    its handle.
    """
    if hit.policy or not hit.handle:
        return f"policy {hit.verdict}" if hit.policy else "end of the chain"
    known = list(handles.get(f"{hit.family} {hit.table} {hit.chain}", ()))
    rules: Sequence[object] = ()
    if (own := saved.get(hit.family)) and not own.legacy:
        rules = own.rules(hit.table, hit.chain)
    if len(known) == len(rules) and hit.handle in known:
        return str(rules[known.index(hit.handle)])
    table = listed.table(hit.table, hit.family)
    found = next((rule for rule in (table.rules(hit.chain) if table else ()) if rule.handle == hit.handle), None)
    return str(found) if found else f"{UNKNOWN} {hit.handle}"
