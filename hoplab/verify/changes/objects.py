"""Entries of what the Kubernetes API knows: nodes, pods, services, endpoints, Ingresses, secrets; pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from hoplab.observe.facts.api_corefile import Corefile
from hoplab.observe.facts.api_endpointslices import EndpointOf
from hoplab.observe.facts.api_ingress_classes import ApiIngressClass
from hoplab.observe.facts.api_ingresses import ApiIngress
from hoplab.observe.facts.api_ipam_blocks import BlockOf
from hoplab.observe.facts.api_nodes import ApiNode
from hoplab.observe.facts.api_pod_states import PodState
from hoplab.observe.facts.api_pods import ApiPod
from hoplab.observe.facts.api_services import ApiService
from hoplab.observe.facts.api_tls_secrets import TlsSecret
from hoplab.pki.certificates import describe
from hoplab.verify.changes.entry import Entry

# Suffixes that controllers give to their pods: of a Deployment "-6d4cf56db6-x7k2p", of a DaemonSet "-x7k2p"
_SUFFIX = re.compile(r"(-[bcdf0-9]{8,10}-|-)[bcdfghjklmnpqrstvwxz2456789]{5}|-[bcdf0-9]{8,10}-[a-z0-9]{5}")


def nodes(found: Iterable[ApiNode]) -> Iterator[Entry]:
    for node in found:
        ready = "Ready" if node.ready else f"NotReady ({node.why_not_ready})"
        fields = {
            "state": ready,
            "InternalIP": _texts(node.address, node.address6),
            "podCIDR": _texts(node.pod_cidr, node.pod_cidr6),
            "kubelet": node.kubelet,
            "runtime": node.runtime,
            "kernel": node.kernel,
            "machineID": node.machine_id,
            "systemUUID": node.system_uuid,
            **{f"label {name}": value for name, value in node.labels},
            **{f"annotation {name}": value for name, value in node.annotations},
        }
        yield Entry("node", (node.name,), fields, f"{node.name}, {ready}", node.name, names=frozenset({node.name}))


def pods(found: Iterable[ApiPod]) -> Iterator[Entry]:
    for pod in found:
        address = _texts(pod.address, pod.address6)
        fields = {
            "name": str(pod),
            "node": pod.node,
            "address": address,
            "phase": "Running" if pod.running else "not Running",
            "Ready": "True" if pod.ready else "False",
            "deletion": "under way" if pod.going else "",
            "hostNetwork": "true" if pod.host_network else "",
            **{f"label {name}": value for name, value in pod.labels},
        }
        own = () if pod.host_network else (pod.address, pod.address6)
        names = frozenset({str(pod), pod.name, *(str(one) for one in own if one)})
        where = ", ".join(word for word in (f"on {pod.node}" if pod.node else "", address) if word)
        text = f"{pod} {where}".rstrip()
        yield Entry("pod", (str(pod),), fields, text, str(pod), names=names, kin=(workload(pod), pod.node))


def workload(pod: ApiPod) -> str:
    """Return namespace and name of a pod without the random suffix of its controller.

    >>> _SUFFIX.sub("", "echo-x7k2p"), _SUFFIX.sub("", "coredns-795c65fdfd-5p6q4"), _SUFFIX.sub("", "etcd-first")
    ('echo', 'coredns', 'etcd-first')
    """
    found = re.fullmatch(rf"(.+?)(?:{_SUFFIX.pattern})", pod.name)
    return f"{pod.namespace}/{found[1] if found else pod.name}"


def pod_states(found: Iterable[PodState]) -> Iterator[Entry]:
    """Yield containers of pods; their pods are in another fact."""
    for pod in found:
        for container in pod.containers:
            name = f"{container.name} of {pod}"
            fields = {
                "restarts": str(container.restarts),
                "waiting": container.waiting,
                "ended": f"{container.ended} ({container.code})" if container.ended else "",
            }
            yield Entry("container", (str(pod), container.name), fields, name, words=str(pod))


def services(found: Iterable[ApiService]) -> Iterator[Entry]:
    for service in found:
        own = [service.cluster_ip, service.cluster_ip6, *service.balancer_ips, *service.balancer_ips6]
        ports = ", ".join(
            f"{port.name + ' ' if port.name else ''}{port.port}{f':{port.node_port}' if port.node_port else ''}"
            f"/{port.protocol}"
            for port in service.ports
        )
        fields = {
            "type": service.kind,
            "clusterIP": _texts(service.cluster_ip, service.cluster_ip6),
            "ports": ports,
            "externalTrafficPolicy": service.external_policy,
            "internalTrafficPolicy": service.internal_policy,
            "loadBalancerClass": service.balancer_class,
            "load balancer's address": _texts(*service.balancer_ips, *service.balancer_ips6),
            "sessionAffinity": f"ClientIP, {service.affinity} s" if service.affinity else "",
        }
        names = frozenset({str(service), *(str(one) for one in own if one)})
        text = f"{service}, {service.kind} {fields['clusterIP']}, ports {ports}"
        yield Entry("service", (str(service),), fields, text, str(service), names=names)


def endpoints(found: Iterable[EndpointOf[Any]]) -> Iterator[Entry]:
    """Yield endpoints, one for all ports of a service that have the same state: their order has no meaning."""
    kept: dict[tuple[str, ...], list[EndpointOf[Any]]] = {}
    for one in found:
        state = "ready" if one.ready else "serving" if one.serving else "not ready"
        words = (state, *(("terminating",) if one.terminating else ()))
        hints = ", ".join((*one.for_nodes, *one.for_zones))
        at = (f"{one.namespace}/{one.service}", str(one.address), one.node, ", ".join(words), hints)
        kept.setdefault(at, []).append(one)
    for (service, address, node, state, hints), ports in kept.items():
        numbers = ", ".join(sorted({f"{port.port}/{port.protocol}" for port in ports}))
        text = f"{address} of {service}, port {numbers}, {state}"
        fields = {"state": state, "ports": numbers, "node": node, "hints": hints}
        yield Entry("endpoint", (service, address), fields, text, f"{address} of {service}", words=node)


def ingress_classes(found: Iterable[ApiIngressClass]) -> Iterator[Entry]:
    for one in found:
        fields = {"controller": one.controller, "default": "true" if one.default else "false"}
        yield Entry("IngressClass", (one.name,), fields, str(one), one.name)


def ingresses(found: Iterable[ApiIngress]) -> Iterator[Entry]:
    for ingress in found:
        fields = {
            "class": ingress.ingress_class,
            "hosts": ", ".join(ingress.hosts),
            "address": _texts(*sorted(ingress.addresses)),
            "tls": "; ".join(f"{name} for {', '.join(hosts)}" for name, hosts in ingress.tls),
        }
        yield Entry("Ingress", (str(ingress),), fields, f"{ingress} for {fields['hosts'] or 'any host'}", str(ingress))


def tls_secrets(found: Iterable[TlsSecret]) -> Iterator[Entry]:
    for secret in found:
        fields = {"type": secret.kind}
        for number, certificate in enumerate(secret.certificates):
            fields["certificate" if number == 0 else f"issuer {number}"] = certificate_text(certificate)
        yield Entry("secret", (str(secret),), fields, f"{secret} of type {secret.kind}", str(secret))


def certificate_text(certificate: str) -> str:
    """Return names, end and fingerprint of a certificate in PEM; its fingerprint alone where it cannot be read."""
    digest = hashlib.sha256("".join(certificate.split()).encode()).hexdigest()[:8]
    try:
        found = describe(certificate)
    except ValueError:
        return f"unreadable, {digest}"
    return f"for {', '.join(found.names) or 'no name'} until {found.ends:%Y-%m-%d}, {digest}"


def corefile(found: Corefile | None) -> Iterator[Entry]:
    if found is None:
        return
    ports = ", ".join(map(str, sorted(found.ports)))
    yield Entry("Corefile", ("Corefile",), {"ports": ports}, f"ports {ports}", "of CoreDNS")
    for one in found.forwards:
        name = f"forward {one.zone} of port {one.port}"
        key, to = (str(one.port), one.zone), " ".join(one.to)
        yield Entry("Corefile", key, {"to": to}, f"{name} to {to}", name)


def ipam_blocks(found: Iterable[BlockOf[Any, Any]]) -> Iterator[Entry]:
    for block in found:
        cidr = str(block.cidr)
        text = f"{cidr} of {block.node or 'no node'}"
        yield Entry("IPAM block", (cidr,), {"node": block.node}, text, cidr, words=block.node)
        for address, owner in block.taken.items():
            key, text = (cidr, str(address)), f"{address} of {cidr} for {owner}"
            yield Entry("IPAM reservation", key, {"owner": owner}, text, f"{address} of {cidr}")


def _texts(*values: object) -> str:
    return ", ".join(str(value) for value in values if value)
