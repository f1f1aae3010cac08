"""Packets as large as a path should carry, which may not be cut into pieces, sent by ``ping -M do``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from hoplab.expectations import cni
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Node, Pod
from hoplab.verify.claims import ClaimFailed
from hoplab.verify.observations import Observations
from hoplab.verify.traffic import in_pod

HEADERS = 28  # bytes of an IPv4 header and of an ICMP header
WAIT_S = 10  # for an answer; a packet is sent each second until then
SMALLER = (1400, 1280, 1000, 500)  # bytes, tried where a full-size packet gets no answer


@dataclass(frozen=True)
class Path:
    """A way through the network, there and back."""

    sender: Pod | Node
    to: IPv4Address | IPv6Address
    receiver: Pod | Node | str  # a text for somebody outside
    size: int  # bytes of the largest IP packet that fits: the smallest MTU on the way

    @property
    def node(self) -> Node:
        """Return the node that it begins on."""
        return self.sender.node if isinstance(self.sender, Pod) else self.sender

    def command(self, size: int) -> str:
        """Return the command that sends packets of a size until one is answered."""
        ping = f"ping -n -c 1 -w {WAIT_S} -M do -s {size - HEADERS} {self.to}"
        return in_pod(self.sender, ping) if isinstance(self.sender, Pod) else ping

    def __str__(self) -> str:
        ends = [end if isinstance(end, str) else _named(end) for end in (self.sender, self.receiver)]
        return f"{ends[0]} to {ends[1]}"


def _named(end: Pod | Node) -> str:
    return f"{end} on {end.node.name}" if isinstance(end, Pod) else end.name


def paths(session: Observations) -> tuple[Path, ...]:
    """Return the paths that matter: of each node's echo pod and of the node itself, to one target of each kind."""
    pods = session.echo_pods
    return tuple(
        path
        for pod, across in zip(pods, (*pods[1:], pods[0]), strict=True)
        for path in _paths_of(session, pod, across if across is not pod else None)
    )


def _paths_of(session: Observations, pod: Pod, across: Pod | None) -> Iterator[Path]:
    """Yield the paths of a pod and its node; ``across`` is the pod of another node, where there is one."""
    node, size = pod.node, _mtu(pod)
    beside = next((other for other in session.snapshot.pods_on(node) if other is not pod), None)
    if beside:
        yield Path(pod, beside.address, beside, min(size, _mtu(beside)))
    yield Path(pod, node.address, node, size)
    if session.outside:
        yield Path(pod, session.external.address, "the outside", size)
    if across:
        inner = _uplink(node) - cni.expectations(session.snapshot)[node.name].overhead
        yield Path(pod, across.address, across, min(size, _mtu(across)))
        yield Path(node, across.address, across, min(inner, _mtu(across)))
        yield Path(node, across.node.address, across.node, min(_uplink(node), _uplink(across.node)))


def _mtu(pod: Pod) -> int:
    if pod.mtu is None:
        raise ClaimFailed(f"{pod} has no eth0")
    return pod.mtu


def _uplink(node: Node) -> int:
    found = node.link(node.uplink)
    if not found:
        raise ClaimFailed(f"{node.name} has no {node.uplink}")
    return found.mtu


def unanswered(session: Observations, found: Sequence[Path]) -> dict[Path, str]:
    """Send a packet of full size on each path, on all nodes at the same time; return what ping says of those without
    an answer."""
    by_node: dict[Node, list[Path]] = {}
    for path in found:
        by_node.setdefault(path.node, []).append(path)

    def send(node: Node) -> dict[Path, Output]:
        sent = {str(number): path for number, path in enumerate(by_node[node])}
        answers = session.hosts.batch(node.name, {key: path.command(path.size) for key, path in sent.items()})
        return {path: answers[key] for key, path in sent.items()}

    with ThreadPoolExecutor(max(1, len(by_node))) as pool:
        outputs = {path: output for answers in pool.map(send, by_node) for path, output in answers.items()}
    return {path: _why(output) for path, output in outputs.items() if output.code != 0}


def largest(session: Observations, path: Path) -> int:
    """Return the largest size of ``SMALLER`` that gets an answer on a path, in bytes; 0 where none does."""
    sizes = [size for size in SMALLER if size < path.size]
    tried = session.hosts.batch(path.node.name, {str(size): path.command(size) for size in sizes})
    return next((size for size in sizes if tried[str(size)].code == 0), 0)


def _why(output: Output) -> str:
    """Return ping's own line on a packet that is too large, or its last one."""
    lines = [line.strip() for line in (output.out + output.err).splitlines() if line.strip()]
    told = [line for line in lines if "mtu" in line.lower() or "too long" in line.lower()]
    return (told or lines[-1:] or ["ping says nothing"])[0]
