"""The two ends of a trace as the user names them: pods, nodes, services, addresses, the outside; pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from hoplab.core.errors import LabError
from hoplab.core.ip import IPAddress
from hoplab.expectations.ingress import get_controller
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS, Endpoint
from hoplab.observe.facts.api_pods import API_PODS, ApiPod
from hoplab.observe.facts.api_services import API_SERVICES, ApiService, ServicePort
from hoplab.observe.snapshot import Snapshot
from hoplab.trace.model import OUTSIDE, PORTLESS, Place

HTTP = 80
KUBELET = 10250
KINDS = {"pod": "pod", "node": "node", "svc": "service", "service": "service"}  # before a name: "pod/default/web"
VIA = ("nodeport", "ingress", "loadbalancer")
PROTOCOLS = ("tcp", "udp", "icmp")
FEW = 5  # names in an error message


@dataclass(frozen=True)
class Source:
    """The sender."""

    place: Place
    address: IPv4Address


@dataclass(frozen=True)
class Target:
    """Where the sender sends to, and where that should arrive."""

    name: str  # in words: "service hoplab-verify/echo", "pod hoplab-verify/echo-lm2p5"
    address: IPv4Address
    protocol: str
    port: int
    arrives: frozenset[Place]  # any of these
    endpoints: tuple[Endpoint, ...] = ()  # of a service
    of_service: bool = False  # its address is translated on the way
    proxied: bool = False  # an ingress controller opens another connection to an endpoint
    spread: bool = False  # every endpoint gets the same share of connections
    entry: str = ""  # the node by which it comes in, where no address says so

    def is_endpoint(self, address: IPAddress) -> bool:
        """Return whether an address is of an endpoint of the service."""
        return any(endpoint.address == address for endpoint in self.endpoints)


def source(lab: Snapshot, text: str) -> Source:
    """Return the sender of a name; raise LabError where it is none, or its namespace was not found."""
    if text == "outside":
        return Source(OUTSIDE, lab.setting.gateway)
    kind, name = _kind(text)
    if kind == "service":
        raise LabError(f"{text} is a service: it sends nothing", remedy="name a pod, a node or `outside`")
    address = _address(name)
    if address == lab.setting.gateway:
        return Source(OUTSIDE, lab.setting.gateway)
    for node in lab.cluster_nodes:
        if kind != "pod" and (node.name == name or address == node.api.address):
            if node.name in lab.lost_nodes:
                raise LabError(f"node {node.name} could not be looked at", remedy="./lab doctor, ./lab status")
            return Source(Place("node", node.name), node.address)
    pod = _pod(lab, name, address) if kind != "node" else None
    if pod is None:
        raise _unknown(lab, text, services=False)
    if pod.host_network:
        return source(lab, f"node/{pod.node}")
    if str(pod) not in {str(known) for known in lab.pods}:
        raise LabError(
            f"pod {pod} runs on {pod.node}, and no network namespace there has its address {pod.address}",
            remedy=f"`ip netns` and `ip address` on {pod.node} show what is there",
        )
    assert pod.address
    return Source(Place("pod", str(pod)), pod.address)


def target(lab: Snapshot, text: str, *, port: int | None = None, protocol: str = "", via: str = "") -> Target:
    """Return the receiver of a name; raise LabError where it is none, or has no such port."""
    kind, name = _kind(text)
    name, port = _with_port(name, port)
    address = _address(name)
    service = _service(lab, name, address, exact=kind != "service") if kind in ("", "service") else None
    if service and name != "outside":
        return _of_service(lab, service, port, protocol, via)
    if via:
        raise LabError(f"--via {via} leads to a service, and {text} is none", remedy="name a service")
    protocol = protocol or "tcp"
    if name == "outside":
        return Target("the outside", lab.setting.gateway, protocol, port or HTTP, frozenset({OUTSIDE}))
    for node in lab.cluster_nodes:
        if kind != "pod" and node.api.address and (node.name == name or address == node.api.address):
            if published := _published(lab, port, protocol):
                return _at_node(lab, *published, node.api.address)
            place = Place("node", node.name)
            return Target(str(place), node.api.address, protocol, _port(protocol, port, KUBELET), frozenset({place}))
    pod = _pod(lab, name, address) if kind != "node" else None
    if pod and pod.address:
        place = Place("node", pod.node) if pod.host_network else Place("pod", str(pod))
        usual = next((e.port for e in lab.api[API_ENDPOINTS] if e.address == pod.address), HTTP)
        return Target(f"pod {pod}", pod.address, protocol, _port(protocol, port, usual), frozenset({place}))
    if address is None:
        raise _unknown(lab, text, services=True)
    return Target(str(address), address, protocol, _port(protocol, port, HTTP), frozenset({OUTSIDE}))


def _of_service(lab: Snapshot, service: ApiService, port: int | None, protocol: str, via: str) -> Target:
    if via == "ingress":
        return _by_ingress(lab, service, port)
    chosen = _service_port(service, port, protocol)
    endpoints = _endpoints(lab, service, chosen)
    address, number, entry = service.cluster_ip, chosen.port, ""
    if via == "nodeport":
        if not chosen.node_port:
            raise LabError(
                f"service {service} is of the type {service.kind}: it has no NodePort", remedy=_others(lab, 0)
            )
        local = service.external_policy == "Local"
        nodes = [n for n in lab.nodes if not local or n.name in {endpoint.node for endpoint in endpoints}]
        address, number = (nodes or lab.nodes)[0].api.address, chosen.node_port
    elif via == "loadbalancer":
        if not service.balancer_ips:
            why = f"service {service} has no address of a load balancer"
            raise LabError(why, remedy=_others(lab, 1))
        address, entry = service.balancer_ips[0], lab.nodes[0].name
    if address is None:
        why = f"service {service} is headless: it has no ClusterIP"
        raise LabError(why, remedy="name one of its pods")
    number = 0 if protocol in PORTLESS else number
    return Target(
        name=f"service {service}",
        address=address,
        protocol=protocol or chosen.protocol.lower(),
        port=number,
        arrives=frozenset(_place(lab, endpoint.address) for endpoint in endpoints),
        endpoints=endpoints,
        of_service=True,
        spread=not service.affinity,
        entry=entry,
    )


def _endpoints(lab: Snapshot, service: ApiService, port: ServicePort) -> tuple[Endpoint, ...]:
    wanted = (str(service), port.name, port.protocol)
    return tuple(
        found
        for found in lab.api[API_ENDPOINTS]
        if (f"{found.namespace}/{found.service}", found.port_name, found.protocol) == wanted and found.ready
    )


def _published(lab: Snapshot, port: int | None, protocol: str) -> tuple[ApiService, ServicePort] | None:
    """Return the service whose NodePort it is."""
    for service in lab.api[API_SERVICES]:
        for known in service.ports:
            if port and port == known.node_port and protocol in ("", known.protocol.lower()):
                return service, known
    return None


def _at_node(lab: Snapshot, service: ApiService, port: ServicePort, address: IPv4Address) -> Target:
    endpoints = _endpoints(lab, service, port)
    return Target(
        name=f"service {service}",
        address=address,
        protocol=port.protocol.lower(),
        port=port.node_port,
        arrives=frozenset(_place(lab, endpoint.address) for endpoint in endpoints),
        endpoints=endpoints,
        of_service=True,
    )


def _by_ingress(lab: Snapshot, service: ApiService, port: int | None) -> Target:
    if lab.setting.ingress == "none":
        raise LabError(
            f"lab {lab.setting.lab} has no ingress controller", remedy="set lab:ingress.controller in its spec"
        )
    controller = get_controller(lab.setting.ingress)
    inner = _of_service(lab, service, None, "", "")
    address = lab.nodes[0].api.address
    assert address
    controllers = frozenset(
        Place("node", pod.node) if pod.host_network else Place("pod", str(pod))
        for pod in lab.api[API_PODS]
        if pod.namespace == controller.NAMESPACE and set(controller.LABELS.items()) <= set(pod.labels)
    )
    return Target(
        name=f"the ingress controller {lab.setting.ingress}",
        address=address,
        protocol="tcp",
        port=port or HTTP,
        arrives=controllers,
        endpoints=inner.endpoints,
        of_service=True,
        proxied=True,
    )


def _service_port(service: ApiService, port: int | None, protocol: str) -> ServicePort:
    """Return the port of a service; the first one where none is named."""
    for known in service.ports:
        if protocol in PORTLESS or (
            port in (None, known.port) and known.protocol.lower() in (protocol, protocol or known.protocol.lower())
        ):
            return known
    words = " ".join(word for word in (protocol.upper(), f"port {port}" if port else "port") if word)
    known_ports = ", ".join(f"{known.port}/{known.protocol}" for known in service.ports)
    raise LabError(f"service {service} has no {words}", remedy=f"it has {known_ports or 'no ports'}")


def _port(protocol: str, port: int | None, usual: int) -> int:
    return 0 if protocol in PORTLESS else port or usual


def _place(lab: Snapshot, address: IPv4Address) -> Place:
    for pod in lab.api[API_PODS]:
        if pod.address == address and not pod.host_network and not pod.going:
            return Place("pod", str(pod))
    return next((Place("node", node.name) for node in lab.cluster_nodes if node.api.address == address), OUTSIDE)


def _kind(text: str) -> tuple[str, str]:
    """Return the kind that a name begins with, "" without one, and the rest."""
    first, slash, rest = text.partition("/")
    return (KINDS[first], rest) if slash and first in KINDS else ("", text)


def _with_port(name: str, port: int | None) -> tuple[str, int | None]:
    found, colon, number = name.rpartition(":")
    if not colon or ":" in found:
        return name, port
    if not number.isdecimal() or not 0 < int(number) < 65536:
        raise LabError(f"{name!r}: {number!r} is not a port", remedy="a port is a number from 1 to 65535")
    if port and port != int(number):
        raise LabError(f"{name!r} and --port {port} name two ports", remedy="name one of them")
    return found, int(number)


def _address(name: str) -> IPv4Address | None:
    try:
        found = ip_address(name)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        raise LabError(f"{name}: packets of IPv6 are not traced", remedy="name an address of IPv4")
    return found


def _pod(lab: Snapshot, name: str, address: IPv4Address | None) -> ApiPod | None:
    """Return the pod of a name, of the unique beginning of one, or of an address."""
    running = [pod for pod in lab.api[API_PODS] if pod.running and not pod.going]
    if address:
        return next((pod for pod in running if pod.address == address and not pod.host_network), None)
    exact = [pod for pod in running if name in (str(pod), pod.name)]
    found = exact or [pod for pod in running if name and (str(pod).startswith(name) or pod.name.startswith(name))]
    if len(found) > 1:
        raise LabError(f"{name!r} may be any of {len(found)} pods", remedy=f"name one: {_few(map(str, found))}")
    return found[0] if found else None


def _service(lab: Snapshot, name: str, address: IPv4Address | None, *, exact: bool) -> ApiService | None:
    """Return the service of a name or an address; without ``exact`` raise LabError where there is none."""
    services = lab.api[API_SERVICES]
    if address:
        return next((s for s in services if address == s.cluster_ip or address in s.balancer_ips), None)
    found = [service for service in services if name in (str(service), service.name)]
    if len(found) > 1:
        raise LabError(f"{name!r} may be any of {len(found)} services", remedy=f"name one: {_few(map(str, found))}")
    if not found and not exact:
        raise LabError(f"there is no service {name!r}", remedy=_near(name, [str(s) for s in services]))
    return found[0] if found else None


def _unknown(lab: Snapshot, text: str, *, services: bool) -> LabError:
    names = [node.name for node in lab.cluster_nodes] + [str(pod) for pod in lab.api[API_PODS] if pod.running]
    names += [str(service) for service in lab.api[API_SERVICES]] if services else []
    kinds = "pod, node, service" if services else "pod, node"
    return LabError(f"{text!r} is no {kinds} or address of lab {lab.setting.lab}", remedy=_near(text, names))


def _near(text: str, names: list[str]) -> str:
    """Return a remedy with the names that are most like a text."""
    short = {name.rpartition("/")[2]: name for name in names}
    near = difflib.get_close_matches(text, [*names, *short], n=FEW, cutoff=0.5)
    near += [name for name in names if text and text in name]
    found = list(dict.fromkeys(short.get(name, name) for name in near))
    return f"is it one of these? {_few(found)}" if found else f"there are {_few(names)}"


def _few(names: Iterable[str]) -> str:
    known = list(names)
    more = f" and {len(known) - FEW} more" if len(known) > FEW else ""
    return ", ".join(known[:FEW]) + more


def _others(lab: Snapshot, of: int) -> str:
    """Return a remedy with the services that have a NodePort (0) or an address of a load balancer (1)."""
    services = lab.api[API_SERVICES]
    has = [s for s in services if (s.balancer_ips if of else any(port.node_port for port in s.ports))]
    return f"these have one: {_few(map(str, has))}" if has else "no service has one"
