"""One line for a packet on the screen; pure.

10.244.1.3:4242 > 10.244.2.5:80 tcp S
192.168.77.20:40123 > 192.168.77.21:8472 vxlan 1 { 10.244.1.3:4242 > 10.244.2.5:80 tcp S }
arp who-has 10.244.1.1 tell 10.244.1.3
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from hoplab.core.ip import with_port
from hoplab.observe import pcap
from hoplab.observe.live.pcap_stream import SECOND, Record
from hoplab.observe.pcap import CapturedPacket

ICMP: Mapping[int | None, str] = {0: "echo reply", 3: "unreachable", 5: "redirect", 8: "echo request", 11: "exceeded"}
NUMBERS = {"2": "igmp", "47": "gre", "50": "esp", "58": "icmp6", "89": "ospf", "132": "sctp"}  # of IP protocols


def line(place: str, time: int, record: Record, link_type: int) -> str:
    """Return the line of a packet; ``time`` is in nanoseconds since 1970 and shown in the local time zone."""
    clock = datetime.fromtimestamp(time // SECOND).strftime("%H:%M:%S")
    return f"{clock}.{time % SECOND // 1000:06d} {place}  {described(record, link_type)}"


def described(record: Record, link_type: int) -> str:
    """Return the headers of a packet in words."""
    packet = pcap.decoded(record.data, link_type, CapturedPacket(0.0, ""))
    if packet is None:
        return f"link type {link_type}, {record.size} bytes"
    return f"{_headers(packet)} {record.size} bytes"


def _headers(packet: CapturedPacket) -> str:
    if packet.protocol == "arp":
        if packet.arp_op == 1:
            return f"arp who-has {packet.dst} tell {packet.src}"
        return f"arp {packet.src} is-at {packet.eth_src}"
    if packet.src is None or packet.dst is None:
        ends = f"{packet.eth_src} > {packet.eth_dst} " if packet.eth_src else ""
        return f"{ends}{packet.protocol or 'cut off'}"
    src, dst = str(packet.src), str(packet.dst)
    if packet.sport or packet.dport:
        src, dst = with_port(packet.src, packet.sport), with_port(packet.dst, packet.dport)
    return f"{src} > {dst} {_protocol(packet)}"


def _protocol(packet: CapturedPacket) -> str:
    inner = f" {{ {_headers(packet.inner)} }}" if packet.inner else ""
    match packet.protocol:
        case "tcp":
            return f"tcp {packet.flags}".rstrip()
        case "udp" if packet.vni is not None:
            return f"vxlan {packet.vni}{inner}"
        case "icmp":
            return f"icmp {ICMP.get(packet.icmp_type, f'type {packet.icmp_type}')}"
        case name:
            return f"{NUMBERS.get(name, name if not name.isdigit() else f'protocol {name}')}{inner}"
