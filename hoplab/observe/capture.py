"""Packets as they passed an interface: captured by tcpdump while a command runs, and read into frozen records.

    commands = capture.around("curl http://10.244.1.3:8080/", {"outer": Capture("eth0", "udp port 8472")})
    capture.read(hosts.batch("worker1", commands))["outer"]     # tuple[Packet, ...]

The commands go into one batch: a capture starts, the command runs, the capture ends. Where what sends is not the node
that is captured, `start` and `stop` go into a batch each.

pcap and the few headers are read here: they have fixed layouts, and the libraries that could do it are either under a
license that hoplab's does not go with (scapy) or asleep and without VXLAN (dpkt).
"""

from __future__ import annotations

import base64
import secrets
import shlex
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from hoplab.core.errors import LabError
from hoplab.observe.script import Output

VXLAN_PORTS = (8472, 4789)  # Linux's own default, which flannel uses, and IANA's
COMMAND = "command"  # key of the command's own output in a batch
PREFIX = "capture."  # of the keys of captures in a batch
PAUSE = 0.05  # seconds between two looks at tcpdump
LISTEN_TRIES = 400  # looks until it has to listen
FLUSH_TRIES = 40  # looks until it has to have written what the kernel saw for it
FORGOTTEN = 300  # seconds until a capture that nobody stops ends by itself
MOST = 10_000  # packets; a capture that sees more fails
KEPT = 256  # bytes of a packet: more than all headers, VXLAN and the inner ones included

_ORDERS = {  # byte order and unit of the fractions of a second, by the first bytes of a capture file
    bytes.fromhex("d4c3b2a1"): ("<", 1e-6),
    bytes.fromhex("a1b2c3d4"): (">", 1e-6),
    bytes.fromhex("4d3cb2a1"): ("<", 1e-9),
    bytes.fromhex("a1b23c4d"): (">", 1e-9),
}
FILE_HEADER, RECORD_HEADER = 24, 16  # bytes
ETHERNET, RAW_IP = 1, 101  # link types; an interface that wraps in IP has no Ethernet
VNI_VALID = 0x08  # flag of VXLAN


class CaptureError(LabError):
    """Packets could not be captured, or what was captured can't be read."""


@dataclass(frozen=True)
class Capture:
    """Where to look, and for what."""

    dev: str  # "eth0"
    filter: str = ""  # as tcpdump takes it: "udp port 8472"; "" for everything
    netns: str = ""  # a pod's, "cni-1b4e..." below /run/netns; "" for the node's own


@dataclass(frozen=True)
class Packet:
    """One packet on one interface. ``str(packet)`` reads as tcpdump prints it."""

    time: float  # seconds since 1970
    dev: str
    eth_src: str = ""
    eth_dst: str = ""
    protocol: str = ""  # "tcp", "udp", "icmp", "ipip", "arp"; a number for others: "0x88cc" of Ethernet, "132" of IPv4
    src: IPv4Address | IPv6Address | None = None
    dst: IPv4Address | IPv6Address | None = None
    ttl: int = 0  # of IPv6, where it is called hop limit, too
    sport: int = 0
    dport: int = 0
    flags: str = ""  # of TCP, as tcpdump writes them: "S", "S.", "P.", "F."
    icmp_type: int | None = None  # 8 echo request, 0 echo reply, 3 unreachable
    arp_op: int = 0  # 1 request, 2 reply: src is who sends it, dst whom it is about
    vni: int | None = None  # VXLAN's network identifier
    inner: Packet | None = None  # the packet in a VXLAN or IPIP packet

    def __str__(self) -> str:
        if self.protocol == "arp":
            return (
                f"ARP, Request who-has {self.dst} tell {self.src}"
                if self.arp_op == 1
                else f"ARP, Reply {self.src} is-at {self.eth_src}"
            )
        if self.src is None or self.dst is None:
            return f"{self.eth_src} > {self.eth_dst}, ethertype {self.protocol}"
        ports = (f".{self.sport}", f".{self.dport}") if self.protocol in ("tcp", "udp") else ("", "")
        return f"IP{'6' if self.src.version == 6 else ''} {self.src}{ports[0]} > {self.dst}{ports[1]}: {self._said}"

    @property
    def _said(self) -> str:
        if self.vni is not None:
            return f"VXLAN, vni {self.vni}: {self.inner}"
        match self.protocol:
            case "tcp":
                return f"Flags [{self.flags}]"
            case "udp":
                return "UDP"
            case "ipip" if self.inner:
                return f"IPIP: {self.inner}"
            case "icmp":
                return f"ICMP {_ICMP.get(self.icmp_type, f'type {self.icmp_type}')}"
            case number:
                return f"ip-proto-{number}"


_ICMP: Mapping[int | None, str] = {0: "echo reply", 3: "unreachable", 8: "echo request", 11: "time exceeded"}
_PROTOCOLS = {1: "icmp", 4: "ipip", 6: "tcp", 17: "udp"}
_PROTOCOLS6 = {6: "tcp", 17: "udp"}
_TCP_FLAGS = ((0x01, "F"), (0x02, "S"), (0x04, "R"), (0x08, "P"), (0x10, "."), (0x20, "U"))  # in tcpdump's order


def around(command: str, captures: Mapping[str, Capture]) -> dict[str, str]:
    """The commands of a batch that capture while another command runs; its own output has the key COMMAND."""
    place = new_place()
    return {**start(captures, place), COMMAND: command, **stop(captures, place)}


def new_place() -> str:
    """A folder on a node for captures that `start` begins and `stop` ends."""
    return f"/run/hoplab-capture.{secrets.token_hex(6)}"


def start(captures: Mapping[str, Capture], place: str) -> dict[str, str]:
    """The commands that begin captures: each is done when its tcpdump listens, or fails with what tcpdump says."""
    return {f"{PREFIX}{name}.start": _start(capture, f"{place}/{name}") for name, capture in captures.items()}


def stop(captures: Mapping[str, Capture], place: str) -> dict[str, str]:
    """The commands that end captures: each prints its interface and the packets, and leaves nothing behind."""
    return {f"{PREFIX}{name}": _stop(capture, f"{place}/{name}") for name, capture in captures.items()}


def _start(capture: Capture, path: str) -> str:
    """tcpdump in the background, in a session of its own so that it outlives a login.

    Both of its files end in .pcap: where AppArmor watches tcpdump, it may write to no other.
    """
    words = ["tcpdump", "-i", capture.dev, "-U", "--immediate-mode", "-s", str(KEPT), "-c", str(MOST), "-w", "-"]
    if capture.netns:
        words = ["nsenter", f"--net=/run/netns/{capture.netns}", *words]
    if capture.filter:
        words.append(capture.filter)
    runs = f"echo $$ >{path}.pid; exec {shlex.join(words)}"
    return f"""(
mkdir -p -m 700 {path.rpartition("/")[0]}
setsid timeout {FORGOTTEN} sh -c {shlex.quote(runs)} </dev/null >{path}.pcap 2>{path}.log.pcap &
tries=0
until grep -qs '^tcpdump: listening on' {path}.log.pcap; do
  kill -0 $! 2>/dev/null && [ $tries -lt {LISTEN_TRIES} ] || {{ cat {path}.log.pcap >&2; kill $! 2>/dev/null; exit 1; }}
  tries=$((tries + 1)); sleep {PAUSE}
done
)"""


def _stop(capture: Capture, path: str) -> str:
    """Wait until tcpdump has written what the kernel has for it, which SIGUSR1 makes it tell; then end it.

    On `lo` the kernel counts every packet twice and tcpdump takes one of them: there the number of tries ends the wait.
    """
    # "tcpdump: 16 packets captured, 16 packets received by filter, 0 packets dropped by kernel"
    flushed = "/captured/ { done = $2 + $4 >= $3 } END { exit !done }"
    return f"""(
pid=$(cat {path}.pid) && kill -0 $pid 2>/dev/null || {{ cat {path}.log.pcap >&2; exit 1; }}
tries=0
until tail -n 1 {path}.log.pcap | awk -F '[^0-9]+' '{flushed}' || [ $tries -ge {FLUSH_TRIES} ]; do
  tries=$((tries + 1)); kill -USR1 $pid; sleep {PAUSE}
done
kill $pid
while kill -0 $pid 2>/dev/null; do sleep {PAUSE}; done
echo {shlex.quote(capture.dev)}
base64 -w 0 {path}.pcap
)
ended=$?; rm -f {path}.*; rmdir {path.rpartition("/")[0]} 2>/dev/null; (exit $ended)"""


def read(outputs: Mapping[str, Output]) -> dict[str, tuple[Packet, ...]]:
    """The packets of every capture among the outputs of a batch, by its name; CaptureError when one failed."""
    found = {}
    for key, output in outputs.items():
        if not key.startswith(PREFIX):
            continue
        name = key.removeprefix(PREFIX)
        if output.code != 0:
            raise CaptureError(
                f"the capture {name.removesuffix('.start')!r} failed: {output.err.strip() or output.code}",
                remedy="try the same tcpdump on the node: ./lab ssh NODE sudo tcpdump -i INTERFACE FILTER",
            )
        if not name.endswith(".start"):
            dev, _, encoded = output.out.partition("\n")
            found[name] = parse(_decoded(encoded), dev)
    return found


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except ValueError:
        raise _unreadable("it is not base64") from None


def parse(pcap: bytes, dev: str) -> tuple[Packet, ...]:
    """The packets of a capture file, as ``tcpdump -w`` writes it; CaptureError for anything else."""
    order, fraction = _ORDERS.get(pcap[:4], ("", 0.0))
    if not order or len(pcap) < FILE_HEADER:
        raise _unreadable(f"it does not begin as one: {pcap[:4].hex(' ') or 'it is empty'}")
    (link_type,) = struct.unpack_from(f"{order}I", pcap, 20)
    if link_type not in (ETHERNET, RAW_IP):
        raise _unreadable(f"its link type is {link_type}; only Ethernet, {ETHERNET}, and IP, {RAW_IP}, are known")
    packets, at = [], FILE_HEADER
    while at < len(pcap):
        if at + RECORD_HEADER > len(pcap):
            raise _unreadable("it ends in the middle of a packet")
        seconds, rest, size = struct.unpack_from(f"{order}3I", pcap, at)
        at += RECORD_HEADER + size
        if at > len(pcap):
            raise _unreadable("it ends in the middle of a packet")
        packet, frame = Packet(seconds + rest * fraction, dev), pcap[at - size : at]
        packets.append(_ethernet(packet, frame) if link_type == ETHERNET else _ipv4(packet, frame, wrapped=False))
    return tuple(packets)


def _unreadable(why: str) -> CaptureError:
    return CaptureError(f"this is no capture file: {why}", remedy="capture again; tcpdump may have been killed")


def _ethernet(packet: Packet, frame: bytes, *, wrapped: bool = False) -> Packet:
    """What a frame says, as far as it goes: a header that is cut off leaves its fields empty."""
    if len(frame) < 14:
        return packet
    dst, src, kind = struct.unpack_from("!6s6sH", frame)
    packet = replace(packet, eth_src=src.hex(":"), eth_dst=dst.hex(":"), protocol=f"{kind:#06x}")
    match kind:
        case 0x0800:
            return _ipv4(packet, frame[14:], wrapped)
        case 0x86DD:
            return _ipv6(packet, frame[14:], wrapped)
        case 0x0806:
            return _arp(packet, frame[14:])
        case _:
            return packet


def _arp(packet: Packet, body: bytes) -> Packet:
    if len(body) < 28:
        return packet
    op, src, dst = struct.unpack_from("!6xH6x4s6x4s", body)
    return replace(packet, protocol="arp", arp_op=op, src=IPv4Address(src), dst=IPv4Address(dst))


def _ipv4(packet: Packet, body: bytes, wrapped: bool) -> Packet:
    if len(body) < 20:
        return packet
    size, fragment, ttl, number, src, dst = struct.unpack_from("!B5xHBB2x4s4s", body)
    protocol = _PROTOCOLS.get(number, str(number))
    packet = replace(packet, protocol=protocol, ttl=ttl, src=IPv4Address(src), dst=IPv4Address(dst))
    if fragment & 0x1FFF:  # not the first of several: what follows is no header
        return packet
    return _payload(packet, body[(size & 0xF) * 4 :], wrapped)


def _ipv6(packet: Packet, body: bytes, wrapped: bool) -> Packet:
    """Of extension headers only their number is told."""
    if len(body) < 40:
        return packet
    number, ttl, src, dst = struct.unpack_from("!6xBB16s16s", body)
    protocol = _PROTOCOLS6.get(number, str(number))
    packet = replace(packet, protocol=protocol, ttl=ttl, src=IPv6Address(src), dst=IPv6Address(dst))
    return _payload(packet, body[40:], wrapped)


def _payload(packet: Packet, payload: bytes, wrapped: bool) -> Packet:
    """What is in an IP packet."""
    match packet.protocol:
        case "tcp" if len(payload) >= 14:
            sport, dport, bits = struct.unpack_from("!HH9xB", payload)
            flags = "".join(letter for bit, letter in _TCP_FLAGS if bits & bit) or "none"
            return replace(packet, sport=sport, dport=dport, flags=flags)
        case "udp" if len(payload) >= 8:
            sport, dport = struct.unpack_from("!HH", payload)
            packet = replace(packet, sport=sport, dport=dport)
            return packet if wrapped or dport not in VXLAN_PORTS else _vxlan(packet, payload[8:])
        case "icmp" if payload:
            return replace(packet, icmp_type=payload[0])
        case "ipip" if not wrapped:
            return replace(packet, inner=_ipv4(Packet(packet.time, packet.dev), payload, wrapped=True))
        case _:
            return packet


def _vxlan(packet: Packet, body: bytes) -> Packet:
    if len(body) < 8 or not body[0] & VNI_VALID:
        return packet
    inner = _ethernet(Packet(packet.time, packet.dev), body[8:], wrapped=True)
    return replace(packet, vni=int.from_bytes(body[4:7], "big"), inner=inner)
