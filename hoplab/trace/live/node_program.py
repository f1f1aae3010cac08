"""What a relay does for a trace, beside what it does for captures; its text is sent to the relay (``extend``).

It needs no program and leaves nothing: its sockets end with it, and a child of it, which never becomes another program,
removes what it has made in tracefs, also when the relay is killed.

In::

    {"do": "tap", "id": 3, "netns": "cni-1b4e", "filter": [[48, 0, 0, 9], ...]}    SIGHTED for each packet that passes
    {"do": "report", "id": 1}                                       REPORT: what nftables reports and what it changes
    {"do": "trace", "id": 4, "protocols": [2048]}                   PACKETS: LISTENS, then lines of trace_pipe
    {"do": "rules", "id": 2}                                        TOLD {"rules": {"ip nat PREROUTING": [4, 7], ...}}
    {"do": "send", "id": 0, "netns": "", "protocol": "tcp", ...}    TOLD what becomes of the packet
    {"do": "counters", "id": 5, "files": ["/proc/net/snmp"]}        TOLD {"counters": text}
    {"do": "echo", "id": 9}                                         TOLD: all before it is done
"""

from __future__ import annotations

import array
import errno
import json
import os
import select
import selectors
import signal
import socket
import struct
import time
from contextlib import suppress
from typing import Any

if __name__ != "__main__":  # in a relay these names are there
    from hoplab.observe.live.relay import CHUNK, NAMESPACES, PACKETS, WORK, Relay, enter, setns

SIGHTED, REPORT, TOLD = 6, 7, 8
SIGHTING = struct.Struct("!qBB")  # nanoseconds since 1970, kind of packet (linux/if_packet.h), length of the name
KEPT = 1024  # bytes of a packet
ALL_PROTOCOLS = 0x0003
ATTACH_FILTER, TIMESTAMPS = 26, 35  # socket options of Linux that Python does not name
REPAIR, REPAIR_QUEUE, QUEUE_SEQUENCE, SEND_QUEUE = 19, 20, 21, 2  # of TCP: the next connection begins with this number
NETFILTER, GROUP_CHANGES, GROUP_TRACE, JOIN, SOL_NETLINK = 12, 7, 9, 1, 270  # netlink
GET_RULES = 0x0A07  # subsystem nftables, message
DUMP, REQUEST = 0x300, 0x1
DONE, ERROR = 3, 2
CHAIN_ATTRIBUTE, TABLE_ATTRIBUTE, HANDLE_ATTRIBUTE = 2, 1, 3
FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}
TRACEFS = "/sys/kernel/tracing"
INSTANCE = "hoplab_trace"  # its name begins so, and ends with the id of the process that removes it
LISTENS, CANNOT = "hoplab listens", "hoplab cannot: "
DROPS = "events/skb/kfree_skb"
LOOKUPS = ("events/fib/fib_table_lookup", "events/fib6/fib6_table_lookup")  # of IPv4 and IPv6
REAL_DROPS = "({}) && reason != 1"  # of some protocols of Ethernet; 1 is of packets that were used up
NEW_MOUNTS, PRIVATE, RECURSIVE = 0x20000, 0x40000, 0x4000  # linux/sched.h, linux/mount.h

Told = dict[str, Any]


def tell(relay: Relay, number: int, **what: Any) -> None:
    relay.send(TOLD, number, json.dumps(what).encode())


def socket_in(netns: str, *kind: int) -> socket.socket:
    """Return a new socket of a network namespace, "" for the host's; this process stays where it is."""
    if not netns:
        return socket.socket(*kind)
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        enter(f"{NAMESPACES}/{netns}")
        return socket.socket(*kind)
    finally:
        setns(here)
        os.close(here)


def tap(relay: Relay, message: Told) -> None:
    """Listen at all interfaces of a namespace."""
    number = message["id"]
    try:
        listening = socket_in(message["netns"], socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_PROTOCOLS))
        program = array.array("B", b"".join(struct.pack("HBBI", *step) for step in message["filter"]))
        listening.setsockopt(
            socket.SOL_SOCKET, ATTACH_FILTER, struct.pack("HP", len(message["filter"]), program.buffer_info()[0])
        )
        listening.setsockopt(socket.SOL_SOCKET, TIMESTAMPS, 1)
        listening.setblocking(False)
    except OSError as error:
        tell(relay, number, failed=f"{message['netns'] or 'the node'}: {error.strerror}")
        return
    with suppress(BlockingIOError):  # what came before there was a filter
        while listening.recv(1):
            pass

    def seen() -> None:
        try:
            data, more, _, sender = listening.recvmsg(KEPT, 64)
        except OSError:  # an interface went down
            return
        stamps = [struct.unpack("qq", value[:16]) for _, kind, value in more if kind == TIMESTAMPS]
        moment = stamps[0][0] * 10**9 + stamps[0][1] if stamps else time.time_ns()
        name = sender[0].encode()
        relay.send(SIGHTED, number, SIGHTING.pack(moment, sender[2], len(name)) + name + data)

    relay.selector.register(listening, selectors.EVENT_READ, seen)


def report(relay: Relay, message: Told) -> None:
    """Pass on what nftables reports of traced packets, and changes of its rules."""
    number = message["id"]
    try:
        listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
        listening.bind((0, 0))
        for group in (GROUP_TRACE, GROUP_CHANGES):
            listening.setsockopt(SOL_NETLINK, JOIN, group)
    except OSError as error:
        tell(relay, number, failed=f"nftables: {error.strerror}")
        return
    listening.setblocking(False)

    def heard() -> None:
        try:
            relay.send(REPORT, number, listening.recv(CHUNK))
        except OSError:  # more than the socket holds: some are lost
            return

    relay.selector.register(listening, selectors.EVENT_READ, heard)


class Child:
    """A child of the relay, as the relay handles the programs that it has started.

    It ends when nobody has the other end of its pipe any more. A signal could come while it cleans up.
    """

    def __init__(self, pid: int, keep: int) -> None:
        self.pid = pid
        self.stdin = os.fdopen(keep, "wb")

    def terminate(self) -> None:
        self.stdin.close()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; ``timeout`` is for the signature alone: it ends soon after it was told to."""
        with suppress(ChildProcessError):
            return os.waitpid(self.pid, 0)[1]
        return 0


def trace(relay: Relay, message: Told) -> None:
    """Pass on what tracepoints report, by a child that cleans up."""
    number = message["id"]
    out, write = os.pipe()
    read, keep = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.setsid()
            for name in os.listdir("/proc/self/fd"):
                if int(name) not in (write, read):
                    with suppress(OSError):
                        os.close(int(name))
            traced(write, read, message["protocols"])
        finally:
            os._exit(0)
    os.close(write)
    os.close(read)
    relay.running[number] = Child(pid, keep)  # type: ignore[assignment]
    relay.open_pipes[number] = 1
    relay.selector.register(out, selectors.EVENT_READ, (PACKETS, number))


def traced(write: int, keep: int, protocols: list[int]) -> None:
    """Write what an instance of tracefs reports until the other end of ``keep`` is closed; remove the instance.

    ``protocols`` are those of Ethernet whose dropped packets are reported.
    """
    instance = f"{TRACEFS}/instances/{INSTANCE}.{os.getpid()}"
    try:
        mount()
        for old in os.listdir(f"{TRACEFS}/instances"):
            if old.startswith(INSTANCE) and not os.path.exists(f"/proc/{old.rpartition('.')[2]}"):
                remove(f"{TRACEFS}/instances/{old}")
        os.mkdir(instance)
    except (OSError, ImportError) as error:
        os.write(write, f"{CANNOT}{getattr(error, 'strerror', '') or error}\n".encode())
        return
    pipe = -1
    try:
        put(f"{instance}/trace_clock", "mono")
        wanted = " || ".join(f"protocol == {number}" for number in protocols)
        put(f"{instance}/{DROPS}/filter", REAL_DROPS.format(wanted))
        put(f"{instance}/{DROPS}/enable", "1")
        for lookups in LOOKUPS:
            with suppress(OSError):
                put(f"{instance}/{lookups}/enable", "1")
        pipe = os.open(f"{instance}/trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        os.write(write, f"{LISTENS}\n".encode())
        while keep not in select.select([pipe, keep], [], [])[0]:
            with suppress(BlockingIOError):
                os.write(write, os.read(pipe, CHUNK))
    except OSError as error:
        with suppress(OSError):
            os.write(write, f"{CANNOT}{error.strerror}\n".encode())
    finally:
        if pipe >= 0:
            os.close(pipe)
        remove(instance)


def mount() -> None:
    """Make tracefs visible to this process alone, where it is not mounted."""
    if os.path.isdir(f"{TRACEFS}/events"):
        return
    import ctypes  # noqa: PLC0415 -- takes time to load, and is seldom needed

    libc = ctypes.CDLL(None, use_errno=True)
    for code in (
        libc.unshare(NEW_MOUNTS),
        libc.mount(b"none", b"/", None, PRIVATE | RECURSIVE, None),
        libc.mount(b"tracefs", TRACEFS.encode(), b"tracefs", 0, None),
    ):
        if code:
            raise OSError(ctypes.get_errno(), f"tracefs cannot be mounted: {os.strerror(ctypes.get_errno())}")


def put(file: str, text: str) -> None:
    with open(file, "w") as opened:
        opened.write(text)


def remove(instance: str) -> None:
    """Remove an instance; one that somebody reads stays."""
    with suppress(OSError):
        put(f"{instance}/events/enable", "0")
    with suppress(OSError):
        os.rmdir(instance)


def rules(relay: Relay, message: Told) -> None:
    """Tell the handles of all rules of nftables, in the order of each chain."""
    found: dict[str, list[int]] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER) as asking:
        asking.settimeout(5)
        asking.bind((0, 0))
        asking.send(struct.pack("=IHHII4x", 20, GET_RULES, DUMP | REQUEST, 1, 0))
        more = True
        while more:
            data, at = asking.recv(CHUNK), 0
            while at + 16 <= len(data):
                size, kind = struct.unpack_from("=IH", data, at)
                if kind in (DONE, ERROR):
                    more = False
                    break
                parts = attributes(data[at + 20 : at + size])
                table, chain = (parts[name].rstrip(b"\0").decode() for name in (TABLE_ATTRIBUTE, CHAIN_ATTRIBUTE))
                family = FAMILIES.get(data[at + 16], "")
                handle = struct.unpack("!Q", parts[HANDLE_ATTRIBUTE])[0]
                found.setdefault(f"{family} {table} {chain}", []).append(handle)
                at += (size + 3) & ~3
    tell(relay, message["id"], rules=found)


def attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes of a netlink message by their kinds."""
    found, at = {}, 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + size]
        at += (size + 3) & ~3
    return found


def send(relay: Relay, message: Told) -> None:
    """Send the packet, and tell what becomes of it: sent, then connected, answer or failed."""
    kinds = {
        "tcp": (socket.SOCK_STREAM, 0),
        "udp": (socket.SOCK_DGRAM, 0),
        "icmp": (socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "ipv6-icmp": (socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    }
    number, protocol = message["id"], message["protocol"]
    payload: bytes = bytes.fromhex(message["payload"])
    try:
        family = socket.AF_INET6 if ":" in message["dst"] else socket.AF_INET
        sending = socket_in(message["netns"], family, *kinds[protocol])
        sending.setblocking(False)
        if protocol == "tcp":
            for option, value in ((REPAIR, 1), (REPAIR_QUEUE, SEND_QUEUE), (QUEUE_SEQUENCE, message["sequence"])):
                sending.setsockopt(socket.IPPROTO_TCP, option, value if value < 1 << 31 else value - (1 << 32))
            sending.setsockopt(socket.IPPROTO_TCP, REPAIR, 0)
        code = sending.connect_ex((message["dst"], message["port"]))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        if protocol != "tcp":
            sending.send(payload)
    except OSError as error:
        tell(relay, number, what="failed", why=error.strerror, code=error.errno)
        return
    tell(relay, number, what="sent", port=sending.getsockname()[1])

    def end(**what: Any) -> None:
        relay.selector.unregister(sending)
        sending.close()
        tell(relay, number, **what)

    def connected() -> None:
        code = sending.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            end(what="failed", why=os.strerror(code), code=code)
        elif not payload:
            end(what="connected")
        else:
            tell(relay, number, what="connected")
            sending.send(payload)
            relay.selector.modify(sending, selectors.EVENT_READ, answered)

    def answered() -> None:
        try:
            data = sending.recv(CHUNK)
        except OSError as error:
            end(what="failed", why=error.strerror, code=error.errno)
            return
        replies = {"icmp": (20, 0), "ipv6-icmp": (0, 129)}  # where the type of an echo reply is; IPv6 omits the header
        at, kind = replies.get(protocol, (0, data[0] if data else 0))
        if protocol not in replies or (data[at] == kind and payload[8:] in data):
            end(what="answer", text=data[:200].decode("latin-1"))

    if protocol == "tcp":
        relay.selector.register(sending, selectors.EVENT_WRITE, connected)
    else:
        relay.selector.register(sending, selectors.EVENT_READ, answered)


def counters(relay: Relay, message: Told) -> None:
    """Tell what files of /proc count, as `grep -H` prints them."""
    lines = []
    for file in message["files"]:
        with suppress(OSError), open(file) as opened:
            lines += [f"{file}:{line}" for line in opened.read().splitlines()]
    tell(relay, message["id"], counters="\n".join(lines))


def echo(relay: Relay, message: Told) -> None:
    """Answer, with both clocks of this host."""
    tell(relay, message["id"], echo=True, real=time.time_ns(), mono=time.monotonic_ns())


WORK.update(counters=counters, tap=tap, report=report, trace=trace, rules=rules, send=send, echo=echo)
