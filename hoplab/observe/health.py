"""Outages that the facts of a snapshot show: units that do not run, and full disks; pure.

They are no gaps of the snapshot. The node is looked at, but what it runs may be out of date.
"""

from __future__ import annotations

from collections.abc import Iterator

from hoplab.observe.facts import Facts
from hoplab.observe.facts.disks import DISKS, Disk, Usage
from hoplab.observe.facts.units import NODE_UNITS, Unit
from hoplab.observe.outage import Outage, in_order
from hoplab.observe.snapshot import Snapshot

MIB = 1024  # KiB


def outages(lab: Snapshot) -> tuple[Outage, ...]:
    """Return what could not be looked at, and what the facts of nodes show; recordings may be older than these."""
    shown = (outage for name, facts in lab.node_facts.items() for outage in _of_node(name, facts))
    return in_order((*lab.outages, *shown), lab.setting.nodes)


def _of_node(name: str, facts: Facts) -> Iterator[Outage]:
    if _present(facts, DISKS.name):
        yield from (_of_disk(name, disk) for disk in facts[DISKS] if disk.full)
    if _present(facts, NODE_UNITS.name):
        yield from (_of_unit(name, unit) for unit in facts[NODE_UNITS] if not (unit.runs and unit.answers))


def _present(facts: Facts, fact: str) -> bool:
    output = facts.outputs.get(fact)
    return output is not None and output.code == 0


def _of_unit(node: str, unit: Unit) -> Outage:
    stuck = f"{unit.name} of {node} stands still: it is active, but its health check says `{unit.health}`"
    last = (f"the last lines of its journal on {node}:", *unit.last_words) if unit.last_words else ()
    return Outage(
        f"{unit.name} of {node}",
        stuck if unit.runs else f"{unit.name} of {node} does not run: it is {unit.state or 'in no known state'}",
        last,
        f"./lab ssh {node} systemctl status {unit.name}",
    )


def _of_disk(node: str, disk: Disk) -> Outage:
    space, inodes = disk.space, disk.inodes
    lacks = "inodes" if inodes.share > space.share else "space"
    return Outage(
        f"disk {disk.mount} of {node}",
        f"the disk of {node} at {disk.mount} has no {lacks} left: {_percent(inodes if lacks == 'inodes' else space)}",
        (
            f"{disk.device} on {disk.mount}: {space.used // MIB} of {(space.used + space.free) // MIB} MiB used, "
            f"{inodes.used} of {inodes.used + inodes.free} inodes",
        ),
        f"./lab ssh {node} sudo du -xh --max-depth 3 {disk.mount}",
    )


def _percent(usage: Usage) -> str:
    return f"{usage.share:.0%} are used"
