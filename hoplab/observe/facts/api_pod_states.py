"""How the containers of pods do, and whose DNS servers their pods ask, as the Kubernetes API returns it."""

from __future__ import annotations

from dataclasses import dataclass

from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Entries, Item, gather_kubernetes


@dataclass(frozen=True)
class Container:
    """One container of a pod."""

    name: str
    ready: bool
    restarts: int
    waiting: str  # why it does not run: "CrashLoopBackOff"; "" where it runs or has ended
    ended: str  # how it ended the last time: "Error"; "" where it never did
    code: int  # its exit code then
    message: str  # its last words then, where it wrote any (terminationMessagePath)

    @property
    def crashes(self) -> bool:
        """Return whether it ended by itself and is not ready again: it is started again and again."""
        return not self.ready and (self.waiting == "CrashLoopBackOff" or bool(self.restarts and self.ended))


@dataclass(frozen=True)
class PodState:
    """One pod."""

    namespace: str
    name: str
    node: str
    hostname: str  # inside of it
    host_network: bool
    dns_policy: str  # "ClusterFirst", "Default", ...
    labels: tuple[tuple[str, str], ...]
    containers: tuple[Container, ...]

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def asks_cluster_dns(self) -> bool:
        """Return whether the kubelet gives it its own clusterDNS, not the node's servers."""
        return self.dns_policy == ("ClusterFirstWithHostNet" if self.host_network else "ClusterFirst")


def parse(text: str) -> Entries[PodState]:
    return gather_kubernetes(text, "pods", lambda item: (_pod(item),))


def _pod(item: Item) -> PodState:
    meta, spec = item.item("metadata"), item.item("spec")
    return PodState(
        namespace=meta.text("namespace"),
        name=meta.text("name"),
        node=spec.text("nodeName"),
        hostname=(spec.text("hostname") or meta.text("name"))[:63],
        host_network=spec.truth("hostNetwork"),
        dns_policy=spec.text("dnsPolicy"),
        labels=meta.pairs("labels"),
        containers=tuple(_container(status) for status in item.item("status").items("containerStatuses")),
    )


def _container(status: Item) -> Container:
    state, last = status.item("state"), status.item("lastState").item("terminated")
    ended = state.item("terminated") if state.item("terminated").raw else last
    return Container(
        name=status.text("name"),
        ready=status.truth("ready"),
        restarts=status.number("restartCount"),
        waiting=state.item("waiting").text("reason"),
        ended=ended.text("reason"),
        code=ended.number("exitCode"),
        message=ended.text("message").strip(),
    )


API_POD_STATES = Fact("pod_states", "/api/v1/pods", parse, frozenset({"api"}))
