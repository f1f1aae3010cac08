"""What a fault is, and which faults are made at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from tests.system.faults.site import Site

Broken = Callable[[Site], AbstractContextManager[None]]  # the site is broken while the context is open


@dataclass(frozen=True)
class Fault:
    name: str
    broken: Broken
    caught_by: tuple[str, ...]  # exactly these read-only lessons fail, and ...
    says: str  # the first of them (or of the next) says this
    traffic: tuple[str, ...] = ()  # ... of those that send packets, these; others are not tried
    needs: Mapping[str, Any] = field(default_factory=dict)  # what a lab must have, as markers of lessons say it
    alone: bool = False  # not to be made together with others: it bears on what they touch
    first: str = ""  # the lesson that verification names first, where it is another one than the first, ...
    first_says: str = ""  # ... and what that says

    @property
    def lessons(self) -> tuple[str, ...]:
        """The lessons that have to fail, first the one that says ``says``."""
        return (*self.caught_by, *self.traffic)

    @property
    def named_first(self) -> tuple[str, str]:
        """The lesson that verification names first, and what it says."""
        return self.first or self.lessons[0], self.first_says or self.says

    @property
    def file(self) -> str:
        """The name of its recording: `the-masquerade-rule-is-gone.json`."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower().replace("'", "")) + ".json"


FLANNEL, CALICO, CILIUM = ({"cni": name} for name in ("flannel", "calico", "cilium"))
FLANNEL_VXLAN = {**FLANNEL, "backend": "vxlan"}
FLANNEL6, FLANNEL6_VXLAN = ({**needs, "ipv6": True} for needs in (FLANNEL, FLANNEL_VXLAN))


def together(faults: Iterable[Fault]) -> list[tuple[Fault, ...]]:
    """The faults in groups to be made at once: those with the same needs that only read-only lessons notice, none of
    which is another one's too. Each other fault is a group of its own."""
    groups: list[list[Fault]] = []
    for fault in faults:
        fitting = [group for group in groups if all(_independent(fault, other) for other in group)]
        if fitting:
            fitting[0].append(fault)
        else:
            groups.append([fault])
    return [tuple(group) for group in groups]


def _independent(one: Fault, other: Fault) -> bool:
    return not (
        one.alone
        or other.alone
        or one.traffic
        or other.traffic
        or one.needs != other.needs
        or {*one.caught_by} & {*other.caught_by}
    )
