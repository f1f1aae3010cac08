"""Services with their endpoints, and Ingresses with the services behind them."""

from __future__ import annotations

from collections.abc import Iterable

from hoplab.graph.look import Look
from hoplab.graph.model import DOWN, OK, Edge, Vertex, names
from hoplab.graph.of_node import Part
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS, API_ENDPOINTS6, Endpoint, Endpoint6
from hoplab.observe.facts.api_ingresses import API_INGRESSES
from hoplab.observe.facts.api_services import API_SERVICES, ApiService
from hoplab.observe.facts.routes import ROUTES
from hoplab.observe.snapshot import Snapshot


def service_id(name: object) -> str:
    return f"service/{name}"


def services(lab: Snapshot, vertices: Iterable[Vertex], look: Look) -> Part:
    """Return the services, an edge to each pod or host behind one, and the hosts outside of the nodes."""
    known = look.at(lab.api, API_SERVICES)
    endpoints: list[Endpoint | Endpoint6] = [*look.at(lab.api, API_ENDPOINTS)]
    if API_ENDPOINTS6.name in lab.api.outputs:
        endpoints += look.at(lab.api, API_ENDPOINTS6)
    ends = [vertex for vertex in vertices if vertex.kind == "node" or (vertex.kind == "pod" and vertex.state != DOWN)]
    places = {detail: vertex.id for vertex in ends for detail in vertex.details}
    ports: dict[tuple[str, str], list[Endpoint | Endpoint6]] = {}
    hosts: dict[str, list[str]] = {}
    by_name = {str(service): service for service in known}
    for endpoint in endpoints:
        name = f"{endpoint.namespace}/{endpoint.service}"
        place = places.get(str(endpoint.address))
        if name not in by_name:
            continue
        if place is None:
            place = f"host/{endpoint.address}"
            hosts.setdefault(str(endpoint.address), []).append(f"{name}, port {endpoint.port}")
        ports.setdefault((name, place), []).append(endpoint)
    edges = [
        Edge(
            "endpoint",
            service_id(name),
            place,
            ", ".join(dict.fromkeys(f"{endpoint.port}/{endpoint.protocol.lower()}" for endpoint in found)),
            OK if any(endpoint.ready for endpoint in found) else DOWN,
        )
        for (name, place), found in ports.items()
    ]
    served = {name for name, _ in ports}
    return [*(_service(service, str(service) in served) for service in known), *_hosts(lab, hosts)], edges


def _service(service: ApiService, served: bool) -> Vertex:
    ips = [str(ip) for ip in (service.cluster_ip, service.cluster_ip6) if ip]
    numbers = [str(number) for number in dict.fromkeys(port.port for port in service.ports)]
    balancers = [str(ip) for ip in (*service.balancer_ips, *service.balancer_ips6)]
    node_ports = [str(port.node_port) for port in service.ports if port.node_port]
    details = [service.namespace, service.kind, f"{ips[0]}:{','.join(numbers)}" if ips else "no ClusterIP"]
    details += ips[1:]
    details += [f"node port {', '.join(node_ports)}"] if node_ports else []
    details += [f"from outside {ip}" for ip in balancers]
    details += [] if served else ["no endpoints"]
    return Vertex(
        id=service_id(service),
        kind="service",
        label=service.name,
        details=tuple(details),
        names=names(service, *ips, *balancers, *(f"port {port}" for port in node_ports)),
        tip="" if service.external_policy != "Local" else "externalTrafficPolicy: Local",
    )


def _hosts(lab: Snapshot, served: dict[str, list[str]]) -> Iterable[Vertex]:
    """Yield hosts that are no nodes: the gateway where a node has a default route by it, and endpoints of services."""
    gateway = str(lab.setting.gateway)
    hops = (hop for node in lab.nodes for route in Look().at(node.facts, ROUTES) for hop in route.hops)
    if any(str(hop.via) == gateway for hop in hops):
        served.setdefault(gateway, [])
    for address, behind in sorted(served.items()):
        words = ["gateway"] if address == gateway else []
        words += dict.fromkeys("API server" if what.startswith("default/kubernetes,") else what for what in behind)
        yield Vertex(f"host/{address}", "host", address, tuple(words), names=names(address))


def ingresses(lab: Snapshot, look: Look) -> Part:
    """Return the Ingresses, and an edge to each service behind one."""
    vertices: list[Vertex] = []
    edges: list[Edge] = []
    if API_INGRESSES.name not in lab.api.outputs and not lab.api.unavailable:
        look.notes.append("Ingresses are not in this recording")
        return vertices, edges
    for ingress in look.at(lab.api, API_INGRESSES, quiet=True):
        here = f"ingress/{ingress}"
        hosts = [f"{'https' if host in ingress.secure_hosts else 'http'}://{host}" for host in ingress.hosts]
        vertices.append(
            Vertex(
                id=here,
                kind="ingress",
                label=ingress.name,
                details=(ingress.namespace, *dict.fromkeys(hosts)),
                names=names(ingress, *ingress.hosts),
                tip=f"class {ingress.ingress_class}" if ingress.ingress_class else "",
            )
        )
        edges += [
            Edge("backend", here, service_id(f"{ingress.namespace}/{name}"), path or "/")
            for name, path in ingress.backends
        ]
    return vertices, edges
