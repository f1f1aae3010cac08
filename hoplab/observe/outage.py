"""What could not be looked at, or does not run, and why: part of a snapshot; pure.

A claim that depends on a place with an outage is not checked. It is neither failed nor passed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

API, ETCD, WORKLOAD = "api", "etcd", "workload"  # places that are no node
MEANWHILE = "during the run"  # the place of an outage that a lesson met


@dataclass(frozen=True)
class Outage:
    """One part of a lab that could not be looked at, or that does not run."""

    place: str  # "worker2", "api", "etcd", "workload", "kubelet of worker2", "disk of worker2"
    problem: str  # "worker2 can't be reached over SSH: Connection refused"
    evidence: tuple[str, ...] = ()
    remedy: str = ""


def in_order(outages: Iterable[Outage], nodes: Iterable[str]) -> tuple[Outage, ...]:
    """Return one outage for each place: the nodes' first, then the control plane's, then what runs on both."""
    order = {place: number for number, place in enumerate((*nodes, ETCD, API))}
    found: dict[str, Outage] = {}
    for outage in outages:
        found.setdefault(outage.place, outage)
    return tuple(
        sorted(found.values(), key=lambda outage: (outage.place == WORKLOAD, order.get(outage.place, len(order))))
    )
