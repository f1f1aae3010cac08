"""An imaginary lab with Cilium that answers requests as a healthy one does, with a switch for each fault.

What its programs track are entries of a map in the look of cilium-dbg. The kernel's conntrack and rules see nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hoplab.observe.pcap import CapturedPacket
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Pod, Snapshot
from hoplab.verify import workload
from tests.support.edited.cilium import VXLAN
from tests.support.imaginary import traffic
from tests.support.imaginary.traffic_faults import CLUSTER_IP, POD_TO_POD, REFUSED

RECORDED = VXLAN
ALONE = replace(VXLAN, setting=replace(VXLAN.setting, proxy_mode=VXLAN.setting.cni))  # without kube-proxy
PATIENCE = traffic.PATIENCE
BYPASSED = "programs_translate_before_any_rule"
NUMBER = 5  # of each service


@dataclass
class World(traffic.World):
    """Each switch is one fault."""

    lab: Snapshot = VXLAN
    counts: bool = False  # a rule of kube-proxy
    remembers: bool = False  # the kernel's conntrack
    in_map: bool = True
    replaced: bool = True  # by a connection to a pod
    numbered: bool = False  # a connection from pod to pod belongs to a service
    tracked: dict[str, list[str]] = field(default_factory=dict, init=False)  # by node

    def batch(self, node: str, commands: Mapping[str, str]) -> dict[str, Output]:
        if set(commands) == {"maps"}:
            return {"maps": Output(0, "\n".join(self.tracked.get(node, ())))}
        return super().batch(node, commands)

    def read(self, outputs: Mapping[str, Output]) -> dict[str, tuple[CapturedPacket, ...]]:
        """What a capture saw at the interface of the pod that asked last."""
        pod, _ = self.sent
        answer = CapturedPacket(0.0, "lxc", protocol="icmp", src=pod.node.address, dst=pod.address, icmp_type=3)
        return {"answers": (answer,) if self.sees else ()}

    def request(self, pod: Pod, host: str, port: str, path: str) -> tuple[Output, str]:
        service = next((found for found in self.services.values() if str(found.cluster_ip) == host), None)
        entries = []
        if service is None:
            entries.append(entry("OUT", f"{pod.address}:41000 -> {host}:{port}", NUMBER if self.numbered else 0))
        else:
            if self.in_map:
                entries.append(entry("SVC", f"{pod.address}:41000 -> {host}:{port}", NUMBER))
            if self.replaced:
                to = next((end.to for end in service.endpoints), f"{self.single.address}:{workload.PORT}")
                entries.append(entry("OUT", f"{pod.address}:41000 -> {to}", NUMBER))
        self.tracked.setdefault(pod.node.name, []).extend(entries)
        return super().request(pod, host, port, path)


def entry(kind: str, ends: str, service: int) -> str:
    return f"TCP {kind} {ends} expires=42289 Packets=0 Flags=0x0010 [ SeenNonSyn ] RevNAT={service} NatPort=0 \n"


FAULTS = (
    ("answers", False, (BYPASSED,), "does not answer"),
    ("in_map", False, (BYPASSED, CLUSTER_IP), "has no connection of"),
    ("in_map", False, (CLUSTER_IP, BYPASSED), "has no connection to"),
    ("replaced", False, (BYPASSED,), "in its place"),
    ("remembers", True, (BYPASSED,), "the kernel's conntrack on worker1 has it as well"),
    ("counts", True, (BYPASSED,), "a rule on worker1 has counted it"),
    ("numbered", True, (POD_TO_POD,), "has no untranslated connection of"),
    ("lab", ALONE, (REFUSED,), "was not refused at its socket"),  # but by ICMP, as at the interface
)
