"""The ingress address and services of a lab on this machine's loopback, for a browser or curl: ``lab forward``.

A connection goes the way that the service offers to the world outside, from the host end of the lab network: to the
load balancer's address, else to a NodePort. What has neither is asked through a node by SSH, as only nodes know
ClusterIPs: rules of kube-proxy are on the way in any case.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from hoplab.cluster.api import connect
from hoplab.core.errors import ClusterError, LabError
from hoplab.core.paths import LabPaths
from hoplab.lab import state
from hoplab.observe.facts import Fact, T
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS, Endpoint
from hoplab.observe.facts.api_ingresses import API_INGRESSES, ApiIngress
from hoplab.observe.facts.api_nodes import API_NODES, ApiNode
from hoplab.observe.facts.api_services import API_SERVICES, ApiService, ServicePort

LOOPBACK = "127.0.0.1"
INGRESS = "ingress"  # what is asked for in place of a service
HTTP, HTTPS = 80, 443
UNPRIVILEGED = 1024  # the first port that anybody may listen on
SHIFT = 8000  # from a port below that to ours: 80 is 8080 here, 443 is 8443


@dataclass(frozen=True)
class Wanted:
    """What was asked for: ``9000:default/web:http``."""

    name: str  # "namespace/service", or "ingress"
    port: str = ""  # number or name of the service's port; "" for each of them
    local: int = 0  # 0: one is chosen

    @classmethod
    def parse(cls, text: str) -> Wanted:
        """
        >>> Wanted.parse("9000:web:http")
        Wanted(name='default/web', port='http', local=9000)
        """
        found = re.fullmatch(r"(?:(\d{1,5}):)?([a-z0-9-]+(?:/[a-z0-9-]+)?)(?::([a-z0-9-]+))?", text)
        if not found or int(found[1] or 1) not in range(1, 2**16) or found[2].isdigit():
            raise LabError(
                f"{text!r} can't be forwarded",
                remedy="name a service as NAMESPACE/SERVICE, with [LOCAL:] before or [:PORT] after it, or `ingress`",
            )
        name = found[2] if found[2] == INGRESS or "/" in found[2] else f"default/{found[2]}"
        return cls(name, found[3] or "", int(found[1] or 0))


@dataclass(frozen=True)
class Way:
    """Where a connection goes."""

    address: IPv4Address
    port: int
    node: str = ""  # who makes it, by SSH; "" for the host end of the lab network

    def __str__(self) -> str:
        return f"{self.address}:{self.port}{f' from {self.node}' if self.node else ''}"


@dataclass(frozen=True)
class Forward:
    """One port here and what it leads to."""

    local: int
    what: str
    way: Way
    hosts: tuple[str, ...] = ()  # names that the far end knows
    secure: bool = False

    def url(self, host: str = LOOPBACK) -> str:
        return f"http{'s' if self.secure else ''}://{host}:{self.local}"


@dataclass(frozen=True)
class Seen:
    """What is known of the cluster."""

    network: IPv4Network
    nodes: tuple[ApiNode, ...]
    services: tuple[ApiService, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    ingresses: tuple[ApiIngress, ...] = ()


def look(paths: LabPaths) -> Seen:
    """Return what the lab's API has on services and the way to them."""
    lab = state.load(paths)
    with connect(paths, lab.netns) as api:

        def ask(fact: Fact[T]) -> T:
            return fact.parse(json.dumps(api.read(fact.command)))

        return Seen(
            network=state.built_setting(lab, paths).network,
            nodes=ask(API_NODES),
            services=ask(API_SERVICES),
            endpoints=ask(API_ENDPOINTS),
            ingresses=ask(API_INGRESSES),
        )


def plan(wanted: Iterable[Wanted], seen: Seen) -> tuple[Forward, ...]:
    """Return a forward for every port that is wanted; LabError for what can't be forwarded."""
    found: list[Forward] = []
    for target in wanted:
        ways = _ingress_ways(target, seen) if target.name == INGRESS else _service_ways(target, seen)
        if target.local and len(ways) > 1:
            ports = ", ".join(
                str(way.way.port) if target.name == INGRESS else way.what.rpartition(":")[2] for way in ways
            )
            raise LabError(
                f"{target.name} has several ports, and {target.local} is one", remedy=f"name one of them: {ports}"
            )
        for way in ways:
            taken = {forward.local for forward in found}
            local = target.local or next(port for port in range(way.local, 2**16) if port not in taken)
            if local in taken:
                raise LabError(f"port {local} is asked for twice", remedy="give each its own: LOCAL:NAMESPACE/SERVICE")
            found.append(Forward(local, way.what, way.way, way.hosts, way.secure))
    return tuple(found)


def local_port(port: int) -> int:
    """
    >>> local_port(80), local_port(443), local_port(9153)
    (8080, 8443, 9153)
    """
    return port if port >= UNPRIVILEGED else port + SHIFT


def ingress_address(ingresses: Iterable[ApiIngress]) -> IPv4Address:
    """Return where the ingress controller answers, from the status that it writes into Ingresses."""
    known = tuple(ingresses)
    addresses = [address for ingress in known for address in ingress.addresses]
    if not known:
        raise ClusterError("there is no Ingress", remedy="the course's two apps have one: ./lab verify makes them")
    if not addresses:
        raise ClusterError(
            "no Ingress has an address: nobody serves them",
            remedy="an ingress controller does: lab:ingress.controller in the lab's spec, then ./lab up",
        )
    return addresses[0]


def _ingress_ways(wanted: Wanted, seen: Seen) -> list[Forward]:
    address = ingress_address(seen.ingresses)
    served = [ingress for ingress in seen.ingresses if address in ingress.addresses]
    plain = tuple(dict.fromkeys(host for ingress in served for host in ingress.hosts))
    secure = tuple(dict.fromkeys(host for ingress in served for host in ingress.secure_hosts))
    ways = [Forward(local_port(HTTP), INGRESS, Way(address, HTTP), plain)]
    if secure:
        ways.append(Forward(local_port(HTTPS), INGRESS, Way(address, HTTPS), secure, secure=True))
    known = {"": ways, "http": ways[:1], str(HTTP): ways[:1], "https": ways[1:], str(HTTPS): ways[1:]}
    if not known.get(wanted.port):
        there = " and ".join(str(way.way.port) for way in ways)
        raise LabError(f"the ingress address has no port {wanted.port}", remedy=f"it has {there}")
    return known[wanted.port]


def _service_ways(wanted: Wanted, seen: Seen) -> list[Forward]:
    service = next((found for found in seen.services if str(found) == wanted.name), None)
    if service is None:
        names = [str(known) for known in seen.services]
        near = difflib.get_close_matches(wanted.name, names, n=1)
        there = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise LabError(f"there is no service {wanted.name}", remedy=there)
    ports = [port for port in service.ports if wanted.port in ("", port.name, str(port.port))]
    if not ports:
        there = ", ".join(str(port.port) for port in service.ports)
        raise LabError(f"{service} has no port {wanted.port}", remedy=f"it has {there}")
    tcp = [port for port in ports if port.protocol == "TCP"]
    if not tcp:
        raise LabError(f"{service} speaks {ports[0].protocol} there", remedy="only TCP can be forwarded")
    return [
        Forward(local_port(port.port), f"{service}:{port.port}", _way(service, port, seen), secure=port.port == HTTPS)
        for port in tcp
    ]


def _way(service: ApiService, port: ServicePort, seen: Seen) -> Way:
    """Return the way from the host end of the lab network, or through a node where there is none."""
    behind = [
        endpoint
        for endpoint in seen.endpoints
        if (endpoint.namespace, endpoint.service, endpoint.port_name) == (service.namespace, service.name, port.name)
        and endpoint.ready
    ]
    if not behind:
        raise ClusterError(
            f"no pod behind {service}:{port.port} is ready",
            remedy=f"see ./lab kubectl -n {service.namespace} get endpointslices,pods",
        )
    for address in service.balancer_ips:
        if address in seen.network:  # others lead nowhere from here
            return Way(address, port.port)
    homes = {endpoint.node for endpoint in behind}
    ready = [node for node in seen.nodes if node.ready and node.address]
    if port.node_port:
        local = service.external_policy == "Local"
        for node in ready:
            if node.address and (not local or node.name in homes):
                return Way(node.address, port.node_port)
    if not ready:
        raise ClusterError("no node is Ready", remedy="see ./lab status")
    if service.cluster_ip is None:  # headless: its pods are all there is
        return Way(behind[0].address, behind[0].port, behind[0].node)
    return Way(service.cluster_ip, port.port, ready[0].name)


def described(forwards: Iterable[Forward], ca: Path | None = None) -> list[str]:
    """Return the lines to print: where forwards lead, and how a browser reaches a host of the ingress.

    >>> described([Forward(8080, "ingress", Way(IPv4Address("192.168.77.20"), 80), ("app1.yash.com",))])[1:]
    ['/etc/hosts  127.0.0.1 app1.yash.com', \
'curl        curl --resolve app1.yash.com:8080:127.0.0.1 http://app1.yash.com:8080/']
    """
    known = tuple(forwards)
    lines = [f"{forward.url()}  {forward.what} ({forward.way})" for forward in known]
    names = dict.fromkeys(host for forward in known for host in forward.hosts if "*" not in host)
    if names:
        lines.append(f"/etc/hosts  {LOOPBACK} {' '.join(names)}")
    for forward in known:
        if host := next((host for host in forward.hosts if "*" not in host), ""):
            trusted = f" --cacert {ca}" if forward.secure and ca else ""
            lines.append(f"curl        curl{trusted} --resolve {host}:{forward.local}:{LOOPBACK} {forward.url(host)}/")
    return lines
