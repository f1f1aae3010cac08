"""A packet at every hook of a host, in the kernel's order of priorities: what drops it, if anything; pure.

``Firewall.traverse`` goes through the tables of iptables-nft and iptables-legacy and through every table of nftables,
of the families ip, ip6, inet, bridge and netdev. A rule that cannot be evaluated is named when it may decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address, ip_address

from hoplab.core.errors import FactError
from hoplab.core.ip import IPAddress
from hoplab.netfilter.base_chains import BaseChainAt, Rule, base_chains
from hoplab.netfilter.extensions import DROPS
from hoplab.netfilter.packet import ECHO_REPLIES, QUEUED, UNKNOWN, Outcome, Packet
from hoplab.netfilter.ruleset import HasFacts
from hoplab.observe.facts.addresses import ADDRESSES, ADDRESSES6, Address, Address6, source6
from hoplab.observe.facts.iptables import Rule as IptablesRule
from hoplab.observe.facts.nfqueue import NFQUEUE
from hoplab.observe.facts.nft_expressions import Queue
from hoplab.observe.facts.sysctls import SYSCTLS, SYSCTLS6

BRIDGED_TOO = "net.bridge.bridge-nf-call-iptables"  # 1: the hooks of IP are called for bridged packets
BRIDGED_TOO6 = "net.bridge.bridge-nf-call-ip6tables"  # ... those of IPv6
CONNTRACK_PRIORITY = -200  # where the kernel looks the connection up; before that, its state is not known
RESTORED_FIRST = -100  # where it gives a reply the destination that the first packet came from
RESTORED_LAST = 100  # ... and the source that the first packet was for


@dataclass(frozen=True)
class Stop:
    """A place where a packet stops, or may stop."""

    hook: str  # "forward"
    table: str  # "iptables filter", "iptables-legacy filter", "nftables inet firewalld"
    chain: str  # "FORWARD"
    rule: str  # as text; "policy DROP" where no rule decided
    verdict: str  # "DROP", "REJECT"; UNKNOWN where a rule cannot be evaluated, QUEUED where a program decides

    @property
    def unread(self) -> bool:
        return self.verdict == UNKNOWN

    @property
    def queued(self) -> bool:
        return self.verdict == QUEUED

    @property
    def where(self) -> str:
        return f"{self.table}, chain {self.chain}" if self.chain else self.table

    def __str__(self) -> str:
        return f"{self.table if self.rule.startswith('-A ') else self.where}: `{self.rule}`"


@dataclass(frozen=True)
class Step:
    """What one base chain does with a packet that matches a rule of it."""

    hook: str  # "prerouting"
    table: str  # "iptables nat"
    rules: tuple[Rule, ...]  # that matched, in order; those that jump are among them
    verdict: str  # "ACCEPT", "DNAT", "DROP", ...; UNKNOWN
    packet: Packet  # after it
    probability: float = 1.0  # as far as rules draw random numbers

    @property
    def chains(self) -> tuple[str, ...]:
        """Return the chains that call each other down to the last rule that matched."""
        calls: list[str] = []
        for rule in self.rules:
            if rule.chain in calls:
                del calls[calls.index(rule.chain) :]
            calls.append(rule.chain)
        return tuple(calls)


@dataclass(frozen=True)
class Passage:
    """One way that a packet may take through the hooks of a host."""

    packet: Packet  # as it leaves the last hook, or as it is where it stops
    steps: tuple[Step, ...]  # of the base chains in which a rule matched, in the kernel's order
    stop: Stop | None = None  # what drops it; None where it leaves the last hook
    unsure: tuple[Stop, ...] = ()  # rules that had to be guessed


@dataclass(frozen=True)
class Traversal:
    """What the rules of a host do with one packet."""

    drops: tuple[Stop, ...]  # rules that drop it, and policies
    unknown: tuple[Stop, ...]  # rules on which it depends, and that could not be evaluated, or leave it to a program
    packets: tuple[Packet, ...]  # as it may leave the last hook, with its new addresses; none where it never does
    translated: bool = False  # a rule changes its source or destination
    passages: tuple[Passage, ...] = field(default=(), compare=False)  # every way: those that leave it, then the stops

    @property
    def passes(self) -> bool:
        """Return whether it passes whatever the unknown rules do."""
        return not self.drops and not self.unknown

    def __str__(self) -> str:
        if self.drops:
            return f"{self.drops[0]} drops it"
        if self.unknown:
            found = self.unknown[0]
            return f"a program decides: {found}" if found.queued else f"unknown: {found} could not be evaluated"
        return "passes"


@dataclass(frozen=True)
class _State:
    """A packet on its way, and the rules that had to be guessed on the way to here."""

    packet: Packet
    unsure: tuple[Stop, ...] = ()
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Translation:
    """What is known of the addresses of a connection beside those of the packet between its hooks."""

    route: Callable[[Packet], Packet] = lambda packet: packet  # sets the way out of one with a new destination
    arrives: Packet | None = None  # a reply before conntrack restores its destination; None: it does not
    leaves: Packet | None = None  # ... and after conntrack has restored its source

    def seen(self, packet: Packet, chain: BaseChainAt, hook: str) -> Packet:
        """Return the packet with the addresses that it has at a chain."""
        first = hook == "ingress" or (chain.layer == "bridge" and hook in ("prerouting", "input"))
        last = hook == "egress" or (chain.layer == "bridge" and hook in ("output", "postrouting"))
        if first or (chain.layer == "ip" and hook == "prerouting" and chain.priority < RESTORED_FIRST):
            return _with_addresses(packet, self.arrives)
        if last or (chain.layer == "ip" and hook in ("input", "postrouting") and chain.priority > RESTORED_LAST):
            return _with_addresses(packet, self.leaves)
        return packet


def _with_addresses(packet: Packet, of: Packet | None) -> Packet:
    return replace(packet, src=of.src, dst=of.dst, sport=of.sport, dport=of.dport) if of else packet


def bridged_too(host: HasFacts, *, ipv6: bool) -> bool:
    """Return whether a host calls the hooks of IP for bridged packets.

    Older recordings have the switch of IPv4 alone, which then stands for both.
    """
    values = host[SYSCTLS]
    if ipv6:
        with suppress(FactError):
            values = {**values, **host[SYSCTLS6]}
    return values.get(BRIDGED_TOO6 if ipv6 else BRIDGED_TOO, values.get(BRIDGED_TOO)) == "1"


def reply_to(packet: Packet, **changed: object) -> Packet:
    """Return the reply to a packet on the same host: the other way round, of an established connection."""
    turned = replace(
        packet,
        src=packet.dst,
        dst=packet.src,
        sport=packet.dport,
        dport=packet.sport,
        in_dev=packet.out_dev,
        out_dev=packet.in_dev,
        port_in=packet.port_out,
        port_out=packet.port_in,
        src_is_local=packet.dst_is_local,
        dst_is_local=packet.src_is_local,
        state="ESTABLISHED",
        mark=0,
        icmp_type=None if packet.icmp_type is None else ECHO_REPLIES.get(packet.icmp_type),
    )
    return replace(turned, **changed)  # type: ignore[arg-type]


class Firewall:
    """The rules of a host at all its hooks, read once for many packets."""

    def __init__(self, host: HasFacts) -> None:
        self.host = host
        self._chains: dict[tuple[bool, str, str], list[BaseChainAt]] = {}

    def traverse(self, packet: Packet, translation: Translation | None = None) -> Traversal:
        """Return what the rules do with a packet.

        A packet without ``in_dev`` is sent by the host itself, one with ``dst_is_local`` is for the host, a ``bridged``
        one stays in its bridge, and another one is forwarded. Raise FactError where the host lacks a fact.
        """
        return _Walk(self, translation or Translation()).run(packet)

    def called(self, packet: Packet, layer: str, hook: str) -> list[BaseChainAt]:
        """Return the base chains that the kernel calls for a packet at a hook, in its order."""
        key = (packet.ipv6, layer, hook)
        if key not in self._chains:
            self._chains[key] = base_chains(self.host, *key)
        return [chain for chain in self._chains[key] if chain.is_for(packet, hook)]

    def is_read(self, queue: Queue) -> bool:
        """Return whether a program may read the queue: also where the host's queues were not looked at."""
        try:
            numbers = {found.number for found in self.host[NFQUEUE]}
        except FactError:
            return True
        low, _, high = queue.number.partition("-")
        return not queue.number.replace("-", "").isdecimal() or numbers >= set(range(int(low), int(high or low) + 1))


class _Walk:
    """One packet on one host."""

    def __init__(self, firewall: Firewall, translation: Translation) -> None:
        self.firewall, self.host, self.translation = firewall, firewall.host, translation
        self.drops: dict[Stop, None] = {}  # in order, as the next two
        self.possible: dict[Stop, bool] = {}  # that depend on unknown rules; whether they are unknown themselves
        self.unknown: dict[Stop, None] = {}
        self.stopped: list[Passage] = []
        self.translated = False

    def run(self, packet: Packet) -> Traversal:
        states = [_State(packet)]
        if packet.in_dev:
            states = self.called(states, "netdev", "ingress")
        if packet.bridged:
            states = self.bridged(states)
        elif packet.in_dev:
            states = self.arriving(states)
        else:
            states = self.leaving(self.called(states, "ip", "output"))
        packets = tuple(dict.fromkeys(state.packet for state in states))
        drops = tuple(self.drops)
        if not packets:  # dropped in any case: an unknown rule leaves open where
            drops = (*drops, *sorted(self.possible, key=lambda stop: self.possible[stop]))
        passages = (*(Passage(state.packet, state.steps, unsure=state.unsure) for state in states), *self.stopped)
        return Traversal(drops, () if drops else tuple(self.unknown), packets, self.translated, passages)

    def arriving(self, states: list[_State]) -> list[_State]:
        states = self.called(self.bridge(states, "prerouting", "input"), "ip", "prerouting")
        local = [state for state in states if state.packet.dst_is_local]
        forwarded = [state for state in states if not state.packet.dst_is_local]
        return [*self.called(local, "ip", "input"), *self.leaving(self.called(forwarded, "ip", "forward"))]

    def leaving(self, states: list[_State]) -> list[_State]:
        states = self.called(states, "ip", "postrouting")
        return self.called(self.bridge(states, "output", "postrouting"), "netdev", "egress")

    def bridged(self, states: list[_State]) -> list[_State]:
        """Return the states of a packet between two ports of one bridge; IP's hooks are called inside of its own."""
        too = bool(states) and bridged_too(self.host, ipv6=states[0].packet.ipv6)
        for hook in ("prerouting", "forward", "postrouting"):
            states = self.called(states, "bridge", hook)
            states = self.called(states, "ip", hook) if too else states
        return self.called(states, "netdev", "egress")

    def bridge(self, states: list[_State], *hooks: str) -> list[_State]:
        """Return the states after the bridge's own hooks, of packets that arrive at or leave by a port of one."""
        for hook in hooks:
            port = "port_in" if hooks[-1] == "input" else "port_out"
            through = [state for state in states if getattr(state.packet, port)]
            beside = [state for state in states if not getattr(state.packet, port)]
            states = [*self.called(through, "bridge", hook), *beside]
        return states

    def called(self, states: list[_State], layer: str, hook: str) -> list[_State]:
        """Return the states after all base chains of a hook; those that are dropped are not among them."""
        bound: set[Packet] = set()  # translated at this hook: the kernel calls no further chain of type nat for them
        for chain in self.firewall.called(states[0].packet, layer, hook) if states else ():
            after: dict[Packet, _State] = {}
            for state in states:
                if chain.kind == "nat" and (state.packet.state != "NEW" or state.packet in bound):
                    after.setdefault(state.packet, state)
                    continue
                for moved, translated in self.through(chain, hook, state):
                    if translated:
                        bound.add(moved.packet)
                    known = after.get(moved.packet)
                    after[moved.packet] = moved if known is None or len(moved.unsure) < len(known.unsure) else known
            states = list(after.values())
        return states

    def through(self, chain: BaseChainAt, hook: str, state: _State) -> Iterator[tuple[_State, bool]]:
        """Yield the states after one base chain, each with whether it translated them; note where the packet stops."""
        outcomes = chain.walk(_as_seen(self.translation.seen(state.packet, chain, hook), chain, hook))
        equal = all(outcome.verdict == "ACCEPT" for outcome in outcomes) and len({o.packet for o in outcomes}) == 1
        for walked in outcomes:
            outcome = self.unqueued(walked)
            found = () if equal else tuple(_stop(chain, hook, rule, UNKNOWN) for rule in outcome.unsure)
            unsure = tuple(dict.fromkeys((*state.unsure, *found)))
            packet = _restored(outcome.packet, state.packet)
            if outcome.verdict in DROPS:
                stop = _decided(chain, hook, outcome)
                self.stopped.append(Passage(packet, _stepped(state, chain, hook, outcome, packet), stop, unsure))
                if unsure:
                    self.possible[stop] = replace(stop, verdict=UNKNOWN) in unsure
                else:
                    self.drops[stop] = None
                self.unknown.update(dict.fromkeys(unsure))
            elif outcome.verdict in _TRANSLATING:
                self.translated = True
                changed = self.translate(packet, outcome)
                yield _State(changed, unsure, _stepped(state, chain, hook, outcome, changed)), True
            else:
                if outcome.verdict != "ACCEPT":  # a rule that is not known, or a program decides: here it may pass
                    verdict = QUEUED if outcome.verdict == QUEUED else UNKNOWN
                    unsure = tuple(dict.fromkeys((*unsure, _decided(chain, hook, replace(outcome, verdict=verdict)))))
                    self.unknown.update(dict.fromkeys(unsure))
                yield _State(packet, unsure, _stepped(state, chain, hook, outcome, packet)), False

    def unqueued(self, outcome: Outcome[Rule]) -> Outcome[Rule]:
        """Return what becomes of a packet for a queue that no program reads: dropped, or passed on by its flag."""
        if outcome.verdict != QUEUED or isinstance(outcome.last, IptablesRule) or outcome.last is None:
            return outcome
        queue = next(part for part in outcome.last.expressions if isinstance(part, Queue))
        if self.firewall.is_read(queue):
            return outcome
        return replace(outcome, verdict="ACCEPT" if queue.bypass else "DROP")

    def translate(self, packet: Packet, outcome: Outcome[Rule]) -> Packet:
        """Return the packet with its new source or destination; one that is not known is left.

        MASQUERADE takes the first address of the interface by which the packet leaves; of one without any, as the host
        end of a pod with Calico, the host's first global one. Of IPv6 it takes the one that a packet of the host has.
        """
        address, port = _address_and_port(outcome.to)
        if outcome.verdict in ("DNAT", "REDIRECT", "NETMAP"):
            dst = address or packet.dst
            local = outcome.verdict == "REDIRECT" or dst in {own.address for own in self.own_addresses(dst)}
            changed = replace(packet, dst=dst, dport=port or packet.dport, dst_is_local=local, status="dnat")
            return changed if local else self.translation.route(changed)
        if outcome.verdict == "MASQUERADE" and address is None:
            return replace(packet, src=self.masqueraded(packet) or packet.src)
        return replace(packet, src=address or packet.src)

    def masqueraded(self, packet: Packet) -> IPAddress | None:
        if isinstance(packet.dst, IPv6Address):
            return source6(self.host[ADDRESSES6], packet.dst, packet.out_dev)
        known = self.host[ADDRESSES]
        of_dev = [own.address for own in known if own.dev == packet.out_dev]
        return next(iter([*of_dev, *(own.address for own in known if own.scope == "global")]), None)

    def own_addresses(self, like: IPAddress) -> Sequence[Address | Address6]:
        return self.host[ADDRESSES] if like.version == 4 else self.host[ADDRESSES6]


_TRANSLATING = frozenset({"DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP"})


def _as_seen(packet: Packet, chain: BaseChainAt, hook: str) -> Packet:
    """Return the packet as the chain sees it: its interfaces at this hook, and no state before conntrack."""
    seen = packet
    if chain.layer != "ip":
        seen = replace(seen, in_dev=packet.port_in or packet.in_dev, out_dev=packet.port_out or packet.out_dev)
    if hook in ("prerouting", "input", "ingress"):
        seen = replace(seen, out_dev="", port_out="")
    early = hook in ("prerouting", "output") and chain.priority < CONNTRACK_PRIORITY
    if hook == "ingress" or (chain.layer == "ip" and early and seen.state != "UNTRACKED"):
        seen = replace(seen, state="INVALID")
    return seen


def _restored(packet: Packet, before: Packet) -> Packet:
    """Return the packet after a chain with the interfaces and the state that the chain did not see."""
    kept = replace(before, mark=packet.mark, connmark=packet.connmark)
    return replace(kept, state=packet.state) if packet.state == "UNTRACKED" else kept


def _stepped(state: _State, chain: BaseChainAt, hook: str, outcome: Outcome[Rule], packet: Packet) -> tuple[Step, ...]:
    if not outcome.path:
        return state.steps
    return (*state.steps, Step(hook, chain.table, outcome.path, outcome.verdict, packet, outcome.probability))


def _decided(chain: BaseChainAt, hook: str, outcome: Outcome[Rule]) -> Stop:
    if outcome.by_policy or outcome.last is None:
        return Stop(hook, chain.table, chain.name, f"policy {outcome.verdict}", outcome.verdict)
    return _stop(chain, hook, outcome.last, outcome.verdict)


def _stop(chain: BaseChainAt, hook: str, rule: Rule, verdict: str) -> Stop:
    return Stop(hook, chain.table, rule.chain, str(rule), verdict)


def _address_and_port(to: str) -> tuple[IPAddress | None, int]:
    """Return the first address and port of "10.244.1.2:8080", ":15001", "[fd00::2]:80", "10.0.0.1-10.0.0.9:80-90"."""
    address, port = to, ""
    if to.startswith("["):
        address, _, port = to[1:].partition("]:")
    elif to.count(":") == 1:
        address, _, port = to.partition(":")
    try:
        return (ip_address(address.partition("-")[0]) if address else None), int(port.partition("-")[0] or 0)
    except ValueError:
        return None, 0
