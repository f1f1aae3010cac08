"""Compare two snapshots: places that belong together, then the entries of each; pure.

A fact is compared where both snapshots have it. What one of them lacks is a note, not a change.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hoplab.core.errors import LabError
from hoplab.observe.facts import Fact, Facts
from hoplab.observe.facts._json import unread
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.api_pods import API_PODS, ApiPod
from hoplab.observe.facts.ipam import IPAM
from hoplab.observe.facts.links import LINKS
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import leftovers
from hoplab.verify.changes import rulesets
from hoplab.verify.changes.entries import READINGS
from hoplab.verify.changes.entry import Change, Entry, Place

NETNS = "network namespace"
API = Place()


@dataclass(frozen=True)
class Namespace:
    """A pod's network namespace on its node."""

    node: str
    netns: str  # "cni-1b4e..."
    facts: Facts
    pod: str = ""  # "hoplab-verify/echo-9p2h6"; "" where no pod has its address
    names: frozenset[str] = frozenset()  # what its node calls it: the namespace, the host's end of its veth, a sandbox
    host_end: str = ""  # the interface of its node at the other end of its eth0


@dataclass
class Compared:
    """All changes of two snapshots, ungrouped, and what could not be compared."""

    changes: list[Change] = field(default_factory=list)
    ends: dict[tuple[Place, str], tuple[Place, str]] = field(default_factory=dict)  # of a veth: its other end
    lacking: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # fact: its places
    unreadable: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # why: its places


def compare(before: Snapshot, after: Snapshot) -> Compared:
    """Return every change from one snapshot to another."""
    found = Compared()
    then, now = namespaces(before), namespaces(after)
    _outages(before, after, found)
    known = {one.pod: one.names for one in (*then.values(), *now.values()) if one.pod}
    for change in _places(API, before.api, after.api, found):
        found.changes.append(_with_names(change, known))
    for node in dict.fromkeys((*before.node_facts, *after.node_facts)):
        if node in before.node_facts and node in after.node_facts:
            found.changes += _places(Place(node), before.node_facts[node], after.node_facts[node], found)
            found.changes += _dead_flows(node, before, after)
        elif not (before.outage(node) or after.outage(node)):
            entry = Entry("machine", (node,), {}, node, names=frozenset({node}))
            found.changes.append(_one_sided(Place(node), entry, gone=node in before.node_facts))
    seen = before.node_facts.keys() & after.node_facts.keys()
    for old, new in paired(then, now):
        one = new or old
        assert one
        if one.node not in seen:
            continue
        place = Place(one.node, (new and new.pod) or (old and old.pod) or one.netns)
        for end in (old, new):
            if end and end.host_end:
                found.ends[Place(one.node), end.host_end] = place, "eth0"
        if old and new:
            found.changes += _places(place, old.facts, new.facts, found)
        else:
            named = f"{one.netns} of {one.pod}" if one.pod else one.netns
            entry = Entry(NETNS, (one.netns,), {}, named, names=one.names)
            found.changes.append(_one_sided(Place(one.node), entry, gone=new is None))
    found.changes = [_of_pod(change, found.ends) for change in found.changes]
    return found


def _dead_flows(node: str, before: Snapshot, after: Snapshot) -> Iterator[Change]:
    """Yield the UDP connections to endpoints that are gone: other connections come and go, these stay."""
    then, now = _dead(node, before), _dead(node, after)
    for why in sorted(then ^ now):
        yield _one_sided(Place(node), Entry("dead connection", (why,), {}, why), gone=why in then)


def _dead(node: str, lab: Snapshot) -> set[str]:
    try:
        return {flow.why for known in lab.nodes if known.name == node for flow in leftovers.dead_flows(lab, known)}
    except LabError:  # a fact lacks; what that is stands among the notes
        return set()


def _of_pod(change: Change, ends: Mapping[tuple[Place, str], tuple[Place, str]]) -> Change:
    """Return the change of a veth on a node with the pod that is at its other end."""
    place, _ = ends.get((change.place, change.entry.name), (None, ""))
    if change.kind != "interface" or not place:
        return change
    old, new = (
        replace(entry, name=f"{entry.name} of {place.pod}", text=f"{entry.text}, of {place.pod}") if entry else None
        for entry in (change.before, change.after)
    )
    return replace(change, before=old, after=new)


def namespaces(lab: Snapshot) -> dict[tuple[str, str], Namespace]:
    """Return the pods' namespaces by node and name, each with its pod where one has its address."""
    listed: Iterable[ApiPod] = _read(lab.api, API_PODS) or ()
    pods = {(pod.node, pod.address): str(pod) for pod in listed if pod.address and not pod.host_network}
    found = {}
    for node, own in lab.node_facts.items():
        inside = lab.netns_facts.get(node, {})
        links = {link.index: link.name for link in _read(own, LINKS) or ()}
        containers = {one.address: one.container for one in _read(own, IPAM) or ()}
        for netns, facts in inside.items():
            addresses = [one.address for one in _read(facts, ADDRESSES) or () if one.dev != "lo"]
            eth0 = next((link for link in _read(facts, LINKS) or () if link.name == "eth0"), None)
            host_end = links.get(eth0.peer_index, "") if eth0 and eth0.peer_elsewhere else ""
            names = {netns, host_end, *(containers.get(address, "") for address in addresses)} - {""}
            pod = next((pods[node, address] for address in addresses if (node, address) in pods), "")
            found[node, netns] = Namespace(node, netns, facts, pod, frozenset(names), host_end)
    return found


def paired(
    before: Mapping[tuple[str, str], Namespace], after: Mapping[tuple[str, str], Namespace]
) -> Iterator[tuple[Namespace | None, Namespace | None]]:
    """Yield namespaces with what they are now: the same namespace, or another one of the same pod."""
    come = {key: one for key, one in after.items() if key not in before}
    heirs = {(one.node, one.pod): key for key, one in come.items() if one.pod}
    for key, one in before.items():
        heir = heirs.pop((one.node, one.pod), None) if one.pod and key not in after else None
        yield one, come.pop(heir) if heir else after.get(key)
    for one in come.values():
        yield None, one


def _places(place: Place, before: Facts, after: Facts, found: Compared) -> Iterator[Change]:
    """Yield the changes of one place."""
    earlier: tuple[set[tuple[Any, ...]], ...] = (set(), set())  # what another fact has too is said once
    for reading in READINGS:
        name = reading.fact.name
        old, new = before.outputs.get(name), after.outputs.get(name)
        if old is None and new is None:
            continue
        if old is None or new is None:
            found.lacking[name].add(str(place))
            continue
        if (old.code, old.out) == (new.code, new.out):
            continue
        if old.code and new.code:  # an API that the cluster does not have, or a program that is not installed
            continue
        lists = []
        for facts, seen in zip((before, after), earlier, strict=True):
            try:
                parsed = facts[reading.fact]
            except LabError as error:
                found.unreadable[error.message].add(str(place))
                break
            for lost in unread(parsed) if isinstance(parsed, tuple) else ():
                found.unreadable[str(lost)].add(str(place))
            entries = list(reading.entries(parsed))
            lists.append([entry for entry in entries if _identity(entry) not in seen])
            seen.update(map(_identity, entries))
        if len(lists) == 2:
            yield from differing(place, *lists)


def differing(place: Place, before: Iterable[Entry], after: Iterable[Entry]) -> Iterator[Change]:
    """Yield the changes from some entries of a place to others.

    Equal ones are paired first. Of the rest with one key, one on each side is a changed one. Then those of one kin are
    paired: one was replaced by the other. All others are gone, or new.
    """
    old, new = _by_key(before), _by_key(after)
    gone: list[Entry] = []
    come: list[Entry] = []
    for key in dict.fromkeys((*old, *new)):
        mine, others = _without_equals(old.get(key, []), new.get(key, []))
        if len(mine) == len(others) == 1:
            yield Change(place, mine[0], others[0])
        else:
            gone += mine
            come += others
    kin = defaultdict(list)
    for entry in come:
        kin[entry.kind, entry.kin].append(entry)
    replaced = set()
    for entry in gone:
        heirs = kin[entry.kind, entry.kin] if entry.kin else []
        heir = heirs.pop(0) if heirs else None
        if heir:
            replaced.add(id(heir))
        yield Change(place, entry, heir)
    yield from (Change(place, None, entry) for entry in come if id(entry) not in replaced)
    yield from _reordered(place, old, new)


def _reordered(
    place: Place, old: Mapping[tuple[str, ...], list[Entry]], new: Mapping[tuple[str, ...], list[Entry]]
) -> Iterator[Change]:
    """Yield a change for each chain whose rules come in another order, where that may matter."""
    chains: tuple[dict[tuple[str, ...], list[Entry]], ...] = ({}, {})
    for side, by_key in zip(chains, (old, new), strict=True):
        for entry in (entry for found in by_key.values() for entry in found if entry.rank >= 0):
            side.setdefault(entry.key[:2], []).append(entry)
    for chain in (chain for chain in chains[0] if chain in chains[1]):
        before, after = (sorted(side[chain], key=lambda entry: entry.rank) for side in chains)
        old_rules, new_rules = (Counter(map(_identity, side)) for side in (before, after))
        once = {rule for rule, number in old_rules.items() if number == new_rules[rule] == 1}
        lists = ([one for one in side if _identity(one) in once] for side in (before, after))
        if found := rulesets.moved(*lists):
            first, second = (entry.text for entry in found)
            then, now = (
                Entry("order of rules", chain, {"order": text}, text, within=f"chain {chain[1]} of {chain[0]}")
                for text in (f"{second}, then {first}", f"{first}, then {second}")
            )
            yield Change(place, then, now)


def _by_key(entries: Iterable[Entry]) -> dict[tuple[str, ...], list[Entry]]:
    found: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        found.setdefault((entry.kind, *entry.key), []).append(entry)
    return found


def _without_equals(before: list[Entry], after: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return the entries of one key that the other side does not have in the same form."""
    both = Counter(map(_identity, before)) & Counter(map(_identity, after))
    sides = []
    for entries in (before, after):
        left = Counter(both)
        kept = []
        for entry in entries:
            if left[_identity(entry)]:
                left[_identity(entry)] -= 1
            else:
                kept.append(entry)
        sides.append(kept)
    return sides[0], sides[1]


def _identity(entry: Entry) -> tuple[Any, ...]:
    return entry.kind, entry.key, tuple(entry.fields.items())


def _outages(before: Snapshot, after: Snapshot, found: Compared) -> None:
    """Add what could be looked at in only one of the snapshots, or ran in one only."""
    nodes = {*before.setting.nodes, *after.setting.nodes}
    for at in dict.fromkeys(outage.place for outage in (*before.outages, *after.outages)):
        old, new = (
            [Entry("outage", (at,), {"problem": outage.problem}, outage.problem, f"of {at}")] if outage else []
            for outage in (before.outage(at), after.outage(at))
        )
        found.changes += differing(Place(at) if at in nodes else API, old, new)


def _one_sided(place: Place, entry: Entry, *, gone: bool) -> Change:
    return Change(place, entry, None) if gone else Change(place, None, entry)


def _with_names(change: Change, known: Mapping[str, frozenset[str]]) -> Change:
    """Return the change of a pod with what its node calls it."""
    if change.kind != "pod":
        return change
    old, new = (
        replace(entry, names=entry.names | known.get(entry.key[0], frozenset())) if entry else None
        for entry in (change.before, change.after)
    )
    return replace(change, before=old, after=new)


def _read(facts: Facts, fact: Fact[Any]) -> Any:
    """Return a parsed fact; None where it cannot be had."""
    try:
        return facts[fact]
    except LabError:
        return None
