"""The topology of a lab as vertices and edges.

A vertex has a parent, the node that it is on, and knows the names by which a failed claim may call it. What is expected
and was not seen (a route to another node's pods, the other direction of a tunnel) is there too, with the state
``MISSING``: a picture can show a gap only where the graph has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

State = Literal["ok", "down", "missing"]
OK: Final = "ok"
DOWN: Final = "down"
MISSING: Final = "missing"
Kind = Literal[
    "node", "pod", "host_pod", "veth", "bridge", "routing", "route", "device", "network", "host", "service", "ingress"
]
EdgeKind = Literal[
    "pair",  # pod to veth: two ends of one pair
    "port",  # veth to bridge
    "routed",  # veth or bridge to the routing of its node: a route leads there, or the program of the label takes it
    "leads",  # route to the device by which packets leave
    "over",  # device to the device below it
    "link",  # device, or the host, to the lab network
    "tunnel",  # device to device of another node
    "bgp",  # routing to routing of another node: a session
    "endpoint",  # service to pod
    "backend",  # ingress to service
]


@dataclass(frozen=True)
class Vertex:
    """A thing of the topology."""

    id: str  # unique in the graph: "worker1/veth25cba742", "pod/hoplab-verify/echo-w8kjg"
    kind: Kind
    label: str
    details: tuple[str, ...] = ()  # shorter texts of the same thing: addresses, ports
    parent: str = ""  # id of its node
    state: State = OK
    names: frozenset[str] = frozenset()  # words by which a claim may call it
    tip: str = ""  # what is worth knowing and too long to be drawn
    to: str = ""  # of a route: the name of the node that it leads to
    failures: tuple[int, ...] = ()  # numbers of the failed claims, from 1


@dataclass(frozen=True)
class Edge:
    """A connection between two things."""

    kind: EdgeKind
    source: str
    target: str
    label: str = ""
    state: State = OK
    names: frozenset[str] = frozenset()
    failures: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.kind} {self.source} {self.target}"


@dataclass(frozen=True)
class Failure:
    """A failed claim that no other failed claim explains."""

    why: str  # "worker1 has no route 10.244.0.0/24 via 10.244.0.0 dev flannel.1 onlink"
    claim: str = ""  # the sentence
    consequences: int = 0  # claims that fail because of it
    shows: str = ""  # the command that shows it


@dataclass(frozen=True)
class Graph:
    """The topology of a lab, or a part of it."""

    title: str  # "lab dev"
    about: tuple[str, ...]  # "flannel vxlan", "kube-proxy iptables", "2 nodes", ...
    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]
    notes: tuple[str, ...] = ()  # what could not be looked at
    failures: tuple[Failure, ...] = ()
    held: int | None = None  # the number of claims that hold; None where none were checked
    steps: tuple[str, ...] = ()  # of a path: what happens at each hop
    of: str = "all"  # the part that is shown
    more: Mapping[str, str] = field(default_factory=dict)  # words for the legend, by kind of edge

    @cached_property
    def by_id(self) -> Mapping[str, Vertex]:
        return {vertex.id: vertex for vertex in self.vertices}

    def of_kind(self, *kinds: Kind, parent: str | None = None) -> tuple[Vertex, ...]:
        """Return the vertices of these kinds, of one node if it is given, in the graph's order."""
        return tuple(
            vertex for vertex in self.vertices if vertex.kind in kinds and (parent is None or vertex.parent == parent)
        )

    def edges_of(self, *kinds: EdgeKind) -> tuple[Edge, ...]:
        return tuple(edge for edge in self.edges if edge.kind in kinds)

    def document(self) -> dict[str, Any]:
        """Return the object that ``lab graph --format json`` prints."""
        return {
            "title": self.title,
            "of": self.of,
            "about": list(self.about),
            "vertices": [_plain(vertex) for vertex in self.vertices],
            "edges": [{"id": edge.id, **_plain(edge)} for edge in self.edges],
            "steps": list(self.steps),
            "failures": [asdict(failure) for failure in self.failures],
            "claims_held": self.held,
            "notes": list(self.notes),
        }


def _plain(record: Vertex | Edge) -> dict[str, Any]:
    """Return a record without what is empty and what only the search for failures needs."""
    found = {name: value for name, value in asdict(record).items() if name != "names" and value not in ("", ())}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def names(*words: object) -> frozenset[str]:
    """Return the texts of what is not None and not empty."""
    return frozenset(str(word) for word in words if word not in (None, ""))


def unique(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    """Return each edge once, by its id; the first one stays."""
    found: dict[str, Edge] = {}
    for edge in edges:
        found.setdefault(edge.id, edge)
    return tuple(found.values())
