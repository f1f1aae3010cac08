"""Programs of eBPF at the interfaces of a node: ``bpftool -j net show``, of the container of cilium-agent."""

from __future__ import annotations

from dataclasses import dataclass, field

from hoplab.observe.facts import Fact
from hoplab.observe.facts._cilium import in_agent
from hoplab.observe.facts._json import Item, list_of


@dataclass(frozen=True)
class Program:
    """A program that the kernel runs for each packet at an interface."""

    dev: str
    hook: str  # "tcx/ingress", "tcx/egress", "clsact/ingress", "xdp"
    name: str  # "cil_from_container"
    id: int = field(default=0, compare=False)

    @property
    def direction(self) -> str:
        """Return "ingress" or "egress"; "" for a hook without both."""
        return self.hook.rpartition("/")[2] if "/" in self.hook else ""

    def __str__(self) -> str:
        return f"{self.name} at {self.hook} of {self.dev}"


def parse(text: str) -> tuple[Program, ...]:
    """Return the programs in the order of the interfaces."""
    found = [Item(entry, "programs") for entry in list_of(text, "programs")] if text.strip() else []
    return tuple(
        Program(
            item.text("devname"),
            item.text("kind") if kind == "tc" else kind,
            item.text("name"),
            item.number("prog_id") or item.number("id"),
        )
        for place in found
        for kind in ("xdp", "tc")
        for item in place.items(kind)
    )


BPF_PROGRAMS = Fact("bpf_programs", in_agent("bpftool -j net show"), parse)
