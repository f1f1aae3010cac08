"""The ingress address and services of a lab on this machine's loopback, for a browser or curl: ``lab forward``.

A connection goes the way that the service offers to the world outside, from the host end of the lab network: to the
load balancer's address, else to a NodePort. A service with neither is reached through a node by SSH, because only
nodes have rules for ClusterIPs. kube-proxy's rules apply in each of these cases.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from hoplab.cluster.api import connect
from hoplab.core.errors import ClusterError, LabError
from hoplab.core.paths import LabPaths
from hoplab.lab import state
from hoplab.lab.api_facts import read_fact
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS, Endpoint
from hoplab.observe.facts.api_ingresses import API_INGRESSES, ApiIngress
from hoplab.observe.facts.api_nodes import API_NODES, ApiNode
from hoplab.observe.facts.api_services import API_SERVICES, ApiService, ServicePort

LOOPBACK = "127.0.0.1"
INGRESS = "ingress"  # the name that stands for the ingress address in place of a service
HTTP, HTTPS = 80, 443
UNPRIVILEGED = 1024  # the first port that needs no privilege
SHIFT = 8000  # added to a privileged port: 80 is 8080 here, 443 is 8443


@dataclass(frozen=True)
class Wanted:
    """A requested forward: ``9000:default/web:http``."""

    name: str  # "namespace/service", or "ingress"
    port: str = ""  # number or name of the service's port; "" for each of them
    local: int = 0  # 0: a free one is taken

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
class Destination:
    """The address and port that a connection goes to, and the node that opens it."""

    address: IPv4Address
    port: int
    node: str = ""  # connects from there, by SSH; "" for the host end of the lab network

    def __str__(self) -> str:
        return f"{self.address}:{self.port}{f' from {self.node}' if self.node else ''}"


@dataclass(frozen=True)
class Forward:
    """One local port and its destination."""

    local: int
    what: str
    destination: Destination
    hosts: tuple[str, ...] = ()  # host names that the ingress controller serves
    secure: bool = False

    def url(self, host: str = LOOPBACK) -> str:
        return f"http{'s' if self.secure else ''}://{host}:{self.local}"


@dataclass(frozen=True)
class ClusterView:
    """The objects of the cluster that forwards are planned from."""

    network: IPv4Network
    nodes: tuple[ApiNode, ...]
    services: tuple[ApiService, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    ingresses: tuple[ApiIngress, ...] = ()


def look(paths: LabPaths) -> ClusterView:
    """Return the nodes, services, endpoints and Ingresses of the lab's API."""
    lab = state.load(paths)
    with connect(paths, lab.netns) as api:
        return ClusterView(
            network=state.built_setting(lab, paths).network,
            nodes=read_fact(api, API_NODES),
            services=read_fact(api, API_SERVICES),
            endpoints=read_fact(api, API_ENDPOINTS),
            ingresses=read_fact(api, API_INGRESSES),
        )


def plan(wanted: Iterable[Wanted], cluster: ClusterView) -> tuple[Forward, ...]:
    """Return a forward for every requested port; raise LabError for one that can't be forwarded."""
    found: list[Forward] = []
    for target in wanted:
        forwards = _ingress_forwards(target, cluster) if target.name == INGRESS else _service_forwards(target, cluster)
        if target.local and len(forwards) > 1:
            ports = ", ".join(
                str(forward.destination.port) if target.name == INGRESS else forward.what.rpartition(":")[2]
                for forward in forwards
            )
            raise LabError(
                f"{target.name} has several ports, and {target.local} is one",
                remedy=f"name one of them: {ports}",
            )
        for forward in forwards:
            taken = {earlier.local for earlier in found}
            local = target.local or next(port for port in range(forward.local, 2**16) if port not in taken)
            if local in taken:
                raise LabError(f"port {local} is requested twice", remedy="give each its own: LOCAL:NAMESPACE/SERVICE")
            found.append(replace(forward, local=local))
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
            "no Ingress has an address: no ingress controller serves them",
            remedy="set lab:ingress.controller in the lab's spec, then ./lab up",
        )
    return addresses[0]


def _ingress_forwards(wanted: Wanted, cluster: ClusterView) -> list[Forward]:
    address = ingress_address(cluster.ingresses)
    served = [ingress for ingress in cluster.ingresses if address in ingress.addresses]
    plain = tuple(dict.fromkeys(host for ingress in served for host in ingress.hosts))
    secure = tuple(dict.fromkeys(host for ingress in served for host in ingress.secure_hosts))
    forwards = [Forward(local_port(HTTP), INGRESS, Destination(address, HTTP), plain)]
    if secure:
        forwards.append(Forward(local_port(HTTPS), INGRESS, Destination(address, HTTPS), secure, secure=True))
    known = {
        "": forwards,
        "http": forwards[:1],
        str(HTTP): forwards[:1],
        "https": forwards[1:],
        str(HTTPS): forwards[1:],
    }
    if not known.get(wanted.port):
        there = " and ".join(str(forward.destination.port) for forward in forwards)
        raise LabError(f"the ingress address has no port {wanted.port}", remedy=f"it has {there}")
    return known[wanted.port]


def _service_forwards(wanted: Wanted, cluster: ClusterView) -> list[Forward]:
    service = next((found for found in cluster.services if str(found) == wanted.name), None)
    if service is None:
        names = [str(known) for known in cluster.services]
        near = difflib.get_close_matches(wanted.name, names, n=1)
        there = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise LabError(f"there is no service {wanted.name}", remedy=there)
    ports = [port for port in service.ports if wanted.port in ("", port.name, str(port.port))]
    if not ports:
        there = ", ".join(str(port.port) for port in service.ports)
        raise LabError(f"{service} has no port {wanted.port}", remedy=f"it has {there}")
    tcp = [port for port in ports if port.protocol == "TCP"]
    if not tcp:
        raise LabError(f"{service} uses {ports[0].protocol} on that port", remedy="only TCP can be forwarded")
    return [
        Forward(
            local_port(port.port),
            f"{service}:{port.port}",
            _destination(service, port, cluster),
            secure=port.port == HTTPS,
        )
        for port in tcp
    ]


def _destination(service: ApiService, port: ServicePort, cluster: ClusterView) -> Destination:
    """Return the destination seen from the host end of the lab network, else one that a node connects to."""
    behind = [
        endpoint
        for endpoint in cluster.endpoints
        if (endpoint.namespace, endpoint.service, endpoint.port_name) == (service.namespace, service.name, port.name)
        and endpoint.ready
    ]
    if not behind:
        raise ClusterError(
            f"no pod behind {service}:{port.port} is ready",
            remedy=f"see ./lab kubectl -n {service.namespace} get endpointslices,pods",
        )
    for address in service.balancer_ips:
        if address in cluster.network:  # no route leads to others from here
            return Destination(address, port.port)
    homes = {endpoint.node for endpoint in behind}
    ready = [node for node in cluster.nodes if node.ready and node.address]
    if port.node_port:
        local = service.external_policy == "Local"
        for node in ready:
            if node.address and (not local or node.name in homes):
                return Destination(node.address, port.node_port)
    if not ready:
        raise ClusterError("no node is Ready", remedy="see ./lab status")
    if service.cluster_ip is None:  # headless: there are only its pods
        return Destination(behind[0].address, behind[0].port, behind[0].node)
    return Destination(service.cluster_ip, port.port, ready[0].name)


def described(forwards: Iterable[Forward], ca: Path | None = None) -> list[str]:
    """Return the lines to print: where forwards lead, and how a browser reaches a host of the ingress.

    >>> described([Forward(8080, "ingress", Way(IPv4Address("192.168.77.20"), 80), ("app1.yash.com",))])[1:]
    ['/etc/hosts  127.0.0.1 app1.yash.com', \
'curl        curl --resolve app1.yash.com:8080:127.0.0.1 http://app1.yash.com:8080/']
    """
    known = tuple(forwards)
    lines = [f"{forward.url()}  {forward.what} ({forward.destination})" for forward in known]
    names = dict.fromkeys(host for forward in known for host in forward.hosts if "*" not in host)
    if names:
        lines.append(f"/etc/hosts  {LOOPBACK} {' '.join(names)}")
    for forward in known:
        if host := next((host for host in forward.hosts if "*" not in host), ""):
            trusted = f" --cacert {shlex.quote(str(ca))}" if forward.secure and ca else ""
            lines.append(f"curl        curl{trusted} --resolve {host}:{forward.local}:{LOOPBACK} {forward.url(host)}/")
    return lines
