"""What a node has sent while a packet is traced; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hoplab.observe.facts.counters import COUNTERS, rose
from hoplab.observe.live.clocks import HERE
from hoplab.trace import nft_trace
from hoplab.trace.live import node_program

NFT, TRACEFS = 1000, 1001  # numbers of the programs on a node; taps have the smaller ones

BEFORE_AND_AFTER = 2


@dataclass
class Heard:
    """What a node has sent."""

    reports: list[bytes] = field(default_factory=list)
    printed: dict[int, str] = field(default_factory=dict)  # standard output of each program
    said: dict[int, str] = field(default_factory=dict)  # standard error of each program
    ended: set[int] = field(default_factory=set)
    told: list[dict[str, Any]] = field(default_factory=list)
    rules: dict[str, list[int]] | None = None
    counters: list[str] = field(default_factory=list)  # before the packet, and after one that got no answer
    mono_ahead: int = 0  # nanoseconds that its monotonic clock is ahead of its real one
    echoes: int = 0

    @property
    def events(self) -> str:
        """Return the lines of tracefs."""
        return self.printed.get(TRACEFS, "")

    @property
    def counted(self) -> tuple[str, ...]:
        """Return the failures that the node counted meanwhile: "1 packet dropped by rp_filter"."""
        if len(self.counters) < BEFORE_AND_AFTER:
            return ()
        before, after = map(COUNTERS.parse, self.counters[:BEFORE_AND_AFTER])
        return tuple(text for text in rose(before, after))

    def lacking(self, node: str) -> Iterator[str]:
        """Yield what does not report on a node, with the reason."""
        for told in self.told:
            if "failed" in told:
                yield f"{node or 'this machine'}: nothing is captured in {told['failed']}"
        if node == HERE:
            return
        if not nft_trace.made(self.reports):
            yield f"{node}: no rule is seen: {_reason(self.said.get(NFT, ''), 'nft does not answer')}"
        if node_program.LISTENS not in self.events:
            why = self.events.partition(node_program.CANNOT)[2].strip() or "tracefs does not answer"
            yield f"{node}: no dropped packet and no routing decision is seen: {why}"


def _reason(said: str, otherwise: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[0] if lines else otherwise
