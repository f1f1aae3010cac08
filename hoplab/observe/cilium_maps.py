"""What Cilium's programs on a node find in its maps: pods, whose an address is, services, and who may send; pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address

from hoplab.core.ip import IPAddress
from hoplab.observe.facts import Facts
from hoplab.observe.facts.bpf_programs import BPF_PROGRAMS, Program
from hoplab.observe.facts.cilium_endpoints import CILIUM_ENDPOINTS, Endpoint
from hoplab.observe.facts.cilium_ipcache import CILIUM_IPCACHE, Owner
from hoplab.observe.facts.cilium_policy import CILIUM_POLICY, EVERYBODY, Entry
from hoplab.observe.facts.cilium_services import CILIUM_SERVICES, Frontend

HOST, WORLD, REMOTE_NODE = 1, 2, 6  # reserved identities
NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132}  # of protocols
SERVED = frozenset({"tcp", "udp", "sctp"})  # protocols of services

# Identities of many, which policy maps have beside single ones: pkg/policy/aggregate.go
_CLUSTER, _WORLD, _REMOTE_NODES = 11, 13, 14
_FIRST_AGGREGATED = 100
_SCOPES = {1: _WORLD, 2: _REMOTE_NODES}  # by the highest byte of an identity that only its node knows


@dataclass(frozen=True)
class CiliumMaps:
    """The programs at the interfaces of one node, and their maps; none of both where a node has no Cilium."""

    facts: Facts

    @cached_property
    def programs(self) -> dict[tuple[str, str], Program]:
        """Return the programs by interface and direction; empty where they were not recorded."""
        found = self.facts[BPF_PROGRAMS] if BPF_PROGRAMS.name in self.facts.outputs else ()
        return {(program.dev, program.direction): program for program in found}

    def program(self, dev: str, direction: str) -> Program | None:
        """Return the program at an interface: at its "ingress", what comes out of it, or its "egress"."""
        return self.programs.get((dev, direction))

    def endpoint(self, address: IPAddress) -> Endpoint | None:
        """Return whose an address is on this node: a pod's, or with the number 0 the node's own."""
        return next((found for found in self.facts[CILIUM_ENDPOINTS] if found.address == address), None)

    def pods(self) -> tuple[Endpoint, ...]:
        return tuple(found for found in self.facts[CILIUM_ENDPOINTS] if found.id)

    def owner(self, address: IPAddress) -> Owner | None:
        """Return the entry of the smallest range that an address is in."""
        found = (owner for owner in self.facts[CILIUM_IPCACHE] if address in owner.range)
        return max(found, key=lambda owner: owner.range.prefixlen, default=None)

    def identity(self, address: IPAddress) -> int:
        owner = self.owner(address)
        return owner.identity if owner else WORLD

    def frontend(self, address: IPAddress, port: int, protocol: str, *, inside: bool) -> Frontend | None:
        """Return the service of an address and a port, as clients inside or outside of the cluster have it."""
        found = [
            frontend
            for frontend in self.facts[CILIUM_SERVICES]
            if (frontend.address, frontend.port, frontend.protocol) == (address, port, protocol) and frontend.kind
        ]
        other = [frontend for frontend in found if frontend.internal and inside and frontend.backends]
        return next((frontend for frontend in (*other, *found) if inside or not frontend.internal), None)

    def node_port(self, address: IPAddress, port: int, protocol: str) -> Frontend | None:
        """Return the service of a port that all nodes have, where the address is a node's."""
        if self.identity(address) not in (HOST, REMOTE_NODE):
            return None
        found = self.frontend(ip_address("0.0.0.0" if address.version == 4 else "::"), port, protocol, inside=True)
        return found if found and found.kind == "NodePort" else None

    def serves(self, address: IPAddress) -> bool:
        """Return whether it is an address of a service."""
        return any(frontend.address == address and frontend.kind for frontend in self.facts[CILIUM_SERVICES])

    def deciding(self, pod: Endpoint, identity: int, protocol: str, port: int, *, egress: bool) -> Entry | None:
        """Return the entry of a pod's policy map for a packet to or from an identity; None: it is dropped."""
        entries = self.facts[CILIUM_POLICY].get(pod.id, ())
        fitting = [entry for entry in entries if entry.egress == egress and _is_for(entry, protocol, port)]
        of_many = _of_many(identity)
        found = [entry for entry in fitting if entry.identity in (identity, of_many)]
        found = found or [entry for entry in fitting if entry.identity == EVERYBODY]
        return max(found, key=lambda entry: (entry.deny, bool(entry.port), bool(entry.protocol)), default=None)

    def has_policy_map(self, pod: Endpoint) -> bool:
        return pod.id in self.facts[CILIUM_POLICY]


def _is_for(entry: Entry, protocol: str, port: int) -> bool:
    return entry.protocol in (0, NUMBERS.get(protocol)) and entry.port in (0, port)


def _of_many(identity: int) -> int:
    if identity < _FIRST_AGGREGATED:
        return EVERYBODY
    return _SCOPES.get(identity >> 24, _CLUSTER)
