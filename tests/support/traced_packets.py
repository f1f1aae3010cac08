"""Packets of every kind between the pods of the workload, as `./lab trace` sends them through a running lab."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hoplab.core.paths import LabPaths
from hoplab.observe.live.stop import Stop
from hoplab.observe.snapshot import Snapshot
from hoplab.trace import render
from hoplab.trace.model import Sent, Trace
from hoplab.verify import live_trace
from tests.support.traced_faults import pods

PACKETS: Mapping[str, tuple[str, str, dict[str, Any]]] = {  # from, to, and options of `follow`
    "pod to ClusterIP": ("single", "hoplab-verify/echo", {}),
    "outside to NodePort": ("outside", "service/single", {"via": "nodeport"}),
    "a ping of a pod of another node": ("far", "single", {"protocol": "icmp"}),
    "pod to pod on one node": ("single", "near", {}),
    "pod to pod on two nodes": ("single", "far", {}),
    "pod to itself by a ClusterIP": ("single", "service/single", {}),
    "pod to DNS": ("far", "kube-dns", {}),
    "pod to the API server": ("near", "default/kubernetes", {}),
    "node to ClusterIP": ("worker1", "hoplab-verify/echo", {}),
    "outside to NodePort, Local": ("outside", "single-local", {"via": "nodeport"}),
    "outside to LoadBalancer": ("outside", "announced", {"via": "loadbalancer"}),
    "outside to ingress": ("outside", "app1-service", {"via": "ingress"}),
    "pod to outside": ("single", "outside", {}),
    "UDP to a port that nobody listens on": ("single", "far", {"protocol": "udp", "port": 9999}),
}
BY_BALANCER = "outside to LoadBalancer"
EVERY_RUN = tuple(PACKETS)[:3]
PACKETS6: Mapping[str, tuple[str, str, dict[str, Any]]] = {  # of a lab that has both families
    "pod to ClusterIP by IPv6": ("single", "hoplab-verify/echo", {"ipv6": True}),
    "a ping of a pod of another node by IPv6": ("far", "single", {"ipv6": True, "protocol": "icmp"}),
    "pod to pod on one node by IPv6": ("single", "near", {"ipv6": True, "port": 8080}),
    "pod to pod on two nodes by IPv6": ("single", "far", {"ipv6": True, "port": 8080}),
    "node to ClusterIP by IPv6": ("worker1", "hoplab-verify/echo", {"ipv6": True}),
    "outside to node by IPv6": ("outside", "worker2", {"ipv6": True}),
    "pod to outside by IPv6": ("single", "outside", {"ipv6": True}),
    "UDP of IPv6 to a port that nobody listens on": ("single", "far", {"ipv6": True, "protocol": "udp", "port": 9999}),
}


def packets_of(lab: Snapshot) -> Mapping[str, tuple[str, str, dict[str, Any]]]:
    """Return the packets of a lab: those of IPv6 too, where it has both families, and of a load balancer it has."""
    found = {**PACKETS, **PACKETS6} if lab.setting.ipv6 else dict(PACKETS)
    if lab.setting.load_balancer == "none":
        del found[BY_BALANCER]
    return found


def reals(trace: Trace) -> tuple[Sent, ...]:
    """Return what was seen of the packet of a trace, and of those that a proxy sends on."""
    return tuple(one.sent for one in (trace, *trace.then) if one.sent)


@dataclass
class Trial:
    """What was seen of packets that were sent, each with those that follow it."""

    seen: int = 0
    hops: int = 0
    wrong: list[str] = field(default_factory=list)  # a hop or an end that the model did not predict

    def send(self, name: str, paths: LabPaths, lab: Snapshot) -> str:
        """Send one of the lab's packets, which has to arrive; return a line that says what was seen of it."""
        sender, receiver, options = packets_of(lab)[name]
        trace = sent(paths, lab, sender, receiver, **options)
        assert trace.sent and trace.complete, f"{name}\n{render.text(trace)}"
        for real in reals(trace):
            self.seen, self.hops = self.seen + real.seen, self.hops + real.hops
            self.wrong += [f"{name}: {difference}" for difference in real.wrong]
        return f"{name}: {render.summary(trace.sent)}, {trace.sent.seconds:.1f} s"

    def require(self, share: float) -> None:
        """Require that this share of the hops was seen, and every one as predicted."""
        assert self.seen >= share * self.hops and not self.wrong, self


def sent(paths: LabPaths, lab: Snapshot, sender: str, receiver: str, **options: Any) -> Trace:
    """Send a packet between ends that may be named as in this module; return the way that it took."""
    names = {name: f"pod/{pod}" for name, pod in pods(lab).items()}
    return live_trace.send(paths, lab, names.get(sender, sender), names.get(receiver, receiver), Stop(), **options)
