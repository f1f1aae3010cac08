"""An imaginary dual-stack lab that answers requests by IPv6, with a switch for each fault."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any, cast

from hoplab.observe.pcap import CapturedPacket
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Pod, Snapshot
from hoplab.observe.ssh import Hosts
from hoplab.verify.external import ExternalHost
from hoplab.verify.session import LabSession
from tests.support.edited.ipv6 import CLUSTER_IP, GATEWAY, OTHER, OUTSIDE, RECORDED, TALK, echo_of
from tests.support.timing import UNSCALED

OUTSIDE_PORT = 36511
PATIENCE = 0.0  # seconds: what is not there at the first look will never be


@dataclass
class World:
    """A dual-stack lab that only talks. Each switch is one fault."""

    keeps_pod_addresses: bool = True
    sees: bool = True  # captures see anything
    wraps: bool = True
    stranger_answers: bool = False
    keeps_clients: bool = True
    reaches_itself: bool = False  # by the ClusterIP: no fault; with kube-proxy its node's address stands for it then
    masquerades: bool = True
    answers: bool = True
    lab: Snapshot = RECORDED
    asked: dict[str, IPv6Address] = field(default_factory=dict, init=False)  # who asked the outside, by path

    def batch(self, node: str, commands: Mapping[str, str]) -> dict[str, Output]:
        """What a node prints of a request."""
        asking = commands.get("answer") or commands["it"]
        netns, host, path = re.findall(r"netns/(\S+) curl .*//\[(\S+)\]:\d+/(\w*)", asking)[0]
        pod = next(pod for pod in self.lab.pods if pod.netns == netns and pod.node.name == node)
        self.sent = pod, IPv6Address(host)
        answer = self.answer(pod, IPv6Address(host), path)
        found = {name: Output(0, "") for name in commands}
        return {**found, "answer": Output(0, answer) if self.answers else Output(28, "", "curl: (28) timed out")}

    def batches(self, commands: Mapping[str, str], *, in_pods: Mapping[str, str]) -> dict[str, dict[str, Output]]:
        """The counters of both nodes: no failure."""
        return {node.name: {name: Output(0, "") for name in commands} for node in self.lab.nodes}

    def answer(self, pod: Pod, to: IPv6Address, path: str) -> str:
        masked = pod.node.address6
        if to == GATEWAY:
            self.asked[path] = masked if self.masquerades else pod.address6
            return "{}"
        kept = self.keeps_pod_addresses
        target = next((other for other in self.lab.pods if other.address6 == to), OTHER)
        echo = echo_of(self.lab)
        if to == echo.cluster_ip:
            kept = self.keeps_clients
            behind = {endpoint.address for endpoint in echo.endpoints}
            target = next(other for other in self.lab.pods if other.address6 in behind and other is not pod)
            if self.stranger_answers:
                target = next(other for other in self.lab.pods if other.address6 not in behind)
            if self.reaches_itself:
                target, kept = pod, self.keeps_clients and not self.lab.setting.has_kube_proxy
                if not self.keeps_clients:
                    masked = next(node.address6 for node in self.lab.nodes if node is not pod.node)
        found = {"remote_addr": f"[{pod.address6 if kept else masked}]:4000", "local_addr": f"[{target.address6}]:8080"}
        return json.dumps({**found, "node": target.node.name, "hostname": target.api.name})

    def read(self, _outputs: Mapping[str, Output]) -> dict[str, tuple[CapturedPacket, ...]]:
        """What a capture saw of the request that was made last."""
        pod, to = self.sent
        packet = CapturedPacket(0.0, "eth0", protocol="tcp", src=pod.address6, dst=to, sport=4000, dport=8080)
        outer = CapturedPacket(
            0.0, "eth0", protocol="udp", src=pod.node.address6, dst=OTHER.node.address6, vni=1, inner=packet
        )
        return {"outer": (outer if self.wraps else packet,) if self.sees else ()}

    def url(self, path: str) -> str:
        return f"http://[{GATEWAY}]:{OUTSIDE_PORT}/{path}"

    def client_of(self, path: str) -> IPv6Address | None:
        return self.asked.get(path)

    def session(self) -> LabSession:
        mute: Any = None
        return LabSession(
            self.lab, cast("Hosts", self), mute, mute, lambda: self.lab, cast("ExternalHost", self), timing=UNSCALED
        )


FAULTS = (
    ("keeps_pod_addresses", False, (TALK,), "saw fd00:77::"),
    ("sees", False, (TALK,), "left worker"),
    ("wraps", False, (TALK,), "not wrapped as expected"),
    ("stranger_answers", True, (CLUSTER_IP,), "which is not behind it"),
    ("keeps_clients", False, (CLUSTER_IP,), "the pod saw fd00:77::"),
    ("masquerades", False, (OUTSIDE,), "the outside saw fd00:244:"),
    ("answers", False, (OUTSIDE, TALK, CLUSTER_IP), "gets no answer from the outside: curl: (28)"),
)
