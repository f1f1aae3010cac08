"""Policy rules, which select the routing table: ``ip -4 -j rule``, ``ip -6 -j rule``."""

from __future__ import annotations

from dataclasses import dataclass

from hoplab.observe.facts import NODES_AND_PODS, Fact
from hoplab.observe.facts._json import Entries, Item, gather_listed

Range = tuple[int, int]  # the first and the last one


@dataclass(frozen=True)
class PolicyRule:
    """``32766: from all lookup main``"""

    priority: int
    source: str  # "all", "10.244.0.0/16"
    table: str  # "" for a rule with an action
    destination: str = ""
    mark: str = ""  # "0x1", "0x1/0xff"
    negated: bool = False  # `not`: applies to packets that do not match
    action: str = ""  # "blackhole", "goto 32766", ... in place of a table
    others: tuple[str, ...] = ()  # further selectors as printed: "iif eth0", "ipproto tcp"
    tos: str = ""  # "0x10"
    iif: str = ""  # incoming interface; "lo" stands for locally generated packets
    oif: str = ""  # interface that the sender is bound to
    detached: bool = False  # the interface does not exist: no packet matches
    l3mdev: bool = False  # packets of a VRF, whose table is looked up
    uids: Range | None = None
    protocol: str = ""  # "tcp"
    sports: Range | None = None
    dports: Range | None = None
    goto: int | None = None  # priority of the rule that comes next
    suppress_prefix: int = -1  # a route with a prefix of at most this length is passed over
    suppress_group: str = ""  # ... and one by an interface of this group
    unknown: tuple[str, ...] = ()  # selectors whose meaning is not known here

    def __str__(self) -> str:
        table = "[l3mdev-table]" if self.l3mdev and not self.table else self.table
        words = [
            f"{self.priority}:",
            "not" if self.negated else "",
            f"from {self.source}",
            f"to {self.destination}" if self.destination else "",
            f"tos {self.tos}" if self.tos else "",
            f"fwmark {self.mark}" if self.mark else "",
            *self.others,
            f"lookup {table}" if table else self.action,
            f"suppress_prefixlength {self.suppress_prefix}" if self.suppress_prefix >= 0 else "",
            f"suppress_ifgroup {self.suppress_group}" if self.suppress_group else "",
        ]
        return " ".join(word for word in words if word)


def parse(text: str) -> Entries[PolicyRule]:
    return gather_listed(text, "rules", lambda item: (_rule(item),))


# What __str__ prints in a place of its own, or what is no selector
_PLACED = frozenset(
    ["priority", "not", "src", "srclen", "dst", "dstlen", "tos", "fwmark", "fwmask", "table", "action", "goto", "nop"]
) | frozenset(["unresolved", "l3mdev", "suppress_prefixlen", "suppress_ifgroup", "protocol", "flow_from", "flow_to"])
_PRINTED = {
    "iif_detached": "[detached]",
    "oif_detached": "[detached]",
    "uid_start": "uidrange",
    "sport_start": "sport",
    "dport_start": "dport",
}
_ENDS = {"uid_start": "uid_end", "sport_start": "sport_end", "dport_start": "dport_end"}
_READ = frozenset([*_PRINTED, *_ENDS.values(), "iif", "oif", "ipproto", "sport", "dport"])


def _rule(item: Item) -> PolicyRule:
    selectors = [key for key in item.raw if key not in _PLACED and key not in _ENDS.values()]
    return PolicyRule(
        priority=item.number("priority"),
        source=_with(item, "src", "srclen"),
        table=item.text("table"),
        destination=_with(item, "dst", "dstlen"),
        mark=_with(item, "fwmark", "fwmask"),
        negated="not" in item.raw,
        action=_action(item),
        others=tuple(_printed(item, key) for key in selectors),
        tos=item.text("tos"),
        iif=item.text("iif"),
        oif=item.text("oif"),
        detached="iif_detached" in item.raw or "oif_detached" in item.raw,
        l3mdev="l3mdev" in item.raw,
        uids=_range(item, "uid"),
        protocol=item.text("ipproto"),
        sports=_range(item, "sport"),
        dports=_range(item, "dport"),
        goto=item.number("goto") if item.text("goto") else None,
        suppress_prefix=item.number("suppress_prefixlen") if "suppress_prefixlen" in item.raw else -1,
        suppress_group=item.text("suppress_ifgroup"),
        unknown=tuple(_printed(item, key) for key in selectors if key not in _READ),
    )


def _action(item: Item) -> str:
    if target := item.text("goto"):
        return f"goto {target}" + (" [unresolved]" if "unresolved" in item.raw else "")
    return "nop" if "nop" in item.raw else item.text("action")


def _printed(item: Item, key: str) -> str:
    """Return a selector as `ip rule` prints it."""
    if key in _ENDS:
        return f"{_PRINTED[key]} {item.text(key)}-{item.text(_ENDS[key])}"
    return _PRINTED.get(key) or f"{key} {item.raw[key]}"


def _range(item: Item, key: str) -> Range | None:
    """Return ``"dport": 53``, or ``"dport_start": 5, "dport_end": 9``, as a range."""
    if f"{key}_start" in item.raw:
        return item.number(f"{key}_start"), item.number(f"{key}_end")
    return (item.number(key), item.number(key)) if key in item.raw else None


def _with(item: Item, key: str, length: str) -> str:
    """Return ``10.244.0.0`` and ``16`` as one prefix."""
    return f"{item.text(key)}/{item.text(length)}" if length in item.raw else item.text(key)


RULES = Fact("rules", "ip -4 -j rule show", parse, NODES_AND_PODS)
RULES6 = Fact("rules6", "ip -6 -j rule show", parse, NODES_AND_PODS, ipv6=True)
