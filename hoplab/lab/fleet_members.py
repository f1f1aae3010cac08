"""The labs of a fleet: their names and folders, and the spec of each, which ``fleet up`` writes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import yaml

from hoplab.core import fs
from hoplab.core.errors import LabError, SpecError, SpecIssue
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.expectations.parts import known_parts
from hoplab.lab.spec_file import load_spec
from hoplab.spec.model import NAME_LENGTH, LabSpec
from hoplab.spec.parse import parse_spec

MAX_LABS = 99  # members: their names have two digits
WRITTEN = "# written by `lab fleet up {}`"


class FleetError(LabError):
    """A failure to make or remove one or more labs of a fleet; the others succeeded."""


@dataclass(frozen=True)
class Fleet:
    """All labs of one spec."""

    spec: str  # the spec's name; "course" for Pulumi.course.yaml
    project: Path = PROJECT

    @property
    def folder(self) -> Path:
        """Return the folder of sheets and logs: <project>/.lab/fleet/<spec>/"""
        return self.project / ".lab" / "fleet" / self.spec

    def member(self, number: int) -> LabPaths:
        return LabPaths(f"{self.spec}-s{number}", self.project)

    def log(self, member: LabPaths) -> Path:
        return self.folder / f"{member.lab}.log"

    def made(self) -> tuple[LabPaths, ...]:
        """Return the existing members by number: those with a spec that a fleet wrote."""
        numbers = [
            int(found[1])
            for path in self.project.glob(f"Pulumi.{self.spec}-s*.yaml")
            if (found := re.fullmatch(rf"Pulumi\.{re.escape(self.spec)}-s([1-9][0-9]?)\.yaml", path.name))
            and self._is_ours(path)
        ]
        return tuple(self.member(number) for number in sorted(numbers))

    def _is_ours(self, path: Path) -> bool:
        return path.read_text(encoding="utf-8", errors="replace").startswith(WRITTEN.format(self.spec))


def networks(spec: LabSpec, count: int) -> list[IPv4Network]:
    """Return the lab network of every member: the spec's and those after it, without the ranges of pods and services.

    >>> [str(network) for network in networks(LabSpec("course"), 2)]
    ['192.168.77.0/24', '192.168.78.0/24']
    """
    found: list[IPv4Network] = []
    step, address = spec.network.num_addresses, int(spec.network.network_address)
    while len(found) < count:
        if address + step > 2**32 or not (network := IPv4Network((address, spec.network.prefixlen))).is_private:
            right = f"a network with room for {count} after it, for instance 10.100.0.0/{spec.network.prefixlen}"
            raise SpecError(
                f"Pulumi.{spec.lab}.yaml",
                [SpecIssue("network", f"private networks of this size from {spec.network} on are {len(found)}", right)],
            )
        if not network.overlaps(spec.pod_cidr) and not network.overlaps(spec.service_cidr):
            found.append(network)
        address += step
    return found


def has_forks(spec: LabSpec) -> bool:
    """Return whether the members of a fleet of this spec are forks of the first one, all alike inside."""
    return spec.checkpoint != "off" and spec.libvirt == "private"


def member_text(spec: str, config: Mapping[str, Any], own: Mapping[str, str]) -> str:
    """Return the spec of a member: the fleet's, with the settings that the member has of its own."""
    settings = {f"lab:{name}": value for name, value in own.items()}
    body = yaml.safe_dump({"config": {**config, **settings}}, sort_keys=False)
    return f"{WRITTEN.format(spec)}; change Pulumi.{spec}.yaml instead\n{body}"


def write_specs(fleet: Fleet, count: int) -> tuple[LabPaths, ...]:
    """Write the spec of every member, in place of an earlier run's; write nothing where one has errors."""
    base = load_spec(LabPaths(fleet.spec, fleet.project))
    longest = fleet.member(count).lab
    if len(longest) > NAME_LENGTH:
        raise LabError(
            f"{longest} is too long for the name of a lab, which has at most {NAME_LENGTH} characters",
            remedy=f"give the spec {fleet.spec!r} a shorter name",
        )
    stack = yaml.safe_load(LabPaths(fleet.spec, fleet.project).spec.read_text(encoding="utf-8")) or {}
    config: dict[str, Any] = stack.get("config") or {}
    texts: dict[Path, str] = {}
    members = tuple(fleet.member(number) for number in range(1, count + 1))
    ours = set(fleet.made())
    for member, own in zip(members, own_settings(fleet, base, members), strict=True):
        if member.spec.exists() and member not in ours:
            raise LabError(
                f"{member.spec.name} is there already and was not written by a fleet",
                remedy="rename that lab, or give the fleet's spec another name",
            )
        text = member_text(fleet.spec, config, own)
        parse_spec(member.lab, yaml.safe_load(text)["config"], member.spec.name, known_parts())
        texts[member.spec] = text
    for path, text in texts.items():
        fs.write(path, text)
    return members


def own_settings(fleet: Fleet, base: LabSpec, members: Iterable[LabPaths]) -> list[dict[str, str]]:
    """Return what each member has in place of the fleet's settings.

    Forks have one lab network, which is in the memory of their machines; each is in a namespace of its own. Others have
    ranges one after the other, and so have members that exist since before there were forks.
    """
    members = list(members)
    apart = [not has_forks(base) or _is_apart(member, fleet.spec) for member in members]
    ranges = networks(base, len(members)) if any(apart) else [base.network] * len(members)
    found = []
    for number, (member, network, alone) in enumerate(zip(members, ranges, apart, strict=True)):
        if alone:
            keeping = base.checkpoint if _says_checkpoint(fleet) else "off"
            own = load_spec(member).network if member.state.exists() and member.spec.exists() else network
            found.append({"checkpoint": keeping, "network": str(own)})
        else:
            keeping = base.checkpoint if number == 0 else "take"
            found.append({"checkpoint": keeping, "network": str(base.network), "family": fleet.spec})
    return found


def _is_apart(member: LabPaths, family: str) -> bool:
    """Return whether a member exists that is no fork: its machines have another network."""
    return member.state.exists() and member.spec.exists() and load_spec(member).family != family


def _says_checkpoint(fleet: Fleet) -> bool:
    text = LabPaths(fleet.spec, fleet.project).spec.read_text(encoding="utf-8")
    return "lab:checkpoint" in ((yaml.safe_load(text) or {}).get("config") or {})


def chosen(fleet: Fleet, names: Iterable[str]) -> tuple[LabPaths, ...]:
    """Return the members of these names, ``s2`` or ``course-s2``, each once; raise FleetError for any other name."""
    made = {member.lab: member for member in fleet.made()}
    wanted = dict.fromkeys(name if name in made else f"{fleet.spec}-{name}" for name in names)
    if missing := [name for name in wanted if name not in made]:
        raise FleetError(
            f"the fleet of {fleet.spec!r} has no {' and no '.join(missing)}",
            remedy=f"its labs are {', '.join(made)}" if made else f"make one: ./lab fleet up {fleet.spec} --count 3",
        )
    return tuple(made[name] for name in wanted)
