"""Base chains of all families with hook and priority: where the kernel calls the tables of iptables and nftables."""

from __future__ import annotations

from dataclasses import dataclass

from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Item, document


@dataclass(frozen=True)
class BaseChain:
    """A chain that the kernel calls at a hook; of two at the same hook, the one with the lower priority first."""

    table: str  # "nat"
    chain: str  # "PREROUTING"
    hook: str  # "prerouting"
    priority: int  # -100
    family: str = "ip"  # "inet", ...

    def __str__(self) -> str:
        family = "" if self.family == "ip" else f"{self.family} "
        return f"{family}{self.table} {self.chain} {{ hook {self.hook} priority {self.priority} }}"


def parse(text: str) -> tuple[BaseChain, ...]:
    chains = (item.item("chain") for item in Item(document(text, "hooks"), "hooks").items("nftables"))
    return tuple(
        BaseChain(
            chain.text("table"),
            chain.text("name"),
            chain.text("hook"),
            chain.number("prio"),
            chain.text("family"),
        )
        for chain in chains
        if chain.text("hook")
    )


BASE_CHAINS = Fact("hooks", "nft -j list chains", parse)
