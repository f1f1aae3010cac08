"""What the kernel of a node has counted since boot: protocols, conntrack, ARP, interfaces and queues.

Files of /proc, but for the queues, which only ``tc`` shows. A file that a node does not have is left out: without
conntrack in the kernel there is no /proc/net/stat/nf_conntrack.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from hoplab.core.errors import FactError
from hoplab.observe.facts import Fact

PROTOCOLS = ("/proc/net/snmp", "/proc/net/netstat")  # two lines each: "Udp: InDatagrams ...", "Udp: 17 ..."
CACHES = ("/proc/net/stat/nf_conntrack", "/proc/net/stat/arp_cache")  # a heading, then hexadecimal numbers of each CPU
INTERFACES = "/proc/net/dev"

# Counters of failures, and what one of them is called; "|" is where the plural's "s" goes. All others only tell that
# packets travel.
FAILURES: Mapping[str, str] = {
    "UdpInCsumErrors": "UDP checksum error|",
    "UdpRcvbufErrors": "UDP packet| without room in its socket",
    "TcpInCsumErrors": "TCP checksum error|",
    "IcmpInCsumErrors": "ICMP checksum error|",
    "IpInHdrErrors": "broken IP header|",
    "IpInAddrErrors": "packet| to a wrong address",
    "IpInDiscards": "discarded incoming packet|",
    "IpOutDiscards": "discarded outgoing packet|",
    "IpOutNoRoutes": "packet| without a route",
    "IpReasmFails": "packet| that could not be reassembled",
    "IpFragFails": "packet| too long that may not be fragmented",
    "IpExtInNoRoutes": "incoming packet| without a route",
    "IpExtInTruncatedPkts": "truncated packet|",
    "TcpExtIPReversePathFilter": "packet| dropped by rp_filter",
    "TcpExtListenOverflows": "connection| that a full listener dropped",
    "nf_conntrack drop": "packet| that conntrack dropped",
    "nf_conntrack early_drop": "connection| that conntrack evicted from a full table",
    "nf_conntrack insert_failed": "connection| that conntrack could not insert",
    "arp_cache res_failed": "failed ARP resolution|",
    "arp_cache unresolved_discards": "packet| dropped for want of ARP",
    "arp_cache table_fulls": "overflow| of the ARP table",
}
_OF_INTERFACES: Mapping[str, str] = {
    "rx errs": "receive error| of",
    "rx drop": "received packet| dropped by",
    "tx errs": "transmit error| of",
    "tx drop": "outgoing packet| dropped by",
    "qdisc": "packet| dropped by the queue of",
}
_COLUMNS = {2: "rx errs", 3: "rx drop", 10: "tx errs", 11: "tx drop"}  # of /proc/net/dev

_FILE = re.compile(rf"({'|'.join((*PROTOCOLS, *CACHES, INTERFACES))}):(.*)")
_QDISC = re.compile(r"qdisc \S+ \S+ (?:dev (\S+) )?.*")
_DROPPED = re.compile(r"\(dropped (\d{1,20}),")


def parse(text: str) -> Mapping[str, int]:
    """Return the counters: ``UdpInCsumErrors``, ``nf_conntrack drop``, ``rx drop eth0``, ``qdisc eth0``."""
    files: dict[str, list[str]] = {}
    rest = []
    for line in text.splitlines():
        if found := _FILE.fullmatch(line):
            files.setdefault(found[1], []).append(found[2])
        else:
            rest.append(line)
    try:
        values = dict(_of_protocols(line for name in PROTOCOLS for line in files.get(name, ())))
        for name in CACHES:
            values |= _of_cpus(name.rpartition("/")[2], files.get(name, ()))
        values |= dict(_of_interfaces(files.get(INTERFACES, ())))
    except ValueError as error:
        raise FactError(f"the kernel's counters are not numbers: {error}", remedy="look at /proc/net/snmp") from None
    return values | _of_queues(rest)


def _of_protocols(lines: Iterable[str]) -> Iterator[tuple[str, int]]:
    heading: list[str] = []
    for line in lines:
        protocol, *words = line.split()
        if heading[:1] == [protocol]:
            yield from zip((protocol.rstrip(":") + name for name in heading[1:]), map(int, words), strict=True)
            heading = []
        else:
            heading = [protocol, *words]


def _of_cpus(what: str, lines: Iterable[str]) -> dict[str, int]:
    """Return the sums over all CPUs, but for the first column: the number of entries, the same on every line."""
    heading, *rows = [line.split() for line in lines] or [[]]
    sums: dict[str, int] = {}
    for row in rows:
        for name, number in zip(heading[1:], row[1:], strict=True):
            sums[f"{what} {name}"] = sums.get(f"{what} {name}", 0) + int(number, 16)
    return sums


def _of_interfaces(lines: Iterable[str]) -> Iterator[tuple[str, int]]:
    for line in lines:
        dev, colon, numbers = line.partition(":")
        if colon:  # the heading has none
            for column, number in enumerate(numbers.split()):
                if name := _COLUMNS.get(column):
                    yield f"{name} {dev.strip()}", int(number)


def _of_queues(lines: Iterable[str]) -> dict[str, int]:
    """Return the drops of each interface's queues; those of its classes are counted in the root's too."""
    dropped: dict[str, int] = {}
    dev = ""
    for line in lines:
        if found := _QDISC.fullmatch(line):
            dev = found[1] or ""
        elif dev and (count := _DROPPED.search(line)):
            dropped[f"qdisc {dev}"] = max(dropped.get(f"qdisc {dev}", 0), int(count[1]))
    return dropped


def rose(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[str, ...]:
    """Return the failures that were counted between two looks: "5 UDP checksum error|s".

    A counter that fell, as after a reboot, has not risen. An interface that is new counts from 0.
    """
    risen = {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}
    return tuple(f"{count} {_said(name, count)}" for name, count in risen.items() if _said(name, count))


def _said(name: str, count: int) -> str:
    kind, _, dev = name.rpartition(" ")
    said = FAILURES.get(name) or (f"{_OF_INTERFACES[kind]} {dev}" if kind in _OF_INTERFACES else "")
    return said.replace("|", "" if count == 1 else "s")


_FILES = " ".join((*PROTOCOLS, INTERFACES, *CACHES))
COUNTERS = Fact("counters", f"grep -sH '' {_FILES}; tc -s qdisc show 2>/dev/null || true", parse)
