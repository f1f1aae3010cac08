"""Sets of addresses that iptables rules refer to by name: ``ipset save``. kube-proxy and flannel make none."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from hoplab.core.errors import FactError
from hoplab.observe.facts import Fact


@dataclass(frozen=True)
class Member:
    """One member: ``10.244.0.0/16``, or ``10.0.0.1,tcp:80`` in a set of several dimensions."""

    element: str
    options: str = ""  # "nomatch", 'timeout 30 comment "..."'

    def __str__(self) -> str:
        return f"{self.element} {self.options}".rstrip()


@dataclass(frozen=True)
class IpSet:
    """One set. ``str(ipset)`` is what `ipset save` prints of it."""

    name: str
    kind: str  # "hash:net"
    options: str  # "family inet hashsize 1024 maxelem 1048576"
    members: tuple[Member, ...]

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Return the kinds of a member's parts: ("ip", "port") of hash:ip,port."""
        return tuple(self.kind.partition(":")[2].split(","))

    def option(self, name: str) -> str:
        """Return the value of an option of its creation: option("netmask") of "family inet netmask 24" is "24"."""
        words = self.options.split()
        return next((value for word, value in pairwise(words) if word == name), "")

    def __str__(self) -> str:
        created = f"create {self.name} {self.kind} {self.options}".rstrip()
        return "\n".join([created, *(f"add {self.name} {member}" for member in self.members)])


def parse(text: str) -> tuple[IpSet, ...]:
    """Parse the sets: a line creates a set, and each line after it adds a member."""
    created: dict[str, tuple[str, str]] = {}
    members: dict[str, list[Member]] = {}
    for line in text.removesuffix("\n").split("\n") if text else ():
        verb, name, first, options = (*line.split(" ", 3), "", "", "")[:4]
        if verb == "create" and first:
            created[name] = (first, options)
            members[name] = []
        elif verb == "add" and first and name in members:
            members[name].append(Member(first, options))
        else:
            raise FactError(f"{line!r} is not a line of `ipset save`", remedy="run `ipset save` on the node and look")
    return tuple(IpSet(name, kind, options, tuple(members[name])) for name, (kind, options) in created.items())


IPSET = Fact("ipset", "ipset save", parse)
