"""Outages that the facts of a snapshot show: units that do not run, and full disks; pure.

They are no gaps of the snapshot. The node is looked at, but what it runs may be out of date.

A cluster that hoplab did not make may run its pods without these units (k3s has them in one of its own), close the
kubelet's health check, or have full disks of which pods and kubelet have nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from hoplab.observe.facts import Facts
from hoplab.observe.facts.api_nodes import API_NODES, ApiNode
from hoplab.observe.facts.disks import DISKS, Disk, Usage
from hoplab.observe.facts.units import NODE_UNITS, Unit
from hoplab.observe.outage import Outage, in_order
from hoplab.observe.snapshot import Snapshot

MIB = 1024  # KiB
USED = ("/var/lib/kubelet", "/var/lib/containerd", "/var/lib/etcd", "/var/log/pods")  # folders of kubelet and pods


def outages(lab: Snapshot) -> tuple[Outage, ...]:
    """Return what could not be looked at, and what the facts of nodes show; recordings may be older than these."""
    shown = (outage for name, facts in lab.node_facts.items() for outage in _of_node(lab, name, facts))
    return in_order((*lab.outages, *shown), lab.setting.nodes)


def _of_node(lab: Snapshot, name: str, facts: Facts) -> Iterator[Outage]:
    foreign = lab.setting.foreign
    login = f"{'ssh' if foreign else './lab ssh'} {name}"
    if _present(facts, DISKS.name):
        for disk in _in_use(facts[DISKS]) if foreign else facts[DISKS]:
            if disk.full:
                yield _of_disk(name, disk, login)
    if _present(facts, NODE_UNITS.name):
        for unit in facts[NODE_UNITS]:
            if not (unit.runs and unit.answers) and not (foreign and _is_elsewhere(lab, name, unit)):
                yield _of_unit(name, unit, login)


def _in_use(disks: Sequence[Disk]) -> list[Disk]:
    """Return the disks that hold the folders of kubelet and pods."""
    found: dict[str, Disk] = {}
    for path in map(PurePosixPath, USED):
        above = [disk for disk in disks if path.is_relative_to(disk.mount)]
        if above:
            last = max(above, key=lambda disk: len(disk.mount))
            found[last.mount] = last
    return list(found.values())


def _is_elsewhere(lab: Snapshot, node: str, unit: Unit) -> bool:
    """Return whether a unit that does not run or answer is no outage: it never ran, or the API says Ready."""
    if not unit.runs:
        return unit.state in ("", "inactive", "unknown") and not unit.last_words
    return any(known.name == node and known.ready for known in _known_nodes(lab))


def _known_nodes(lab: Snapshot) -> tuple[ApiNode, ...]:
    return lab.api[API_NODES] if _present(lab.api, API_NODES.name) else ()


def _present(facts: Facts, fact: str) -> bool:
    output = facts.outputs.get(fact)
    return output is not None and output.code == 0


def _of_unit(node: str, unit: Unit, login: str) -> Outage:
    stuck = f"{unit.name} of {node} stands still: it is active, but its health check says `{unit.health}`"
    last = (f"the last lines of its journal on {node}:", *unit.last_words) if unit.last_words else ()
    return Outage(
        f"{unit.name} of {node}",
        stuck if unit.runs else f"{unit.name} of {node} does not run: it is {unit.state or 'in no known state'}",
        last,
        f"{login} systemctl status {unit.name}",
    )


def _of_disk(node: str, disk: Disk, login: str) -> Outage:
    space, inodes = disk.space, disk.inodes
    lacks = "inodes" if inodes.share > space.share else "space"
    return Outage(
        f"disk {disk.mount} of {node}",
        f"the disk of {node} at {disk.mount} has no {lacks} left: {_percent(inodes if lacks == 'inodes' else space)}",
        (
            f"{disk.device} on {disk.mount}: {space.used // MIB} of {(space.used + space.free) // MIB} MiB used, "
            f"{inodes.used} of {inodes.used + inodes.free} inodes",
        ),
        f"{login} sudo du -xh --max-depth 3 {disk.mount}",
    )


def _percent(usage: Usage) -> str:
    return f"{usage.share:.0%} are used"
