"""The route of a packet as the kernel looks it up: policy rules by priority, then the table that a rule names; pure.

A rule or route that could not be read is known to be there. Where it might decide, the answer says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, cast

from hoplab.core.errors import FactError
from hoplab.core.ip import V4, V6, Address, Family, IPAddress, Network
from hoplab.observe.facts import Facts
from hoplab.observe.facts._json import Unread, unread
from hoplab.observe.facts.links import LINKS, Link
from hoplab.observe.facts.routes import REFUSING, ROUTES, ROUTES6, THROW, NextHop, RouteOf, lookup_in, usable_hops
from hoplab.observe.facts.rules import RULES, RULES6, PolicyRule, Range

UNKNOWN = "unknown"  # the verdict where something that could not be read might decide
DEFAULT_RULES = tuple(
    PolicyRule(priority, "all", table) for priority, table in ((0, "local"), (32766, "main"), (32767, "default"))
)
FULL_MASK = 0xFFFFFFFF
PROTOCOLS = {"1": "icmp", "6": "tcp", "17": "udp", "58": "ipv6-icmp", "132": "sctp"}


@dataclass(frozen=True)
class Flow(Generic[Address]):
    """The fields of a packet that policy rules match and routes are looked up by."""

    dst: Address
    src: Address | None = None  # None: not chosen yet, as of a locally generated packet
    iif: str = ""  # incoming interface; "" of a locally generated packet
    oif: str = ""  # interface that the sender is bound to
    mark: int = 0
    tos: int = 0
    protocol: str = ""  # "tcp"
    sport: int = 0
    dport: int = 0
    uid: int = 0  # of the sender; the kernel takes 0 for forwarded packets


@dataclass(frozen=True)
class Decision(Generic[Address, Network]):
    """How the kernel routes a packet: the route, its table, and the rule that led there."""

    verdict: str  # the route's kind, "unicast", "blackhole", ...; a rule's action; "unreachable" without any; "unknown"
    route: RouteOf[Address, Network] | None = None  # None where a rule or nothing decided
    table: str = ""
    rule: PolicyRule | None = None
    hops: tuple[NextHop, ...] = ()  # one of them carries the packet
    doubts: tuple[str, ...] = ()  # what could not be read and might decide otherwise

    def __str__(self) -> str:
        return f"{self.way}{self.why}"

    @property
    def way(self) -> str:
        """Return the route as `ip route` prints it, or the verdict where there is none."""
        return str(self.route or " or ".join(map(str, self.hops)) or self.verdict)

    @property
    def direct(self) -> bool:
        """Return whether the packet needs no gateway: its destination is on the link, or it is this host."""
        return bool(self.hops) and all(hop.via is None for hop in self.hops)

    @property
    def why(self) -> str:
        """Return the rule in words, "" for the rules that every kernel begins with, and what is in doubt."""
        usual = self.rule is None or str(self.rule) in map(str, DEFAULT_RULES)
        rule = "" if usual else f" by rule {self.rule}"
        return rule + (f", as far as is known: {'; '.join(self.doubts)}" if self.doubts else "")


def decide_on(facts: Facts, flow: Flow[Address]) -> Decision[Address, Any]:
    """Return how a host, or a pod's namespace, routes a packet, by its facts.

    Where its rules were not collected, the default rules hold: older recordings have no rules of pods.
    """
    routes, rules = (ROUTES, RULES) if _family(flow.dst) is V4 else (ROUTES6, RULES6)
    return decide(
        flow,
        cast("Sequence[RouteOf[Address, Any]]", facts[routes]),
        facts[rules] if rules.name in facts.outputs else DEFAULT_RULES,
        facts[LINKS] if LINKS.name in facts.outputs else (),
    )


def decide(
    flow: Flow[Address],
    routes: Sequence[RouteOf[Address, Network]],
    rules: Sequence[PolicyRule] = DEFAULT_RULES,
    links: Sequence[Link] = (),
) -> Decision[Address, Network]:
    """Return how the kernel routes a packet by these rules and routes; links give VRFs and groups of interfaces.

    Rules apply by priority, the lowest number first. A rule names a table, whose longest prefix decides. The next rule
    follows where the table has no route, or one of the kind throw, or one that the rule suppresses.
    """
    host = _Host(routes, links, _vrf(flow, links))
    ordered = sorted(rules, key=lambda rule: rule.priority)

    def after(index: int) -> int:
        """Return the rule that follows one whose packets go on: the target of a goto, or the next one."""
        target = ordered[index].goto
        later = range(index + 1, len(ordered)) if target is not None else ()
        return next((at for at in later if ordered[at].priority == target), index + 1)

    seen: dict[int, Decision[Address, Network]] = {}

    def walk(index: int) -> Decision[Address, Network]:
        if index not in seen:
            seen[index] = walk_from(index)
        return seen[index]

    def walk_from(index: int) -> Decision[Address, Network]:
        while index < len(ordered):
            rule = ordered[index]
            matches = _matches(rule, flow, host.vrf)
            decision = None if matches is False else host.apply(rule, flow)
            if matches is None:
                taken, passed = decision or walk(after(index)), walk(index + 1)
                same = (taken.verdict, taken.route) == (passed.verdict, passed.route)
                return passed if same else Decision(UNKNOWN, rule=rule, doubts=(f"whom rule {rule} matches",))
            if decision:
                return decision
            index = after(index) if matches else index + 1
        return Decision("unreachable")

    decision: Decision[Address, Network] = walk(0)
    if decision.verdict in REFUSING and flow.oif and not flow.iif and _family(flow.dst) is V4 and not host.vrf:
        decision = Decision("unicast", hops=(NextHop(None, flow.oif),))  # IPv4 takes it to be on the link
    doubts: list[str] = [f"rule {entry}" for entry in unread(rules) if _comes_before(entry, decision.rule)]
    doubts += [f"route {entry}" for entry in unread(routes) if _leads_to(entry, flow.dst, decision.route)]
    return replace(decision, doubts=(*decision.doubts, *doubts))


@dataclass(frozen=True)
class _Vrf:
    """The VRF that a packet belongs to."""

    name: str
    table: str


def _vrf(flow: Flow[Address], links: Sequence[Link]) -> _Vrf | None:
    by_name = {link.name: link for link in links}
    dev = by_name.get(flow.oif) or by_name.get(flow.iif)
    if dev and not dev.vrf_table:
        dev = by_name.get(dev.master)
    return _Vrf(dev.name, dev.vrf_table) if dev and dev.vrf_table else None


@dataclass(frozen=True)
class _Host(Generic[Address, Network]):
    """What a rule that matches is applied to."""

    routes: Sequence[RouteOf[Address, Network]]
    links: Sequence[Link]
    vrf: _Vrf | None

    def apply(self, rule: PolicyRule, flow: Flow[Address]) -> Decision[Address, Network] | None:
        """Return what a rule decides on a packet that it matches; None where the next rule follows."""
        if rule.action in REFUSING:
            return Decision(rule.action, rule=rule)
        if rule.action:
            return None if rule.goto is not None or rule.action == "nop" else Decision(UNKNOWN, rule=rule)
        table = rule.table or (self.vrf.table if self.vrf and rule.l3mdev else "")
        dev = "" if self.vrf and self.vrf.name == flow.oif else flow.oif
        found = (route for route in self.routes if route.table == table)
        route = lookup_in(found, flow.dst, dev=dev, tos=flow.tos, source=flow.src)
        if route is None or route.kind == THROW:
            return None
        hops = tuple(usable_hops(route, dev))
        if route.kind not in REFUSING and self._suppresses(rule, route, hops):
            return None
        return Decision(route.kind, route, table, rule, hops)

    def _suppresses(self, rule: PolicyRule, route: RouteOf[Address, Network], hops: Sequence[NextHop]) -> bool:
        groups = {link.name: link.group for link in self.links}
        return route.dst.prefixlen <= rule.suppress_prefix or bool(
            rule.suppress_group and hops and groups.get(hops[0].dev, "default") == rule.suppress_group
        )


def _family(address: IPAddress) -> Family[Any, Any]:
    return V4 if address.version == V4.everything.version else V6


def _matches(rule: PolicyRule, flow: Flow[Address], vrf: _Vrf | None) -> bool | None:
    """Return whether a rule applies to a packet; None where one of its selectors is not known here."""
    found: list[bool | None] = [None] * len(rule.unknown)
    found += [
        _in_prefix(rule.source, flow.src, flow.dst),
        _in_prefix(rule.destination or "all", flow.dst, flow.dst),
        _marked(rule.mark, flow.mark),
        _is(rule.tos, flow.tos),
        rule.iif in ("", flow.iif or "lo"),
        rule.oif in ("", flow.oif, vrf.name if vrf else ""),
        not rule.detached,
        vrf is not None or not rule.l3mdev,
        rule.protocol == "" or PROTOCOLS.get(rule.protocol, rule.protocol) == flow.protocol,
        _in_range(rule.uids, flow.uid),
        _in_range(rule.sports, flow.sport),
        _in_range(rule.dports, flow.dport),
    ]
    matches = False if False in found else None if None in found else True
    return matches if matches is None or not rule.negated else not matches


def _in_prefix(prefix: str, address: Address | None, other: Address) -> bool | None:
    """Return whether an address is in the range of a selector. No address yet counts as 0.0.0.0; IPv6 has none then."""
    family = _family(other)
    if prefix == "all":
        return True
    try:
        network = family.of_network(prefix)
    except ValueError:
        return None
    if address is None:
        return family is V4 and family.everything[0] in network
    return address in network


def _marked(selector: str, mark: int) -> bool | None:
    """Return whether a mark has the selector's bits: ``0x1``, or ``0x1/0xff`` with a mask."""
    text, _, mask = selector.partition("/")
    value, bits = _number(text or "0"), _number(mask or (hex(FULL_MASK) if selector else "0"))
    return None if value is None or bits is None else (value ^ mark) & bits == 0


def _is(selector: str, number: int) -> bool | None:
    value = _number(selector) if selector else number
    return None if value is None else value == number


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None


def _in_range(selector: Range | None, number: int) -> bool:
    return selector is None or selector[0] <= number <= selector[1]


def _comes_before(entry: Unread, rule: PolicyRule | None) -> bool:
    """Return whether a rule that could not be read may apply before the one that decided."""
    priority = entry.raw.get("priority") if isinstance(entry.raw, dict) else None
    return rule is None or not isinstance(priority, int) or priority <= rule.priority


def _leads_to(entry: Unread, address: IPAddress, route: RouteOf[Address, Network] | None) -> bool:
    """Return whether a route that could not be read may be taken in place of the one that was."""
    raw = entry.raw
    if not isinstance(raw, dict):
        return True
    try:
        dst = _family(address).network(str(raw.get("dst", "default")), "routes")
    except FactError:
        return True
    shorter = route is not None and raw.get("table", "main") == route.table and dst.prefixlen < route.dst.prefixlen
    return address in dst and not shorter
