"""The place of a lab where faults are made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address

from hoplab.core.paths import LabPaths
from hoplab.core.wait import NotYet, until
from hoplab.expectations.cni import calico
from hoplab.expectations.cni.flannel import BACKEND_DATA6, vtep_mac
from hoplab.expectations.loadbalancer import metallb
from hoplab.observe.snapshot import Node, Pod
from hoplab.verify import session as lab_session
from hoplab.verify import workload
from hoplab.verify.session import LabSession

PEACE = ("kube-proxy", "flanneld", "calico-node", "cilium-agent")
PATIENCE = 300.0  # seconds until Kubernetes has followed


@dataclass(frozen=True)
class Site:
    """Where things get broken: the node that the pod `single` runs on, and its echo pod."""

    session: LabSession
    node: Node
    pod: Pod
    other: Node

    @classmethod
    def of(cls, session: LabSession) -> Site:
        node = session.client.node
        return cls(session, node, session.client, next(other for other in session.snapshot.nodes if other is not node))

    @property
    def words(self) -> Mapping[str, object]:
        """What commands and sentences are filled in with."""
        service, empty, local = (self.session.service(name) for name in ("echo", "nobody", "single-local"))
        setting = self.session.snapshot.setting
        vxlan = (setting.cni, setting.backend) == ("flannel", "vxlan")
        assert self.pod.host_end
        return {
            "node": self.node.name,
            "address": self.node.address,
            "network": self.session.snapshot.setting.network,
            "prefix": self.session.snapshot.setting.network.prefixlen,
            "gateway": self.session.snapshot.setting.gateway,
            "dns": self.session.snapshot.setting.dns_ip,
            "pods": self.session.snapshot.setting.pod_cidr,
            "own": self.node.pod_cidr,
            "last": self.node.pod_cidr.broadcast_address,
            "bridge": self.node.pod_cidr[1],
            "spare": self.node.pod_cidr[99],
            "pod": self.pod,
            "pod_address": self.pod.address,
            "pod_netns": self.pod.netns,
            "host_end": self.pod.host_end.name,
            "remote": self.other.pod_cidr,
            "half": next(self.other.pod_cidr.subnets()),
            "vtep": self.other.pod_cidr[0],
            "vtep_mac": vtep_mac(self.other) if vxlan else "",
            "own_mac": vtep_mac(self.node) if vxlan else "",
            "single": self.session.single.address,
            "other": self.other.name,
            "other_pod": next(pod.address for pod in self.session.echo_pods if pod.node is self.other),
            "announced": self.announced,
            "other_address": self.other.address,
            "service": service,
            "chain": service.chain,
            **(self.calico_words if setting.cni == "calico" else {}),
            **(self.ipv6_words if setting.ipv6 else {}),
            **(self.ingress_words if self.session.snapshot.setting.ingress != "none" else {}),
            "cluster_ip": service.cluster_ip,
            "empty": empty,
            "local": local,
        }

    @property
    def calico_words(self) -> Mapping[str, object]:
        lab = self.session.snapshot
        (own, *_), (block, *_) = (calico.blocks(lab, node) for node in (self.node, self.other))
        return {
            "own_block": own.cidr,
            "block": block.cidr,
            "mesh": f"Mesh_{self.other.address}".replace(".", "_"),
        }

    @property
    def ipv6_words(self) -> Mapping[str, object]:
        setting, service = self.session.snapshot.setting, self.session.service("echo", ipv6=True)
        assert setting.ipv6
        known = {
            "pod6": self.pod.address6,
            "gateway6": setting.ipv6.network[1],
            "cluster_ip6": service.cluster_ip,
            "chain6": service.chain,
        }
        if setting.cni != "flannel":
            return known
        vxlan = setting.backend == "vxlan"
        return {
            **known,
            "bridge6": self.node.pod_cidr6[1],
            "remote6": self.other.pod_cidr6,
            "vtep6": self.other.pod_cidr6[0],
            "other6": self.other.address6,
            "vtep6_mac": vtep_mac(self.other, BACKEND_DATA6) if vxlan else "",
            "own6_mac": vtep_mac(self.node, BACKEND_DATA6) if vxlan else "",
        }

    @property
    def ingress_words(self) -> Mapping[str, object]:
        fronts = self.session.controller_pods
        return {
            "front": fronts[self.node.name].address,
            "front_netns": fronts[self.node.name].netns,
            "first_front": fronts[self.session.snapshot.nodes[0].name].address,
            "app2": self.session.service(workload.APP2).cluster_ip,
        }

    @property
    def announced(self) -> IPv4Address:
        """The address that the lab's load balancer gave to `announced`; one that leads nowhere where it has none."""
        known = self.session.snapshot.setting.load_balancer != "none"
        return self.session.announced("announced") if known else IPv4Address("203.0.113.1")

    @property
    def announcer(self) -> Node:
        """The node that answers ARP for this address."""
        name = metallb.announcer(self.announced, [self.node.name, self.other.name])
        return self.node if name == self.node.name else self.other

    def run(self, command: str, node: Node | None = None) -> None:
        """A shell command on the node (or another one), as root; it has to end well."""
        text, name = command.format(**self.words), (node or self.node).name
        found = self.session.hosts.batch(name, {"it": f"( set -e; {text}\n)"})["it"]
        assert found.code == 0, f"`{text}` on {name} ended with {found.code}: {found.out}{found.err}"

    @contextmanager
    def still(self) -> Iterator[None]:
        """While the body runs, what would repair the nodes' network stands still."""
        try:
            for node in self.session.snapshot.nodes:
                self.run(f"kill -STOP $(pidof {' '.join(PEACE)})", node)
            yield
        finally:
            for node in self.session.snapshot.nodes:
                self.run(f"kill -CONT $(pidof {' '.join(PEACE)})", node)


@contextmanager
def opened(paths: LabPaths) -> Iterator[Site]:
    """A running lab that can be broken: its kube-proxy, flanneld and Felix stand still until the body ends."""
    with lab_session.opened(paths) as session:
        site = Site.of(session)
        with site.still():
            yield site


def wait(reached: Callable[[], bool]) -> None:
    """Until it is so; a test fails where that takes beyond all reason."""
    until(lambda: True if reached() else NotYet("it is not so"), PATIENCE, poll_s=0.5)
