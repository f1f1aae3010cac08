"""The two ends of a trace as the user names them: pods, nodes, services, addresses, the outside; pure.

Both ends are of one family: IPv4, or IPv6 where the user asks for it or where one end is an address of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

from hoplab.core.errors import LabError
from hoplab.core.ip import IPAddress
from hoplab.expectations.ingress import get_controller
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS, API_ENDPOINTS6, Endpoint, Endpoint6
from hoplab.observe.facts.api_nodes import ApiNode
from hoplab.observe.facts.api_pods import API_PODS, ApiPod
from hoplab.observe.facts.api_services import API_SERVICES, ApiService, ServicePort
from hoplab.observe.snapshot import Snapshot
from hoplab.trace import names
from hoplab.trace.model import ICMP6, OUTSIDE, PORTLESS, Place

HTTP = 80
KUBELET = 10250
VIA = ("nodeport", "ingress", "loadbalancer")
PROTOCOLS = ("tcp", "udp", "icmp")


@dataclass(frozen=True)
class Source:
    """The sender."""

    place: Place
    address: IPAddress


@dataclass(frozen=True)
class Target:
    """Where the sender sends to, and where that should arrive."""

    name: str  # in words: "service hoplab-verify/echo", "pod hoplab-verify/echo-lm2p5"
    address: IPAddress
    protocol: str
    port: int
    arrives: frozenset[Place]  # any of these
    endpoints: tuple[Endpoint | Endpoint6, ...] = ()  # of a service
    of_service: bool = False  # its address is translated on the way
    proxied: bool = False  # an ingress controller opens another connection to an endpoint
    spread: bool = False  # every endpoint gets the same share of connections
    entry: str = ""  # the node by which it comes in, where no address says so

    def is_endpoint(self, address: IPAddress) -> bool:
        """Return whether an address is of an endpoint of the service."""
        return any(endpoint.address == address for endpoint in self.endpoints)


class Options(TypedDict, total=False):
    """What chooses the packet between two ends."""

    port: int | None  # by default the usual one of the receiver
    protocol: str  # of PROTOCOLS
    via: str  # of VIA: how it comes to a service
    ipv6: bool


def ends(lab: Snapshot, sender: str, receiver: str, **options: Unpack[Options]) -> tuple[Source, Target]:
    """Return both ends of a packet; raise LabError where one is unknown, or where they are of different families.

    The packet is of IPv6 where ``ipv6`` asks for it, or where one end is an address of it.
    """
    of_6 = _is_of_6(lab, sender, receiver, ipv6=options.get("ipv6", False))
    options["ipv6"] = of_6
    to = target(lab, receiver, **options)
    return source(lab, sender, ipv6=of_6), to


def names_ipv6(*texts: str) -> bool:
    """Return whether one of the names of ends is an address of IPv6."""
    return any(found.version == 6 for text in texts if (found := _named(text)))


def _named(text: str) -> IPAddress | None:
    return names.address(names.with_port(names.kind(text)[1], None)[0])


def _is_of_6(lab: Snapshot, sender: str, receiver: str, *, ipv6: bool) -> bool:
    named = [(text, found) for text in (sender, receiver) if (found := _named(text))]
    old, new = (next((text for text, found in named if found.version == version), "") for version in (4, 6))
    if old and (new or ipv6):
        raise LabError(
            f"{old} is an address of IPv4, and {new or '--ipv6'} asks for a packet of IPv6",
            remedy="name addresses of one family, or name pods, nodes and services",
        )
    if linked := next((text for text, found in named if found.version == 6 and found.is_link_local), ""):
        raise LabError(f"{linked} is an address of one link: no route leads to it", remedy="name a global address")
    if (new or ipv6) and not lab.setting.ipv6:
        raise LabError(
            f"lab {lab.setting.lab} has IPv4 alone: it has no packets of IPv6",
            remedy="lab:ipv6.network in its spec gives it both families",
        )
    return bool(new) or ipv6


def source(lab: Snapshot, text: str, *, ipv6: bool = False) -> Source:
    """Return the sender of a name; raise LabError where it is none, or its namespace was not found."""
    gateway = _gateway(lab, ipv6=ipv6)
    if text == "outside":
        return Source(OUTSIDE, gateway)
    kind, name = names.kind(text)
    if kind == "service":
        raise LabError(f"{text} is a service: it sends nothing", remedy="name a pod, a node or `outside`")
    address = names.address(name)
    if address == gateway:
        return Source(OUTSIDE, gateway)
    for node in lab.cluster_nodes:
        if kind != "pod" and (node.name == name or _is_of(address, node.api)):
            if node.name in lab.lost_nodes:
                raise LabError(f"node {node.name} could not be looked at", remedy="./lab doctor, ./lab status")
            return Source(Place("node", node.name), node.address6 if ipv6 else node.address)
    pod = _pod(lab, name, address) if kind != "node" else None
    if pod is None:
        raise _unknown(lab, text, services=False)
    if pod.host_network:
        return source(lab, f"node/{pod.node}", ipv6=ipv6)
    if str(pod) not in {str(known) for known in lab.pods}:
        raise LabError(
            f"pod {pod} runs on {pod.node}, and no network namespace there has its address {pod.address}",
            remedy=f"`ip netns` and `ip address` on {pod.node} show what is there",
        )
    return Source(Place("pod", str(pod)), _of_pod(pod, ipv6=ipv6))


def target(
    lab: Snapshot, text: str, *, port: int | None = None, protocol: str = "", via: str = "", ipv6: bool = False
) -> Target:
    """Return the receiver of a name; raise LabError where it is none, or has no such port."""
    protocol = ICMP6 if ipv6 and protocol == "icmp" else protocol
    kind, name = names.kind(text)
    name, port = names.with_port(name, port)
    address = names.address(name)
    service = _service(lab, name, address, exact=kind != "service") if kind in ("", "service") else None
    if service and name != "outside":
        if not via and address in (*service.balancer_ips, *service.balancer_ips6):
            via = "loadbalancer"
        return _of_service(lab, service, port, protocol, via, ipv6=ipv6)
    if via:
        raise LabError(f"--via {via} leads to a service, and {text} is none", remedy="name a service")
    protocol = protocol or "tcp"
    if name == "outside":
        gateway = _gateway(lab, ipv6=ipv6)
        return Target("the outside", gateway, protocol, _port(protocol, port, HTTP), frozenset({OUTSIDE}))
    for node in lab.cluster_nodes:
        own = node.api.address6 if ipv6 else node.api.address
        if kind != "pod" and own and (node.name == name or address == own):
            if published := _published(lab, port, protocol, ipv6=ipv6):
                return _at_node(lab, *published, own)
            place = Place("node", node.name)
            return Target(str(place), own, protocol, _port(protocol, port, KUBELET), frozenset({place}))
    pod = _pod(lab, name, address) if kind != "node" else None
    if pod:
        place = Place("node", pod.node) if pod.host_network else Place("pod", str(pod))
        own = _of_pod(pod, ipv6=ipv6)
        usual = next((e.port for e in _all_endpoints(lab, ipv6=ipv6) if e.address == own), HTTP)
        return Target(f"pod {pod}", own, protocol, _port(protocol, port, usual), frozenset({place}))
    if address is None:
        raise _unknown(lab, text, services=True)
    return Target(str(address), address, protocol, _port(protocol, port, HTTP), frozenset({OUTSIDE}))


def _of_service(lab: Snapshot, service: ApiService, port: int | None, protocol: str, via: str, *, ipv6: bool) -> Target:
    if via == "ingress":
        return _by_ingress(lab, service, port, ipv6=ipv6)
    if ipv6 and service.cluster_ip and not service.cluster_ip6:
        why = f"service {service} has no address of IPv6"
        raise LabError(why, remedy=_others(lab, lambda other: other.cluster_ip6))
    chosen = _service_port(service, port, protocol)
    endpoints = _endpoints(lab, service, chosen, ipv6=ipv6)
    balancers = service.balancer_ips6 if ipv6 else service.balancer_ips
    address, number, entry = service.cluster_ip6 if ipv6 else service.cluster_ip, chosen.port, ""
    if via == "nodeport":
        if not chosen.node_port:
            raise LabError(
                f"service {service} is of the type {service.kind}: it has no NodePort",
                remedy=_others(lab, lambda other: any(port.node_port for port in other.ports)),
            )
        local = service.external_policy == "Local"
        nodes = [n for n in lab.nodes if not local or n.name in {endpoint.node for endpoint in endpoints}]
        node = (nodes or lab.nodes)[0]
        address, number = node.address6 if ipv6 else node.address, chosen.node_port
    elif via == "loadbalancer":
        if not balancers:
            why = f"service {service} has no address of a load balancer" + (" of IPv6" if ipv6 else "")
            remedy = _others(lab, lambda other: other.balancer_ips6 if ipv6 else other.balancer_ips)
            raise LabError(why, remedy=remedy)
        address, entry = balancers[0], lab.nodes[0].name
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


def _all_endpoints(lab: Snapshot, *, ipv6: bool) -> Sequence[Endpoint | Endpoint6]:
    return lab.api[API_ENDPOINTS6] if ipv6 else lab.api[API_ENDPOINTS]


def _endpoints(
    lab: Snapshot, service: ApiService, port: ServicePort, *, ipv6: bool
) -> tuple[Endpoint | Endpoint6, ...]:
    wanted = (str(service), port.name, port.protocol)
    return tuple(
        found
        for found in _all_endpoints(lab, ipv6=ipv6)
        if (f"{found.namespace}/{found.service}", found.port_name, found.protocol) == wanted and found.ready
    )


def _published(lab: Snapshot, port: int | None, protocol: str, *, ipv6: bool) -> tuple[ApiService, ServicePort] | None:
    """Return the service whose NodePort it is, in this family."""
    for service in lab.api[API_SERVICES]:
        for known in service.ports if service.cluster_ip6 or not ipv6 else ():
            if port and port == known.node_port and protocol in ("", known.protocol.lower()):
                return service, known
    return None


def _at_node(lab: Snapshot, service: ApiService, port: ServicePort, address: IPAddress) -> Target:
    endpoints = _endpoints(lab, service, port, ipv6=address.version == 6)
    return Target(
        name=f"service {service}",
        address=address,
        protocol=port.protocol.lower(),
        port=port.node_port,
        arrives=frozenset(_place(lab, endpoint.address) for endpoint in endpoints),
        endpoints=endpoints,
        of_service=True,
    )


def _by_ingress(lab: Snapshot, service: ApiService, port: int | None, *, ipv6: bool) -> Target:
    """Return the ingress controller; its connection to an endpoint is of the first family of the service."""
    if lab.setting.ingress == "none":
        raise LabError(
            f"lab {lab.setting.lab} has no ingress controller", remedy="set lab:ingress.controller in its spec"
        )
    controller = get_controller(lab.setting.ingress)
    inner = _of_service(lab, service, None, "", "", ipv6=service.cluster_ip is None and bool(service.cluster_ip6))
    address = lab.nodes[0].address6 if ipv6 else lab.nodes[0].address
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


def _place(lab: Snapshot, address: IPAddress) -> Place:
    for pod in lab.api[API_PODS]:
        if _is_of(address, pod) and not pod.host_network and not pod.going:
            return Place("pod", str(pod))
    return next((Place("node", node.name) for node in lab.cluster_nodes if _is_of(address, node.api)), OUTSIDE)


def _is_of(address: IPAddress | None, owner: ApiPod | ApiNode) -> bool:
    return address is not None and address in (owner.address, owner.address6)


def _of_pod(pod: ApiPod, *, ipv6: bool) -> IPAddress:
    found = pod.address6 if ipv6 else pod.address
    if found is None:
        why = f"pod {pod} has no address of {'IPv6' if ipv6 else 'IPv4'}"
        raise LabError(why, remedy=f"`kubectl get pod -n {pod.namespace} {pod.name} -o yaml` shows its podIPs")
    return found


def _gateway(lab: Snapshot, *, ipv6: bool) -> IPAddress:
    """Return the address of the outside."""
    return lab.setting.gateway6 if ipv6 and lab.setting.gateway6 else lab.setting.gateway


def _pod(lab: Snapshot, name: str, address: IPAddress | None) -> ApiPod | None:
    """Return the pod of a name, of the unique beginning of one, or of an address."""
    running = [pod for pod in lab.api[API_PODS] if pod.running and not pod.going]
    if address:
        return next((pod for pod in running if _is_of(address, pod) and not pod.host_network), None)
    exact = [pod for pod in running if name in (str(pod), pod.name)]
    found = exact or [pod for pod in running if name and (str(pod).startswith(name) or pod.name.startswith(name))]
    if len(found) > 1:
        raise LabError(f"{name!r} may be any of {len(found)} pods", remedy=f"name one: {names.few(map(str, found))}")
    return found[0] if found else None


def _service(lab: Snapshot, name: str, address: IPAddress | None, *, exact: bool) -> ApiService | None:
    """Return the service of a name or an address; without ``exact`` raise LabError where there is none."""
    services = lab.api[API_SERVICES]
    if address:
        return next((service for service in services if address in _addresses(service)), None)
    found = [service for service in services if name in (str(service), service.name)]
    if len(found) > 1:
        raise LabError(
            f"{name!r} may be any of {len(found)} services", remedy=f"name one: {names.few(map(str, found))}"
        )
    if not found and not exact:
        raise LabError(f"there is no service {name!r}", remedy=names.near(name, [str(s) for s in services]))
    return found[0] if found else None


def _addresses(service: ApiService) -> tuple[IPAddress | None, ...]:
    return (service.cluster_ip, service.cluster_ip6, *service.balancer_ips, *service.balancer_ips6)


def _unknown(lab: Snapshot, text: str, *, services: bool) -> LabError:
    known = [node.name for node in lab.cluster_nodes] + [str(pod) for pod in lab.api[API_PODS] if pod.running]
    known += [str(service) for service in lab.api[API_SERVICES]] if services else []
    kinds = "pod, node, service" if services else "pod, node"
    return LabError(f"{text!r} is no {kinds} or address of lab {lab.setting.lab}", remedy=names.near(text, known))


def _others(lab: Snapshot, have: Callable[[ApiService], object]) -> str:
    """Return a remedy with the services that have what another one lacks."""
    has = [service for service in lab.api[API_SERVICES] if have(service)]
    return f"these have one: {names.few(map(str, has))}" if has else "no service has one"
