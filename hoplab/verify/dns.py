"""Whom pods and CoreDNS ask for names; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address

from hoplab.core.ip import IPAddress
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.api_corefile import API_COREFILE, DNS_PORT
from hoplab.observe.facts.api_pod_states import API_POD_STATES, Container, PodState
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.facts.dns_log import DNS_LOG
from hoplab.observe.facts.resolv_conf import NODE, RESOLV_CONF, ResolvConf
from hoplab.observe.snapshot import Node, Snapshot

FACTS = (API_COREFILE.name, API_POD_STATES.name, RESOLV_CONF.name, DNS_LOG.name)
SERVICE = ("kube-system", "kube-dns")  # the name is the same whichever server is behind it
LABEL = ("k8s-app", "kube-dns")  # of its pods
_TARGET = re.compile(r"(?:dns://)?(?:\[([0-9a-fA-F:.]+)\]|([0-9a-fA-F:.]+?))(?::(\d{1,5}))?")


def servers(lab: Snapshot) -> tuple[IPAddress, ...]:
    """Return the ClusterIPs of the cluster's DNS service; the address that a lab plans for it where it has none."""
    for service in lab.api[API_SERVICES]:
        if (service.namespace, service.name) == SERVICE:
            return tuple(address for address in (service.cluster_ip, service.cluster_ip6) if address)
    return (lab.setting.dns_ip,)


def has_service(lab: Snapshot) -> bool:
    """Return whether the cluster's DNS service has its usual name."""
    return any((service.namespace, service.name) == SERVICE for service in lab.api[API_SERVICES])


def coredns(lab: Snapshot) -> tuple[PodState, ...]:
    return tuple(pod for pod in lab.api[API_POD_STATES] if LABEL in pod.labels)


def last_words(lab: Snapshot, pod: PodState, container: Container) -> str:
    """Return why a container ended: its message, else the last line of its log, else its exit code."""
    lines = [line for node in lab.nodes if node.name == pod.node for line in node[DNS_LOG].get(str(pod), ())]
    fatal = [line for line in lines if re.search(r"fatal|panic|error", line, re.IGNORECASE)]
    said = container.message or next(reversed(fatal or lines), "")
    return said or f"{container.ended or container.waiting}, exit code {container.code}"


def loops(lab: Snapshot) -> Iterator[str]:
    """Yield each forward of the Corefile that leads back to CoreDNS, in words.

    A server on the loopback of CoreDNS's pod is CoreDNS itself. With another port it is another server block. The
    addresses of a file are those in the file of CoreDNS's pods: kubeadm's default is /etc/resolv.conf, which is the
    node's (kubeadm 1162: there systemd-resolved writes 127.0.0.53).
    """
    corefile = lab.api[API_COREFILE]
    own = {*servers(lab), *(pod.address for pod in lab.pods if LABEL in pod.api.labels)}
    for forward in corefile.forwards if corefile else ():
        for to in forward.to:
            for target, where in _targets(lab, to):
                address, port = target
                if (address.is_loopback or address in own) and port == forward.port:
                    yield f"CoreDNS forwards {forward.zone} to {address}{where}, which is CoreDNS itself"


def _targets(lab: Snapshot, to: str) -> Iterator[tuple[tuple[IPAddress, int], str]]:
    if to.startswith("/"):
        for pod in coredns(lab) if to == NODE else ():
            for conf in of_pod(lab, pod)[1]:
                yield from (((ip_address(server), DNS_PORT), f" of {to} in {pod}") for server in _addresses(conf))
    elif (found := _TARGET.fullmatch(to)) and (address := _address(found[1] or found[2])):
        yield (address, int(found[3] or DNS_PORT)), ""


def _addresses(conf: ResolvConf) -> Iterator[str]:
    return (server for server in conf.nameservers if _address(server))


def _address(text: str) -> IPAddress | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def of_pod(lab: Snapshot, pod: PodState) -> tuple[Node | None, tuple[ResolvConf, ...]]:
    """Return a pod's node and what resolv.conf its sandboxes have; nothing where the runtime keeps them elsewhere."""
    node = next((node for node in lab.nodes if node.name == pod.node), None)
    return node, node[RESOLV_CONF].pods.get(pod.hostname, ()) if node else ()


def allowed(lab: Snapshot, node: Node) -> frozenset[str]:
    """Return the servers that pods of a node may ask: the cluster's, or a cache on the node (NodeLocal DNSCache)."""
    own = {str(entry.address) for entry in node[ADDRESSES] if not entry.address.is_loopback}
    return frozenset({*map(str, servers(lab)), *own})
