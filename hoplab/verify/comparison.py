"""A page that compares packets from pod to pod and from pod to service in several recorded labs; pure.

    ./lab compare tests/recordings/flannel-vxlan.json tests/recordings/calico-bgp.json

Each line is recorded output, selected by the expectations of the CNI and of kube-proxy. Where a lab does not meet an
expectation, the line has a gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hoplab.core.errors import LabError
from hoplab.expectations import cni, proxy
from hoplab.expectations.cni import NodeExpectations, Tunnel
from hoplab.expectations.parts import known_parts
from hoplab.netfilter.packet import Outcome, Packet
from hoplab.netfilter.ruleset import Rule, postrouting, prerouting
from hoplab.observe.cilium_maps import CiliumMaps
from hoplab.observe.facts.fdb import FDB
from hoplab.observe.facts.links import LINKS
from hoplab.observe.facts.neighbours import NEIGHBOURS
from hoplab.observe.facts.wireguard import WIREGUARD
from hoplab.observe.routing import Flow, decide_on
from hoplab.observe.snapshot import Pod, Snapshot
from hoplab.spec.model import CniSpec
from hoplab.spec.plan import in_words
from hoplab.verify import workload

NOTHING = "-"
WIDE = 200  # characters of a rule
HEAD = """# The same packet through every network

Made by `./lab compare` of the recordings in [tests/recordings](../tests/recordings), each of a real lab with two nodes.
Addresses, MACs and names are those of the recorded lab. The row "on the wire" is computed from the other rows; a lesson
with captures checks it on a running lab (`between_nodes_a_packet_travels_wrapped`)."""

ENFORCERS = (
    ("lab", "who decides", "where the packet stops", "whom a policy allows is in"),
    ("flannel", "nobody: a policy changes nothing", NOTHING, NOTHING),
    (
        "flannel, `lab:networkPolicy: kube-network-policies`",
        "a program on each node, about the first packet of a connection",
        "in a queue of the kernel: `inet kube-network-policies`, postrouting at 95, `queue to 98`",
        "the program; a set of nftables has the pods that policies select",
    ),
    (
        "calico, kube-proxy iptables",
        "rules that Felix wrote, about every packet until one is accepted",
        "at a `DROP` in the pod's chain of `filter`, `cali-tw-...` or `cali-fw-...`",
        "an ipset for each selector",
    ),
)
POLICIES = """## Who enforces a NetworkPolicy

The API server accepts every NetworkPolicy. Whether one has an effect depends on what runs on the nodes:"""
DECIDES = """Felix compares policies with pods beforehand and writes the result down: all of it can be read on the node.
A queue leaves that to the program, so its rules are few and the same for every policy. When Felix ends, its rules go
on; when the program of a queue ends, the kernel drops what would go to it. The lessons
`a_policy_denies_what_it_does_not_allow`, `a_policy_allows_by_label` and `a_policy_stops_what_leaves` hold with both,
each with its own evidence."""

TAIL = """## Weave Net

The course compares Weave Net, too. Upstream's project has ended and its repository is archived; a fork was not tried.
Its kernel path (fast datapath) was the Open vSwitch module with VXLAN between nodes and, with a password, IPsec ESP
around it: 50 bytes for the one and up to 37 for the other, so that its pods had an MTU of 1376 by default (source:
Weaveworks' description of Weave Net 1.9). A lab with `lab:cni: {name: flannel, backend: wireguard}` shows the idea: an
overlay whose packets are encrypted between nodes, and the MTU that pays for it."""


@dataclass(frozen=True)
class PodPath:
    """A lab and the two ends of a packet's path: the pods `echo` of the first node and of the second."""

    lab: Snapshot
    pod: Pod
    other: Pod

    @classmethod
    def of(cls, lab: Snapshot) -> PodPath:
        echoes = {pod.node.name: pod for pod in lab.pods if pod.api.label("app") == "echo"}
        if len(echoes) < 2:
            raise LabError(
                f"the recording of lab {lab.setting.lab!r} has no pod `echo` on each of two nodes",
                remedy="record a lab of two workers; ./lab record creates these pods",
            )
        return cls(lab, *[echoes[node.name] for node in lab.nodes if node.name in echoes][:2])

    @property
    def name(self) -> str:
        has = self.lab.setting
        words = in_words(CniSpec(has.cni, has.backend, has.cni_nftables), has.proxy_mode, has.ipv6)
        return words if has.network_policy == "none" else f"{words}, {has.network_policy}"

    @property
    def expected(self) -> NodeExpectations:
        return cni.expectations(self.lab)[self.pod.node.name]

    @property
    def by_programs(self) -> bool:
        """Return whether programs of eBPF take the packet before routes and rules."""
        return cni.by_programs(self.lab)

    def identity(self, pod: Pod) -> int | None:
        """Return a pod's identity in the map of the first node; None where it has no entry."""
        owner = CiliumMaps(self.pod.node.facts).owner(pod.address)
        return owner.identity if owner else None

    @property
    def tunnel(self) -> Tunnel | None:
        return self.expected.tunnel


def page(labs: Iterable[Snapshot]) -> str:
    """Return the page as Markdown."""
    paths = [PodPath.of(lab) for lab in labs]
    parts = [HEAD, _table(paths)]
    parts.append("## From pod to pod\n\nA pod of the first node sends to a pod of the second.")
    parts += [f"### {path.name}\n\n{_shown(_to_pod(path))}" for path in paths]
    parts.append(
        "## From pod to service\n\nThe same pod sends to a ClusterIP with a pod on each node; and to the outside."
    )
    parts += [f"### To a service: {path.name}\n\n{_shown(_to_service(path))}" for path in paths]
    parts += [POLICIES, _rows(ENFORCERS), DECIDES, TAIL]
    return "\n\n".join(parts) + "\n"


def _table(paths: Sequence[PodPath]) -> str:
    rows = [
        [
            "lab",
            "the other node's pods are",
            "wrapped in",
            "MTU of pods",
            "a node's own pods",
            "services are looked up in",
        ],
        *(
            [
                path.name,
                f"`{decide_on(path.pod.node.facts, Flow(path.other.address)).route}`",
                _wrapped(path),
                str(path.pod.mtu or NOTHING),
                _own_pods(path),
                f"maps of {path.lab.setting.cni}" if path.by_programs else proxy.of(path.lab).SERVICES_ARE_IN,
            ]
            for path in paths
        ),
    ]
    return _rows(rows)


def _rows(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])


def _own_pods(path: PodPath) -> str:
    if path.by_programs:
        return "an entry of a map for each"
    return f"one range on `{path.expected.bridge}`" if path.expected.bridge else "a route for each"


def _wrapped(path: PodPath) -> str:
    if path.tunnel is None:
        return "nothing"
    vxlan = path.tunnel.vni is not None or path.tunnel.vni_per_packet
    what = "WireGuard" if path.tunnel.encrypted else "VXLAN" if vxlan else "IP"
    return f"{what}, {path.tunnel.overhead} bytes"


def _shown(lines: Iterable[tuple[str, object]]) -> str:
    """Return a table of places and what was recorded there."""
    found = [(where, str(what)) for where, what in lines]
    width = max(len(where) for where, _ in found)
    return "\n".join(["```", *(f"{where:<{width}}  {what}" for where, what in found), "```"])


def _to_pod(path: PodPath) -> Iterator[tuple[str, object]]:
    pod, other, node = path.pod, path.other, path.pod.node
    to = other.address
    yield "the pod", decide_on(pod.facts, Flow(to)).route or NOTHING
    if end := pod.host_end:
        yield (
            "its other end",
            f"{end.name}, {f'a port of {end.master}' if end.master else f'no port of a bridge, {end.mac}'}",
        )
    if path.by_programs:
        yield from _by_programs(path)
    route = decide_on(node.facts, Flow(to)).route
    yield "the node", route or NOTHING
    for planned in path.expected.routes:
        if to in planned.dst and planned.protocol:
            yield "", f"made by {planned.protocol if planned.protocol.isalpha() else f'proto {planned.protocol}'}"
    if route and route.via and path.tunnel and path.tunnel.vni is not None:
        known = [
            neighbour for neighbour in node[NEIGHBOURS] if (neighbour.address, neighbour.dev) == (route.via, route.dev)
        ]
        yield "its neighbour", next(iter(known), NOTHING)
        macs = {neighbour.mac for neighbour in known}
        yield "its FDB", next((entry for entry in node[FDB] if entry.dev == route.dev and entry.mac in macs), NOTHING)
    for peer in path.expected.peers:
        yield "its peer", next((record for record in node[WIREGUARD] if peer.met_by(record)), NOTHING)
    met = [] if path.by_programs else postrouting(node, Packet(pod.address, to, dport=workload.PORT))
    yield "translated", "no: it meets no rule" if path.by_programs else _translated(met)
    yield "on the wire", _on_the_wire(path)
    yield "the other node", decide_on(other.node.facts, Flow(to)).route or NOTHING
    if path.lab.setting.ipv6:
        yield "the node, by IPv6", decide_on(node.facts, Flow(other.address6)).route or NOTHING


def _by_programs(path: PodPath) -> Iterator[tuple[str, object]]:
    """Yield the program that takes a pod's packet, and the entry of the map that says where it goes."""
    end, node, to = path.pod.host_end, path.pod.node, path.other.address
    maps = CiliumMaps(node.facts)
    yield "its program", (end and maps.program(end.name, "ingress")) or NOTHING
    yield "its map", maps.owner(to) or NOTHING


def _translated(ends: Sequence[Outcome[Rule]]) -> str:
    verdicts = sorted({end.verdict for end in ends})
    return "no" if verdicts == ["ACCEPT"] else ", ".join(verdicts)


def _on_the_wire(path: PodPath) -> str:
    inner = f"{path.pod.address} > {path.other.address}"
    if path.tunnel is None:
        return f"IP {inner}"
    outer = f"IP {path.pod.node.address} > {path.other.node.address}"
    if path.tunnel.encrypted:
        return f"{outer}: {path.tunnel.filter.replace('udp', 'UDP')}: WireGuard, encrypted"
    if path.tunnel.vni_per_packet:
        known_port = path.tunnel.filter.replace("udp", "UDP")
        return f"{outer}: {known_port}: VXLAN, vni {path.identity(path.pod)}, the sender's identity: IP {inner}"
    if path.tunnel.vni is None:
        return f"{outer}: IPIP: IP {inner}"
    link = next((link for link in path.pod.node[LINKS] if link.name == path.tunnel.dev), None)
    known = link.vxlan if link else None
    return f"{outer}: UDP port {known.port}: VXLAN, vni {known.id}: IP {inner}" if known else NOTHING


def _to_service(path: PodPath) -> Iterator[tuple[str, object]]:
    node, pod = path.pod.node, path.pod
    service = next(
        (service for service in proxy.expectations(path.lab) if service.service == f"{workload.NAMESPACE}/echo"), None
    )
    if service is not None:
        yield "the pod sends to", f"{service.cluster_ip}:{service.port}"
        if path.by_programs:
            maps = CiliumMaps(node.facts)
            found = maps.frontend(service.cluster_ip, service.port, service.protocol, inside=True)
            yield "which a map has", found or NOTHING
        for end in () if path.by_programs else prerouting(node, proxy.connection(pod.address, service)):
            chains = [chain for chain in end.chains if not chain.startswith(_chain_prefixes())]
            yield "which goes by", " -> ".join([*chains, end.to or end.verdict])
            yield "", _written(end.last) if end.last else NOTHING
    outside = path.lab.setting.gateway
    for end in postrouting(node, Packet(pod.address, outside, out_dev="eth0")):
        yield "to the outside", f"{end.verdict} in {end.last.chain}" if end.last else end.verdict
        yield "", _written(end.last) if end.last else NOTHING


def _chain_prefixes() -> tuple[str, ...]:
    """Return the chain prefixes of CNIs, which are left out: a path to a service shows only chains of kube-proxy."""
    return tuple(prefix for part in known_parts().cni.values() for prefix in part.chain_prefixes)


def _written(rule: Rule) -> str:
    """Return a rule, cut off where it is too wide for a page."""
    words = str(rule)
    return words if len(words) <= WIDE else f"{words[: WIDE - 3]}..."
