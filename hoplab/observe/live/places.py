"""What to capture, where: pods, nodes and the lab network as interfaces in namespaces of hosts; pure.

wanted = resolve([Target.parse("web"), Target.parse("worker1:flannel.1")], nodes, pods)
places = spread(wanted, found, with_node=True)          # found: what a look at each host showed
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hoplab.core.errors import LabError
from hoplab.core.ip import IPAddress
from hoplab.observe.facts.api_pods import ApiPod
from hoplab.observe.facts.links import LINKS, Link
from hoplab.observe.setting import UPLINK

POD_DEV = "eth0"
ANY = "any"  # tcpdump's device for all interfaces of a namespace
TUNNELS = frozenset({"vxlan", "geneve", "ipip", "sit", "gre", "ip6tnl", "wireguard"})  # kinds of interfaces
MAX_LISTED = 12  # names in a remedy


@dataclass(frozen=True)
class Target:
    """A pod or node as it was typed, and the interface: ``web-1:eth0``."""

    name: str  # "worker1", "default/web-1", "web"
    dev: str = ""  # "" for the usual one

    @classmethod
    def parse(cls, text: str) -> Target:
        """Return the target of a text; raise LabError for a text that names nothing.

        >>> Target.parse("kube-system/coredns-1:eth0"), Target.parse("worker1")
        (Target(name='kube-system/coredns-1', dev='eth0'), Target(name='worker1', dev=''))
        """
        found = re.fullmatch(r"([a-z0-9.-]+(?:/[a-z0-9.-]+)?)(?::([^\s/:]{1,15}))?", text)
        if not found:
            raise LabError(
                f"{text!r} can't be captured",
                remedy="name a pod as [NAMESPACE/]POD or a node, with [:INTERFACE] after it: worker1:flannel.1",
            )
        return cls(found[1], found[2] or "")


@dataclass(frozen=True)
class Wanted:
    """A target that was found in the cluster: an interface of a node, or of a pod on it."""

    node: str
    dev: str
    pod: ApiPod | None = None

    @property
    def address(self) -> IPAddress | None:
        """Return the address that the pod's namespace is found by."""
        return (self.pod.address or self.pod.address6) if self.pod else None


@dataclass(frozen=True)
class Place:
    """An interface in a namespace of a host."""

    node: str  # "" for this machine
    netns: str  # below /run/netns of that host; "" for the host's own
    dev: str
    label: str  # "pod default/web-1 eth0 on worker1"
    short: str  # on the screen: "default/web-1 eth0"

    @property
    def key(self) -> tuple[str, str, str]:
        return self.node, self.netns, self.dev


@dataclass(frozen=True)
class Found:
    """What a look at a host showed."""

    connection: str = ""  # SSH's: "192.168.77.1 40112 192.168.77.20 22"; "" on this machine
    namespaces: Mapping[str, str] = field(default_factory=dict)  # by address, as `hex_of` has it
    devices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # names of interfaces, by namespace
    links: Mapping[str, str] = field(default_factory=dict)  # output of iproute2, by namespace
    trouble: str = ""  # why a namespace could not be looked at


def hex_of(address: IPAddress) -> str:
    """Return an address as a relay knows it: dotted, or the 32 hexadecimal digits of IPv6.

    >>> from ipaddress import ip_address
    >>> hex_of(ip_address("10.244.1.3")), hex_of(ip_address("fd00::1"))
    ('10.244.1.3', 'fd000000000000000000000000000001')
    """
    return str(address) if address.version == 4 else address.packed.hex()


def needs_pods(targets: Iterable[Target], nodes: Collection[str]) -> bool:
    """Return whether a target is something else than a node."""
    return any(target.name not in nodes for target in targets)


def resolve(targets: Iterable[Target], nodes: Sequence[str], pods: Sequence[ApiPod]) -> tuple[Wanted, ...]:
    """Return what each target is: a node by its name, otherwise a pod by its name or an unambiguous beginning of it.

    Raise LabError for a target that is none, several, or a pod without a namespace of its own.
    """
    found = []
    for target in targets:
        if target.name in nodes:
            found.append(Wanted(target.name, target.dev or UPLINK))
            continue
        pod = _pod(target.name, nodes, pods)
        if pod.host_network:
            raise LabError(
                f"{pod} has no interfaces of its own: it uses those of its node",
                remedy=f"capture the node: ./lab capture {pod.node}",
            )
        if not pod.running or pod.node not in nodes or not (pod.address or pod.address6):
            raise LabError(
                f"{pod} does not run yet, or not any more",
                remedy=f"see ./lab kubectl -n {pod.namespace} get pod {pod.name} -o wide",
            )
        found.append(Wanted(pod.node, target.dev or POD_DEV, pod))
    return tuple(dict.fromkeys(found))


def _pod(name: str, nodes: Sequence[str], pods: Sequence[ApiPod]) -> ApiPod:
    """Return the pod of this name, with or without its namespace, or the only one whose name begins so."""
    namespace, slash, short = name.rpartition("/")
    here = [pod for pod in pods if not pod.going and (not slash or pod.namespace == namespace)]
    matches = [pod for pod in here if pod.name == short] or [pod for pod in here if pod.name.startswith(short)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise LabError(f"{name} is the beginning of several pods' names", remedy=f"one of: {_listed(matches)}")
    everything = [*nodes, *(str(pod) for pod in pods), *(pod.name for pod in pods)]
    near = difflib.get_close_matches(name, everything, n=1)
    remedy = f"did you mean {near[0]}?" if near else f"there are {_listed([*nodes, *pods])}"
    raise LabError(f"there is no pod or node {name}", remedy=remedy)


def _listed(names: Sequence[object]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(map(str, names[:MAX_LISTED])) + more


def spread(
    wanted: Iterable[Wanted], found: Mapping[str, Found], *, with_node: bool = False, wire: Place | None = None
) -> tuple[Place, ...]:
    """Return the places of what is wanted, each once, in this order: the pod, its way through the node, the wire.

    ``found`` are the looks at the hosts by name. Raise LabError for a pod or an interface that is not there.
    """
    places: dict[tuple[str, str, str], Place] = {}
    for one in wanted:
        host = found[one.node]
        netns = _netns(one, host)
        _require_device(one, host, netns)
        for place in (_place(one, netns), *(_on_the_way(one, host, netns) if with_node else ())):
            places.setdefault(place.key, place)
    if wire:
        places.setdefault(wire.key, wire)
    return tuple(places.values())


def _netns(one: Wanted, host: Found) -> str:
    if one.address is None:
        return ""
    netns = host.namespaces.get(hex_of(one.address), "")
    if not netns:
        raise LabError(
            f"no network namespace on {one.node} has the address of {one.pod}, {one.address}",
            remedy=host.trouble or f"the pod may have ended: ./lab kubectl get pods -A -o wide; ./lab ssh {one.node}",
        )
    return netns


def _require_device(one: Wanted, host: Found, netns: str) -> None:
    names = host.devices.get(netns, ())
    if one.dev not in (*names, ANY):
        where = f"pod {one.pod}" if one.pod else one.node
        near = difflib.get_close_matches(one.dev, names, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"it has {_listed([*names])}"
        raise LabError(f"{where} has no interface {one.dev}", remedy=remedy)


def _place(one: Wanted, netns: str) -> Place:
    if one.pod:
        return Place(one.node, netns, one.dev, f"pod {one.pod} {one.dev} on {one.node}", f"{one.pod} {one.dev}")
    return _of_node(one.node, one.dev)


def _of_node(node: str, dev: str, what: str = "") -> Place:
    return Place(node, "", dev, f"node {node} {dev}{f' of {what}' if what else ''}", f"{node} {dev}")


def _on_the_way(one: Wanted, host: Found, netns: str) -> Iterator[Place]:
    """Yield the interfaces of a node that packets of a pod cross, or all of them between which a node decides."""
    own: tuple[Link, ...] = LINKS.parse(host.links.get("", "[]"))
    bridges = {link.name for link in own if link.kind == "bridge" and link.up}
    if one.pod:
        inside = next((link for link in LINKS.parse(host.links.get(netns, "[]")) if link.name == one.dev), None)
        end = next((link for link in own if inside and link.index == (inside.peer_index or inside.parent_index)), None)
        if end:
            yield _of_node(one.node, end.name, f"pod {one.pod}" if inside and inside.peer_index else "")
            bridges &= {end.master}
        else:
            bridges = set()
    tunnels = [link.name for link in own if link.kind in TUNNELS and link.up]
    # a packet that is passed up keeps its time (veth to bridge, NIC to tunnel): the order of places decides then
    for name in (*sorted(bridges), *(link.name for link in own if link.name == UPLINK), *tunnels):
        yield _of_node(one.node, name)


def commands(places: Sequence[Place], found: Mapping[str, Found], own_filter: str, snaplen: int) -> list[list[str]]:
    """Return tcpdump's command for each place, its filter last, "" where it has none.

    A host's own interfaces would show the SSH connection that carries what they show: the filter excludes it.
    """
    listed = []
    for place in places:
        parts = [own_filter] if own_filter else []
        if carrying := _carrying(place, found):
            parts = [f"({own_filter})"] if own_filter else []
            parts.append(f"not ({' or '.join(f'({text})' for text in carrying)})")
        words = ["tcpdump", "-i", place.dev, "-n", "-U", "--immediate-mode", "--time-stamp-precision=nano"]
        listed.append([*words, "-s", str(snaplen), "-w", "-", "--", " and ".join(parts)])
    return listed


def _carrying(place: Place, found: Mapping[str, Found]) -> list[str]:
    """Return filters for the SSH connections that pass at a place: a node's own there, those of all on the wire."""
    if place.node and place.netns:
        return []
    hosts = [found[place.node]] if place.node else found.values()
    return [_tuple_filter(host.connection) for host in hosts if host.connection]


def _tuple_filter(connection: str) -> str:
    """Return the filter for one TCP connection.

    >>> _tuple_filter("192.168.77.1 40112 192.168.77.20 22")
    'tcp and host 192.168.77.1 and port 40112 and host 192.168.77.20 and port 22'
    """
    client, port, server, server_port = connection.split()
    return f"tcp and host {client} and port {port} and host {server} and port {server_port}"
