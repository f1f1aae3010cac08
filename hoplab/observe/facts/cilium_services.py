"""Services in Cilium's maps, which its programs look up: ``cilium-dbg bpf lb list -o json``.

A frontend (address, port, protocol) has a slot 0, which says of what kind it is, and a slot for each backend:

    "10.96.0.10:53/UDP (0)": ["0.0.0.0:0 (3) (0) [ClusterIP, non-routable] "]
    "10.96.0.10:53/UDP (1)": ["10.244.1.2:53/UDP (3) (1)"]
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hoplab.core.ip import IPAddress, with_port
from hoplab.observe.facts import Fact
from hoplab.observe.facts._cilium import address, in_agent, listed, matched


@dataclass(frozen=True)
class Backend:
    """One slot of a frontend: where the program that drew its number sends."""

    slot: int
    address: IPAddress | None  # None: the map of backends has no such entry
    port: int = 0

    @property
    def to(self) -> str:
        return with_port(self.address, self.port) if self.address else "nowhere"

    def __str__(self) -> str:
        return f"slot {self.slot}: {self.to}"


@dataclass(frozen=True)
class Frontend:
    """An entry of the map of services, with its backends."""

    address: IPAddress
    port: int
    protocol: str  # "udp"
    internal: bool  # only for clients inside the cluster, where those outside have other backends
    kind: str  # "ClusterIP", "NodePort", "LoadBalancer", ...; "" without a slot 0, so that no program finds it
    flags: tuple[str, ...]  # "non-routable", "sessionAffinity", ...
    backends: tuple[Backend, ...]

    @property
    def where(self) -> str:
        return f"{with_port(self.address, self.port)}/{self.protocol}"

    def __str__(self) -> str:
        return f"{self.where} {self.kind}: {', '.join(backend.to for backend in self.backends) or 'no backend'}"


_KEY = re.compile(r"(?P<at>\S+):(?P<port>\d+)/(?P<protocol>\w+)(?P<internal>/i)? \((?P<slot>\d+)\)")
_MASTER = re.compile(r"\S+ \(\d+\) \(0\) \[(?P<flags>[^]]*)\].*")
_BACKEND = re.compile(r"(?P<at>\S+):(?P<port>\d+)/\w+ \(\d+\) \((?P<slot>\d+)\)")
_GONE = re.compile(r"backend \d+ not found")


def parse(text: str) -> tuple[Frontend, ...]:
    """Return the frontends, sorted as text."""
    flags: dict[tuple[str, str, str, bool], tuple[str, ...]] = {}
    backends: dict[tuple[str, str, str, bool], list[Backend]] = {}
    for key, values in listed(text, "services").items():
        found = matched(_KEY, key, "services")
        frontend = (found["at"], found["port"], found["protocol"], bool(found["internal"]))
        behind = backends.setdefault(frontend, [])
        for value in values:
            if int(found["slot"]) == 0:
                flags[frontend] = tuple(matched(_MASTER, value, key)["flags"].split(", "))
            elif _GONE.fullmatch(value):
                behind.append(Backend(int(found["slot"]), None))
            else:
                to = matched(_BACKEND, value, key)
                behind.append(Backend(int(to["slot"]), address(to["at"], key), int(to["port"])))
    return tuple(
        Frontend(
            address(at, "services"),
            int(port),
            protocol.lower(),
            internal,
            kind=next(iter(flags.get((at, port, protocol, internal), ())), ""),
            flags=flags.get((at, port, protocol, internal), ())[1:],
            backends=tuple(sorted(found, key=lambda backend: backend.slot)),
        )
        for (at, port, protocol, internal), found in sorted(backends.items())
    )


CILIUM_SERVICES = Fact("cilium_services", in_agent("cilium-dbg bpf lb list -o json"), parse)
