"""An imaginary lab in which Felix enforces network policies, with a switch for each fault."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any, cast

from hoplab.expectations.cni import calico
from hoplab.observe.pcap import CapturedPacket
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Pod, Snapshot
from hoplab.observe.ssh import Hosts
from hoplab.verify import workload
from hoplab.verify.external import ExternalHost
from hoplab.verify.session import LabSession
from tests.support.imaginary.traffic import echo_answer
from tests.support.recordings import recording
from tests.support.timing import UNSCALED

_HEALTHY = recording("flannel-vxlan")
RECORDED = replace(_HEALTHY, setting=replace(_HEALTHY.setting, cni="calico", backend="bgp"))
GATEWAY = RECORDED.setting.gateway
OUTSIDE_PORT = 36511
PATIENCE = 0.0  # seconds: what is not there at the first look will never be
COMMENT = '-m comment --comment "cali:x" -m comment --comment'


@dataclass
class World:
    """A lab that only talks. Each switch is one fault."""

    writes: bool = True  # Felix, the rule that drops
    counts: bool = True
    denies: bool = True
    forgets: bool = True  # the rules of a policy that is gone
    answers: bool = True  # the pod `single`, before there is any policy
    recovers: bool = True  # everybody answers again without the policy
    lets_in: bool = True  # whom the policy allows
    keeps_out: bool = True  # who is outside
    names_a_set: bool = True
    member: str = ""  # what is in the set instead of the pods with the label
    outside: bool = True  # answers, before there is any policy
    recorded: Snapshot = RECORDED
    policies: list[str] = field(default_factory=list, init=False)
    was: list[str] = field(default_factory=list, init=False)  # policies that were made, ever
    dropped: int = field(default=0, init=False)

    def batch(self, node: str, commands: Mapping[str, str]) -> dict[str, Output]:
        """What a node prints."""
        return {key: self.output(command) for key, command in commands.items()}

    def output(self, command: str) -> Output:
        if "curl" in command:
            return self.asked(*re.findall(r"netns/(\S+) curl .*//([\d.]+):", command)[0])
        if command.startswith("iptables-save"):
            return Output(0, self.rules)
        if command.startswith("ipset"):
            return Output(0, self.sets)
        return Output(0, "")

    def asked(self, netns: str, host: str) -> Output:
        """A pod's request."""
        pod = next(pod for pod in RECORDED.pods if pod.netns == netns)
        to = IPv4Address(host)
        if self.stopped(to):
            self.dropped += 3
            return Output(28, "", "curl: (28) timed out")
        return Output(0, echo_answer(pod.address, self.single))

    def stopped(self, to: IPv4Address) -> bool:
        if not self.policies:
            there = self.outside if to == GATEWAY else self.answers
            return not (self.recovers if self.was else there)
        forbidden = GATEWAY if "stay" in self.policies else self.single.address if "deny" in self.policies else None
        return self.denies if to == forbidden else not self.lets_in

    def get(self, _url: str, _timeout: float) -> str | None:
        """From outside, a client with its own address."""
        answered = not self.keeps_out if self.policies else self.recovers
        return echo_answer(GATEWAY, self.single) if answered else None

    @property
    def single(self) -> Pod:
        return next(pod for pod in RECORDED.pods if pod.api.label("app") == "single")

    @property
    def rules(self) -> str:
        """The filter table of the node that `single` and its client are on."""
        shown = self.policies or ([] if self.forgets else self.was)
        client = next(pod for pod in RECORDED.pods_on(self.single.node) if pod.api.label("app") == "echo")
        direction, pod = ("from", client) if shown == ["stay"] else ("to", self.single)
        assert pod.host_end
        chain = calico.chain(direction, pod.host_end.name)
        lines = ["*filter", ":FORWARD ACCEPT [0:0]", f":{chain} - [0:0]", ":cali-pi-x - [0:0]"]
        if shown and self.writes:
            counted = self.dropped if self.counts else 0
            lines += [
                f"[0:0] -A {chain} -j cali-pi-x",
                f'[{counted}:0] -A {chain} {COMMENT} "{calico.DROPS}" -m mark --mark 0x0/0x20000 -j DROP',
            ]
        if shown == ["allow"] and self.names_a_set:
            about = f"KubernetesNetworkPolicy {workload.NAMESPACE}/allow ingress"
            lines.append(f'[0:0] -A cali-pi-x {COMMENT} "{about}" -m set --match-set cali40s:x src -j ACCEPT')
        return "\n".join([*lines, "COMMIT", ""])

    @property
    def sets(self) -> str:
        members = [str(pod.address) for pod in RECORDED.pods if pod.api.label("app") == "echo"]
        lines = [f"add cali40s:x {member}" for member in ([self.member] if self.member else members)]
        return "\n".join(["create cali40s:x hash:net family inet", *lines, ""])

    def api(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        if method == "POST" and body:
            self.policies.append(body["metadata"]["name"])
            self.was = [*self.policies]
        else:
            self.policies.remove(path.rpartition("/")[2])
        return 201, {}

    def url(self, path: str) -> str:
        return f"http://{GATEWAY}:{OUTSIDE_PORT}/{path}"

    def read(self, _outputs: Mapping[str, Output]) -> dict[str, tuple[CapturedPacket, ...]]:
        return {}

    def session(self) -> LabSession:
        lab = self.recorded
        return LabSession(lab, cast("Hosts", self), cast("ExternalHost", self), self.api, lambda: lab, timing=UNSCALED)


DENIES, ALLOWS = "a_policy_denies_what_it_does_not_allow", "a_policy_allows_by_label"
STOPS = "a_policy_stops_what_leaves"
LESSONS = (DENIES, ALLOWS, STOPS)

FAULTS: tuple[tuple[str, object, tuple[str, ...], str], ...] = (
    ("answers", False, (DENIES,), "and no policy is made yet"),
    ("outside", False, (STOPS,), "the outside does not answer"),
    ("writes", False, (DENIES, ALLOWS, STOPS), "stops nothing, though a policy denies what is for"),
    ("writes", False, (STOPS, DENIES, ALLOWS), "stops nothing, though a policy denies what hoplab-verify/echo"),
    ("denies", False, (DENIES, STOPS), "which no policy allows"),
    ("denies", False, (STOPS, DENIES), "reaches the outside, which no policy allows"),
    ("counts", False, (DENIES, STOPS), "has counted nothing"),
    ("counts", False, (STOPS, DENIES), "has counted nothing"),
    ("forgets", False, (DENIES,), "without any policy"),
    ("recovers", False, (DENIES, ALLOWS, STOPS), "any more without the policy"),
    ("recovers", False, (ALLOWS, DENIES, STOPS), "does not answer 192.168.77.1 without the policy"),
    ("recovers", False, (STOPS, DENIES, ALLOWS), "can't leave any more without the policy"),
    ("lets_in", False, (ALLOWS, STOPS), "whose label the policy allows"),
    ("lets_in", False, (STOPS, ALLOWS), "which the policy allows"),
    ("keeps_out", False, (ALLOWS,), "whom the policy does not allow"),
    ("names_a_set", False, (ALLOWS,), "asks nothing that knows whom the policy allows"),
    ("member", "10.244.9.9", (ALLOWS,), "has 10.244.9.9/32, not"),
)
