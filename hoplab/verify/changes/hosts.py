"""Entries of hosts and of pods' network namespaces: interfaces, addresses, routes, neighbours, sysctls, files; pure.

Each function takes a parsed fact and yields its entries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hoplab.observe.facts.addresses import AddressOf
from hoplab.observe.facts.bgp import Session
from hoplab.observe.facts.clock import Clock
from hoplab.observe.facts.cni_config import CniConfig
from hoplab.observe.facts.conntrack import Flow
from hoplab.observe.facts.disks import Disk
from hoplab.observe.facts.fdb import FdbEntry
from hoplab.observe.facts.ipam import Reservation
from hoplab.observe.facts.links import Link
from hoplab.observe.facts.neighbours import NeighbourOf
from hoplab.observe.facts.nfqueue import PacketQueue
from hoplab.observe.facts.resolv_conf import ResolvConf, Resolvers
from hoplab.observe.facts.routes import RouteOf
from hoplab.observe.facts.rules import PolicyRule
from hoplab.observe.facts.sockets import Socket
from hoplab.observe.facts.units import Unit
from hoplab.observe.facts.wireguard import Peer
from hoplab.verify.changes.entry import Entry

CLOCK_BOUND = 60.0  # seconds: more is named, as lesson clocks_agree does
EPHEMERAL = range(32768, 61000)  # ports that the kernel chooses: ip_local_port_range
FORWARDING4, FORWARDING6 = "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"
WRITTEN = ("permanent", "static")  # states of FDB entries that no frame made
# nf_conntrack_count counts connections; the others of its folder are settings
COUNTED = frozenset({"net.netfilter.nf_conntrack_count"})
NONE = frozenset[str]()
_SETS = {FORWARDING4: frozenset({FORWARDING4}), FORWARDING6: frozenset({"anycast"})}  # a router has anycast addresses
_OF_INTERFACE = re.compile(r"net\.ipv[46]\.(?:conf|neigh)\.(.+)\.\w+")


def links(found: Iterable[Link]) -> Iterator[Entry]:
    """Yield interfaces. Their index is a number of the moment, and so is that of a veth's other end."""
    for link in found:
        vxlan, port = link.vxlan, link.port
        fields = {
            "state": "up" if link.up else "down",
            "kind": link.kind,
            "mtu": str(link.mtu),
            "MAC": link.mac,
            "master": link.master,
            "port state": port.state if port else "",
            "hairpin": ("on" if port.hairpin else "off") if port else "",
            "parent": link.parent,
            "group": link.group,
            "VRF table": link.vrf_table,
            "VNI": str(vxlan.id) if vxlan else "",
            "local": vxlan.local if vxlan else "",
            "UDP port": str(vxlan.port) if vxlan else "",
            "outgoing dev": vxlan.dev if vxlan else "",
            "learning": ("on" if vxlan.learning else "off") if vxlan else "",
            "remote": vxlan.remote if vxlan else "",
        }
        printed = str(link).partition(": ")[2]
        names = frozenset({link.name, link.peer} - {""})  # both ends of a pair in one namespace share their fate
        yield Entry("interface", (link.name,), fields, printed, link.name, names=names)


def addresses(found: Iterable[AddressOf[Any, Any]]) -> Iterator[Entry]:
    for address in found:
        text = f"{address.address}/{address.network.prefixlen} dev {address.dev}"
        fields = {
            "address": str(address.address),
            "prefix length": str(address.network.prefixlen),
            "broadcast": str(address.broadcast or ""),
            "peer": str(address.peer or ""),
            "scope": address.scope,
        }
        names = frozenset({str(address.address), str(address.network.network_address), str(address.broadcast)})
        key = (address.dev, str(address.address.version))
        yield Entry("address", key, fields, text, names=names - {"None"})


def routes(found: Iterable[RouteOf[Any, Any]]) -> Iterator[Entry]:
    """Yield routes. The kernel's own differ by interface, those of programs by destination."""
    for route in found:
        fields = {
            "route": str(route),
            "proto": route.protocol,
            "scope": route.scope,
            "src": str(route.source or ""),
            "metric": str(route.metric or ""),
            "from": str(route.senders or ""),
        }
        own = route.dev if route.protocol == "kernel" else ""
        key = (route.table, str(route.dst), str(route.tos), route.kind, own)
        to = "default" if route.dst.prefixlen == 0 else str(route.dst)
        within = "" if route.table == "main" else f"table {route.table}"
        words = f"{route.kind}{f' src {route.source}' if route.source else ''}"
        kin = () if within else (str(route.dst), str(route.tos))
        yield Entry("route", key, fields, str(route), to, within, words=words, kin=kin)


def policy_rules(found: Iterable[PolicyRule]) -> Iterator[Entry]:
    for rule in found:
        text = str(rule)
        yield Entry("policy rule", (str(rule.priority),), {"rule": text}, text, f"{rule.priority}")


def neighbours(found: Iterable[NeighbourOf[Any]]) -> Iterator[Entry]:
    """Yield neighbours with a MAC: those that a program wrote stay, learned ones come and go."""
    for neighbour in found:
        written = "PERMANENT" in neighbour.states
        if not neighbour.mac or "NOARP" in neighbour.states:
            continue
        name = f"{neighbour.address} dev {neighbour.dev}"
        text = f"{name} lladdr {neighbour.mac} {'PERMANENT' if written else 'learned'}"
        fields = {"lladdr": neighbour.mac, "state": "PERMANENT" if written else "learned"}
        key = (neighbour.dev, str(neighbour.address))
        yield Entry("neighbour", key, fields, text, name, momentary=not written)


def fdb(found: Iterable[FdbEntry]) -> Iterator[Entry]:
    """Yield FDB entries without those of group addresses, which the kernel makes for each interface itself.

    An entry for VXLAN has a destination, whoever wrote it; one of a bridge's port that is not permanent was learned.
    """
    for one in found:
        to_host = one.dst or one.nexthop
        if one.is_group and not to_host:
            continue
        fields = {
            "dst": one.dst,
            "nexthop": str(one.nexthop or ""),
            "port": str(one.port or ""),
            "VNI": str(one.vni or ""),
            "via": one.via,
        }
        learned = one.state not in WRITTEN and not to_host
        key = (one.dev, one.mac, str(one.vlan), "" if to_host or learned else one.state)
        vlan = f" vlan {one.vlan}" if one.vlan else ""
        master = f" master {one.master}" if one.master else ""
        state = f" {one.state}" if one.state and not to_host else ""
        text = f"{one}{vlan}{master}{state}"
        yield Entry("FDB entry", key, fields, text, f"{one.mac} dev {one.dev}", momentary=learned)


def sysctls(found: Mapping[str, str]) -> Iterator[Entry]:
    for name, value in found.items():
        if name in COUNTED:
            continue
        interface = _OF_INTERFACE.fullmatch(name)
        words = interface[1] if interface else ""
        if interface and name.startswith("net.ipv4.") and name.endswith(".forwarding"):
            words += f" {FORWARDING4}"  # which sets it too
        yield Entry(
            "sysctl", (name,), {"value": value}, f"{name} = {value}", name, names=_SETS.get(name, NONE), words=words
        )


def reservations(found: Iterable[Reservation]) -> Iterator[Entry]:
    for one in found:
        name = f"{one.address} of {one.network}"
        text = f"{name} for {one.container[:12] or 'nobody'} {one.dev}".rstrip()
        fields = {"container": one.container, "dev": one.dev}
        yield Entry("IPAM reservation", (one.network, str(one.address)), fields, text, name, words=one.container)


def cni_configs(found: Iterable[CniConfig]) -> Iterator[Entry]:
    for config in found:
        fields = {
            "name": config.name,
            "plugins": ", ".join(config.plugins),
            "problem": config.problem,
            "delegates": "; ".join(", ".join(names) for names in config.delegates),
            "network": config.network,
        }
        text = f"{config.path}: {config.name or 'no name'}, plugins {', '.join(config.plugins) or 'none'}"
        yield Entry("CNI configuration", (config.path,), fields, text, config.path)


def sockets(found: Iterable[Socket]) -> Iterator[Entry]:
    """Yield listening sockets without those of a program at a port that the kernel chose for it."""
    for socket in found:
        if not (socket.port in EPHEMERAL and socket.processes):
            key = (socket.protocol, socket.address, socket.dev, str(socket.port))
            yield Entry("listening socket", key, {"process": ", ".join(socket.processes)}, str(socket))


def bgp(found: Iterable[Session]) -> Iterator[Entry]:
    for session in found:
        names = frozenset({str(session.peer)} if session.peer else ())
        fields = {"state": session.state, "info": " ".join(session.info.split())}
        text = " ".join(str(session).split())
        yield Entry("BGP session", (session.name,), fields, text, session.name, names=names)


def wireguard(found: Iterable[Peer]) -> Iterator[Entry]:
    for peer in found:
        fields = {"endpoint": peer.endpoint, "allowed ips": ", ".join(map(str, peer.allowed))}
        name = f"{peer.key[:8]}... of {peer.dev}"
        yield Entry("WireGuard peer", (peer.dev, peer.key), fields, str(peer).removeprefix("peer "), name)


def units(found: Iterable[Unit]) -> Iterator[Entry]:
    for unit in found:
        health = f", health {unit.health}" if unit.health else ""
        fields = {"state": unit.state, "health": unit.health}
        yield Entry("unit", (unit.name,), fields, f"{unit.name}: {unit.state}{health}", unit.name)


def packet_queues(found: Iterable[PacketQueue]) -> Iterator[Entry]:
    """Yield queues that programs read; which socket reads one is a number of the moment."""
    for queue in found:
        name = str(queue.number)
        yield Entry(
            "packet queue", (name,), {}, f"{name}, read by a program", name, names=frozenset({f"queue to {name}"})
        )


def disks(found: Iterable[Disk]) -> Iterator[Entry]:
    """Yield mounted file systems; how full they are is said only where they are full."""
    for disk in found:
        fields = {"device": disk.device, "state": "full" if disk.full else "not full"}
        yield Entry("file system", (disk.mount,), fields, f"{disk.device} on {disk.mount}", disk.mount)


def clock(found: Clock) -> Iterator[Entry]:
    """Yield the clock: whether it is off by more than a minute."""
    state, text = "right", "right"
    if found.least > CLOCK_BOUND:
        state, text = "ahead", f"{found.least / 60:.0f} min ahead"
    elif found.most < -CLOCK_BOUND:
        state, text = "behind", f"{-found.most / 60:.0f} min behind"
    yield Entry("clock", ("clock",), {"state": state}, text)


def resolvers(found: Resolvers) -> Iterator[Entry]:
    yield _resolv_conf("/etc/resolv.conf", "of the node", found.node)
    if found.resolved:
        yield _resolv_conf("systemd-resolved", "of systemd-resolved", found.resolved)
    servers = ", ".join(found.cluster_dns)
    yield Entry("clusterDNS", ("clusterDNS",), {"servers": servers}, servers, "of the kubelet")
    for pod, confs in found.pods.items():
        for conf in confs:
            yield _resolv_conf(pod, f"of pod {pod}", conf)


def _resolv_conf(key: str, name: str, conf: ResolvConf) -> Entry:
    servers = ", ".join(conf.nameservers)
    fields = {"nameserver": servers, "search": " ".join(conf.search), "options": " ".join(conf.options)}
    return Entry("resolv.conf", (key,), fields, f"{name}: {servers}", name)


def flows(found: Iterable[Flow]) -> Iterator[Entry]:
    """Yield connections by their ends, each once: clients choose their ports at random."""
    kinds = {}
    for flow in found:
        there = f"{flow.original.src} -> {flow.original.dst}{_port(flow.original.dport)}"
        back = f"{flow.reply.src}{_port(flow.reply.sport)} -> {flow.reply.dst}"
        kinds[flow.protocol, there, back] = f"{flow.protocol} {there}, replies {back}"
    for key, text in kinds.items():
        yield Entry("connection", key, {}, text, momentary=True)


def _port(number: int) -> str:
    return f":{number}" if number else ""
