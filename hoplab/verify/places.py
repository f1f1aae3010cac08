"""The nodes, pods and services that the sentence of a failure names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from hoplab.core.errors import LabError
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.snapshot import Snapshot

NAME = re.compile(r"\w[\w.-]*(?:/[\w.-]+)?")  # "worker1", "10.96.0.10", "hoplab-verify/echo-5jx2p"
T = TypeVar("T")


@dataclass(frozen=True)
class Named:
    """What a sentence names, each in the order of the sentence; a pod stands for its node too."""

    nodes: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()
    services: tuple[str, ...] = ()

    def may_be_of(self, other: Named) -> bool:
        """Return whether both sentences may be of one thing: of no kind do they name different things only."""
        kinds = ((self.nodes, other.nodes), (self.pods, other.pods), (self.services, other.services))
        return all(not mine or not others or set(mine) & set(others) for mine, others in kinds)


@dataclass(frozen=True)
class Places:
    """The names that sentences about a lab may have."""

    lab: str = ""
    cni: str = ""
    proxy_mode: str = ""
    nodes: frozenset[str] = frozenset()
    pods: Mapping[str, str] = field(default_factory=dict)  # "namespace/name": its node
    services: Mapping[str, str] = field(default_factory=dict)  # its name or ClusterIP: "namespace/name"
    netns: Mapping[str, str] = field(default_factory=dict)  # of a pod, on its node
    foreign: bool = False  # a cluster that hoplab did not make

    @classmethod
    def of(cls, lab: Snapshot) -> Places:
        """Return the names of a lab; those of pods and services are missing where the API did not list them."""
        services = _read(lambda: [service for service in lab.api[API_SERVICES] if service.cluster_ip])
        return cls(
            lab.setting.lab,
            lab.setting.cni,
            lab.setting.proxy_mode,
            frozenset({*lab.setting.nodes, *lab.node_facts}),
            {str(pod): pod.node for pod in _read(lambda: lab.own_address_pods)},
            {name: str(service) for service in services for name in (str(service), str(service.cluster_ip))},
            {str(pod): pod.netns for pod in _read(lambda: lab.pods)},
            lab.setting.foreign,
        )

    def named(self, text: str) -> Named:
        """Return what a sentence names."""
        words = [found.group().rstrip(".-") for found in NAME.finditer(text)]
        pods = [word for word in words if word in self.pods]
        nodes = [self.pods.get(word, word) for word in words if word in self.nodes or word in self.pods]
        services = [self.services[word] for word in words if word in self.services]
        return Named(*(tuple(dict.fromkeys(names)) for names in (nodes, pods, services)))


def _read(facts: Callable[[], Iterable[T]]) -> list[T]:
    try:
        return list(facts())
    except LabError:
        return []
