"""Programs of eBPF that take a packet at an interface of a node, before routes and rules: Cilium's; pure.

Each looks into maps of its node, and delivers, wraps, refuses or drops the packet, or leaves it to the kernel. They
keep connections of their own: a reply gets the address of its service where it enters the pod of the client.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from hoplab.core.ip import with_port
from hoplab.expectations.cni.cilium import HOST, LOOPBACK, PORT, VXLAN
from hoplab.netfilter.packet import Packet
from hoplab.observe.cilium_maps import HOST as OF_HOST
from hoplab.observe.cilium_maps import REMOTE_NODE, SERVED, WORLD
from hoplab.observe.facts.bpf_programs import Program
from hoplab.observe.facts.cilium_endpoints import Endpoint
from hoplab.observe.facts.cilium_services import Frontend
from hoplab.trace import link
from hoplab.trace.landing import Ended, Landing
from hoplab.trace.model import MAPS, Header, Hop
from hoplab.trace.routes import decide
from hoplab.trace.sockets import PROGRAM, drawn, stands_for_kube_proxy
from hoplab.trace.topology import Space

if TYPE_CHECKING:
    from hoplab.trace.walk import Walk

FROM_POD, FROM_HOST, FROM_TUNNEL = "cil_from_container", "cil_from_host", "cil_from_overlay"
FROM_NETWORK = "cil_from_netdev"
INSIDE_ONLY = "non-routable"  # the flag of a service that is not for clients outside of the cluster
_MARKS, _MARK_OF_HOST = 0xF00, 0xC00  # bits of a packet's mark, and those that a rule of Cilium sets for the node's own


@dataclass(frozen=True)
class Left:
    """A packet that a program leaves to the kernel, which sees it come in at an interface."""

    packet: Packet
    dev: str


def comes_in(walk: Walk, node: Space, packet: Packet, dev: str, vni: int = 0) -> Landing | Left:
    """Follow a packet that comes out of an interface into a node; ``vni`` came with one that was unwrapped there."""
    program = node.maps.program(dev, "ingress")
    if program and program.name == FROM_POD:
        return _At(walk, node, program).from_pod(packet)
    if program and program.name == FROM_TUNNEL:
        return _At(walk, node, program).from_tunnel(packet, vni)
    if program and program.name == FROM_NETWORK and stands_for_kube_proxy(node):
        return _At(walk, node, program).from_network(packet)
    return Left(packet, dev)


def goes_out(walk: Walk, node: Space, packet: Packet, dev: str) -> Landing | None:
    """Follow a packet that a node sends out of an interface; None where no program takes it."""
    program = node.maps.program(dev, "egress")
    return _At(walk, node, program).from_host(packet) if program and program.name == FROM_HOST else None


@dataclass(frozen=True)
class _At:
    """A packet at a program."""

    walk: Walk
    node: Space
    program: Program

    # --- what a pod sends ---

    def from_pod(self, packet: Packet) -> Landing | Left:
        maps, dev = self.node.maps, self.program.dev
        sender = next((pod for pod in maps.pods() if pod.index == self.node.links[dev].index), None)
        identity = sender.identity if sender else maps.identity(packet.src)
        if self._looped(packet) and sender:
            return self._delivered(packet, sender, identity)
        if not maps.endpoint(packet.dst) and self._is_of_node_port(packet):
            return self._sent(self._restored(packet))
        came, translated = packet, self._translated(packet)
        itself = translated.dst == came.src
        if sender and not itself:
            self._require_allowed(sender, maps.identity(translated.dst), translated, egress=True)
        if sender and itself:
            away = ip_address(LOOPBACK[translated.dst.version])
            self._event("snat", "a pod that is its own endpoint", f"source {translated.src} becomes {away}")
            translated = replace(translated, src=away)
        if translated != came:
            self.walk.keep(self.node.place, came, translated)
        if sender and itself:
            return self._delivered(translated, sender, identity)
        return self._forwarded(translated, identity) or Left(translated, dev)

    def _translated(self, packet: Packet) -> Packet:
        """Return the packet for one of the endpoints, where its destination is a service; raise Ended without any."""
        frontend = None
        if packet.protocol in SERVED and not self.walk.reply:
            frontend = self.node.maps.frontend(packet.dst, packet.dport, packet.protocol, inside=True)
        return self._drawn(packet, frontend) if frontend else packet

    def _drawn(self, packet: Packet, frontend: Frontend) -> Packet:
        found = drawn(self.walk, frontend, packet)
        if isinstance(found, str):
            raise self._ended(packet, found, f"{self.program} of {self.node.place} refuses it: {found}")
        sent_to, to = with_port(packet.dst, packet.dport), with_port(found.dst, found.dport)
        self._event("dnat", str(frontend), f"destination {sent_to} becomes {to}")
        return found

    def _looped(self, packet: Packet) -> bool:
        """Return whether it is the reply of a pod to itself."""
        return str(packet.dst) in LOOPBACK.values() and self.walk.reply

    # --- what the node sends, and what comes from other nodes ---

    def from_host(self, packet: Packet) -> Landing | None:
        own = packet.mark & _MARKS == _MARK_OF_HOST
        identity = OF_HOST if own else WORLD
        if (known := self.node.maps.identity(packet.src)) != OF_HOST:
            identity = known
        if landing := self._forwarded(packet, identity):
            return landing
        owner = self.node.maps.owner(packet.dst)
        if owner is None or owner.identity == WORLD:
            why = f"{self.program} of {self.node.place} drops it: its map has {packet.dst} behind no node"
            raise self._ended(packet, f"no owner of {packet.dst}", why)
        if self.node.maps.endpoint(packet.dst):
            return None
        knows = f"{self.program} of {self.node.place} knows no pod that has {packet.dst}"
        raise self._ended(packet, f"no endpoint {packet.dst}", f"{knows}, and hands it to the kernel again: in circles")

    def from_tunnel(self, packet: Packet, vni: int) -> Landing | Left:
        pod = self.node.maps.endpoint(packet.dst)
        identity = self.node.maps.identity(packet.src) if vni == REMOTE_NODE else vni
        if pod and pod.id:
            return self._delivered(packet, pod, identity)
        if self._is_of_node_port(packet):
            return self._sent(self._restored(packet))
        self.walk.event(PROGRAM, str(self.program), result=f"to {HOST}, for the kernel")
        hop = self.walk.hops[-1]
        self.walk.hops[-1] = replace(hop, interface=HOST, port=hop.interface)
        return Left(packet, HOST)

    # --- what comes from the network, in the place of kube-proxy ---

    def from_network(self, packet: Packet) -> Landing | Left:
        """Follow a packet for a NodePort or a balancer's address, or a reply that an endpoint elsewhere has sent."""
        maps, place, dev = self.node.maps, self.node.place, self.program.dev
        if self._is_of_node_port(packet):
            return self._sent(self._restored(packet))
        found = maps.frontend(packet.dst, packet.dport, packet.protocol, inside=False)
        if found is None or packet.protocol not in SERVED or self.walk.reply:
            return Left(packet, dev)
        if INSIDE_ONLY in found.flags:
            raise self._ended(packet, str(found), f"{self.program} of {place} drops it: {found} is for clients inside")
        went = self._drawn(packet, found)
        if maps.endpoint(went.dst):
            self.walk.keep(place, packet, went)
            return Left(went, dev)
        owner = maps.owner(went.dst)
        wrapped = owner is not None and owner.tunnel is not None and maps.program(VXLAN, "egress") is not None
        by = HOST if wrapped else self.node.node.uplink
        went = replace(went, src=self.node.source_to(went.dst, by) or went.src)
        self._event("snat", "an endpoint elsewhere", f"source {packet.src} becomes {went.src}")
        self.walk.keep(place, packet, went)
        return self._forwarded(went, WORLD) or self._sent(went)

    def _is_of_node_port(self, packet: Packet) -> bool:
        """Return whether it is the reply to what a program here has sent on from outside."""
        return (
            self.walk.reply and stands_for_kube_proxy(self.node) and self.walk.kept(self.node.place, packet) is not None
        )

    def _sent(self, packet: Packet) -> Landing:
        """Follow a packet that a program sends itself, by the kernel's routes and past its rules."""
        decided = decide(self.node, packet)
        if not decided.dev:
            why = f"{self.program} of {self.node.place} finds no route to {packet.dst}"
            raise self._ended(packet, f"no route to {packet.dst}", why)
        self.walk.event(decided.event.kind, decided.event.text, decided.event.where)
        self._out(decided.dev, packet)
        return link.out_of_node(self.walk, self.node, packet, decided, None)

    # --- where it goes ---

    def _forwarded(self, packet: Packet, identity: int) -> Landing | None:
        """Follow a packet to a pod of this node or, wrapped, to another node; None where it is left to the kernel."""
        pod, owner = self.node.maps.endpoint(packet.dst), self.node.maps.owner(packet.dst)
        if pod:
            return self._delivered(packet, pod, identity) if pod.id else None
        if not (owner and owner.tunnel and self.node.maps.program(VXLAN, "egress")):
            return None
        self._event(PROGRAM, str(self.program), str(owner))
        self._out(VXLAN, packet)
        link.require_up(self.walk, self.node, self.node.links.get(VXLAN), VXLAN, self.walk.missing(packet))
        vni = REMOTE_NODE if identity == OF_HOST else identity
        outer = Packet(packet.src, owner.tunnel, "udp", PORT)
        return link.wrapped(self.walk, self.node, packet, outer, f"VXLAN, VNI {vni}", "vxlan", vni)

    def _delivered(self, packet: Packet, pod: Endpoint, identity: int) -> Landing:
        """Follow a packet to a pod of this node."""
        walk, node = self.walk, self.node
        if not walk.reply and str(packet.src) not in LOOPBACK.values():
            self._require_allowed(pod, identity, packet, egress=False)
        end = next((found for found in node.links.values() if found.index == pod.index), None)
        if end is None:
            why = f"the map of {node.place} has {packet.dst} at interface {pod.index}, which is not there"
            raise self._ended(packet, f"no interface {pod.index}", why)
        self._event(PROGRAM, str(self.program), f"{pod.address} is at {end.name}")
        restored = self._restored(packet)
        self._out(end.name, restored)
        for space in walk.topology.pods_on(node):
            if walk.topology.host_end(space) == end:
                self._require_mac(packet, pod, space)
                return link.into_pod(walk, node, restored, end, space)
        why = f"no pod of {node.place} has {end.name}, which its map has for {pod.address}"
        raise self._ended(packet, str(end), why)

    def _restored(self, packet: Packet) -> Packet:
        """Return a reply with the addresses of its connection, as its client knows them."""
        known = self.walk.kept(self.node.place, packet) if self.walk.reply else None
        if known is None:
            return packet
        came = known.came
        restored = replace(packet, src=came.dst, sport=came.dport, dst=came.src)
        self._event("restored", str(self.program), f"{Header.of(packet)} becomes {Header.of(restored)}")
        return restored

    # --- what it must not meet ---

    def _require_allowed(self, pod: Endpoint, other: int, packet: Packet, *, egress: bool) -> None:
        """Raise Ended where the policy map of a pod does not allow a packet; replies are not looked up."""
        maps = self.node.maps
        if self.walk.reply:
            return
        if not maps.has_policy_map(pod):
            self.walk.notes.append(f"whom {pod.address} may talk to is not in the facts of {self.node.place}")
            return
        entry = maps.deciding(pod, other, packet.protocol, packet.dport, egress=egress)
        if entry and not entry.deny:
            return
        way, who = ("egress", "to") if egress else ("ingress", "from")
        aim = packet.protocol.upper() + (f" port {packet.dport}" if packet.dport else "")
        found = str(entry) if entry else f"no entry allows {who} identity {other}, {aim}"
        why = f"the policy map of {pod.address} on {self.node.place}, {way}: {found}"
        raise self._ended(packet, found, why)

    def _require_mac(self, packet: Packet, pod: Endpoint, space: Space) -> None:
        eth0 = space.pod.eth0 if space.pod else None
        if eth0 and pod.mac != eth0.mac.lower():
            known = f"{pod.address} {pod.mac}"
            why = f"the map of {self.node.place} has {known}; the MAC of {space.place} is {eth0.mac}"
            raise self._ended(packet, known, why)

    # --- hops and events ---

    def _out(self, dev: str, packet: Packet) -> None:
        """Note where the packet leaves the node: what the node itself sends has that hop already."""
        walk, last = self.walk, self.walk.hops[-1]
        walk.route = (self.node.place, str(self.program))
        if (last.place, last.direction) == (self.node.place, "out"):
            walk.hops[-1] = replace(last, interface=dev, header=Header.of(packet))
        else:
            walk.hop(Hop(self.node.place, dev, "out", Header.of(packet)))

    def _event(self, kind: str, text: str, result: str) -> None:
        self.walk.event(kind, text, MAPS if kind == PROGRAM else f"{MAPS}, {self.program.name}", result)

    def _ended(self, packet: Packet, cause: str, why: str) -> Ended:
        return Ended(self.walk.end(self.node.place, PROGRAM, cause, why, missing=self.walk.missing(packet)))
