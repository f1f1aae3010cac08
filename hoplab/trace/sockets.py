"""Programs of eBPF at the sockets of pods and nodes, with Cilium in the place of kube-proxy; pure.

They translate the address of a service when a program connects, before there is a packet, and answer with that address
when it asks whom it is connected to. bpftool does not list them beside those at interfaces: the program at a node's
uplink, which is there in the place of kube-proxy only, says that they are there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hoplab.core.ip import with_port
from hoplab.netfilter.packet import Packet
from hoplab.observe.cilium_maps import SERVED
from hoplab.observe.facts.cilium_services import Frontend
from hoplab.trace.landing import Ended, Landing
from hoplab.trace.model import MAPS, Event, Header, Hop
from hoplab.trace.topology import Space

if TYPE_CHECKING:
    from hoplab.trace.walk import Walk

PROGRAM = "program"  # the kind of an event, and of an end
OF_UPLINK = "cil_to_netdev"
WHERE = f"{MAPS}, at the socket"


def translated(walk: Walk, space: Space, packet: Packet) -> Packet:
    """Return a packet as a program at its sender's socket has it sent; raise Ended where it refuses the connection."""
    node = walk.topology.node_of(space)
    if packet.protocol not in SERVED or not stands_for_kube_proxy(node):
        return packet
    frontend = node.maps.frontend(packet.dst, packet.dport, packet.protocol, inside=True)
    frontend = frontend or node.maps.node_port(packet.dst, packet.dport, packet.protocol)
    if frontend is None:
        return packet
    found = drawn(walk, frontend, packet)
    if isinstance(found, str):
        walk.hop(Hop(space.place, "", "out", Header.of(packet)))
        why = f"the program at the socket of {space.place} refuses the connection: {found}"
        raise Ended(walk.end(node.place, PROGRAM, found, why, missing=walk.missing(packet)))
    sent_to, to = with_port(packet.dst, packet.dport), with_port(found.dst, found.dport)
    walk.first = (*walk.first, Event("dnat", str(frontend), WHERE, f"destination {sent_to} becomes {to}"))
    return found


def drawn(walk: Walk, frontend: Frontend, packet: Packet) -> Packet | str:
    """Return the packet for the endpoint of a service that a random number draws; without one what the map has."""
    if not frontend.backends:
        return str(frontend)
    backend = frontend.backends[walk.draw(len(frontend.backends))]
    if backend.address is None:
        return f"{frontend.where}: slot {backend.slot} leads {backend.to}"
    return replace(packet, dst=backend.address, dport=backend.port)


def restored(walk: Walk, back: Landing) -> Landing:
    """Return where a reply has landed, with the address that its receiver asked for."""
    known = walk.socket
    if known is None or known.came == known.went or not known.has_reply(back.packet):
        return back
    packet = replace(back.packet, src=known.came.dst, sport=known.came.dport)
    walk.event("restored", "the address of the service", WHERE, f"{Header.of(back.packet)} becomes {Header.of(packet)}")
    return replace(back, packet=packet)


def stands_for_kube_proxy(node: Space) -> bool:
    """Return whether Cilium is there in the place of kube-proxy."""
    program = node.maps.program(node.node.uplink, "egress")
    return program is not None and program.name == OF_UPLINK
