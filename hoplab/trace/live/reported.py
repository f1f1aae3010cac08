"""The rules that a packet met on a node, from what nftables reported there, in the words of their user; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hoplab.core.errors import FactError
from hoplab.observe.facts import Fact, Facts, T
from hoplab.observe.facts.iptables import IP6TABLES, IPTABLES, Iptables
from hoplab.observe.facts.nft_ruleset import NFT_RULESET
from hoplab.observe.facts.nftables import Nftables
from hoplab.trace import nft_trace
from hoplab.trace.live.heard import Heard
from hoplab.trace.live.observed import RuleHit
from hoplab.trace.live.sightings import Sighting
from hoplab.trace.model import Header, Place
from hoplab.trace.nft_trace import Hit

SAVED = {"ip": IPTABLES, "ip6": IP6TABLES}  # by nftables' name of the family


def rule_hits(node: str, heard: Heard, facts: Facts, seen: Sequence[Sighting]) -> Iterator[RuleHit]:
    """Yield the rules that the packet and its reply met on a node, by the facts of the node and where it was seen."""
    place, saved = Place("node", node), _saved(facts)
    headers: dict[str, set[Header | None]] = {"there": set(), "back": set()}
    for one in seen:
        if one.place == place and one.leg in headers:
            headers[one.leg] |= {one.header, one.inner}
    for packet in nft_trace.parse(heard.reports):
        back = packet.header in headers["back"] and packet.header not in headers["there"]
        for hit in packet.hits:
            known = hit.family in saved and saved[hit.family].rules(hit.table, hit.chain)
            program = SAVED[hit.family].name if known else f"nftables {hit.family}"
            where = f"{program} {hit.table}, {hit.chain}"
            yield RuleHit(place, where, _text(hit, heard, facts), hit.verdict, "back" if back else "there")


def texts(heard: Heard, facts: Facts) -> Iterator[tuple[Hit, str]]:
    """Yield each rule that a packet met on a node, with its text."""
    return ((hit, _text(hit, heard, facts)) for packet in nft_trace.parse(heard.reports) for hit in packet.hits)


def _text(hit: Hit, heard: Heard, facts: Facts) -> str:
    listed = known_or(facts, NFT_RULESET, Nftables(()))
    return nft_trace.as_saved(hit, heard.rules or {}, _saved(facts), listed)


def _saved(facts: Facts) -> Mapping[str, Iptables]:
    return {key: known_or(facts, fact, Iptables({})) for key, fact in SAVED.items()}


def known_or(facts: Facts, fact: Fact[T], otherwise: T) -> T:
    """Return a fact, or something else where the node does not tell it."""
    try:
        return facts[fact]
    except FactError:
        return otherwise
