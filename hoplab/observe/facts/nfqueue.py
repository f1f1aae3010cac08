"""The queues by which programs decide on packets: ``/proc/net/netfilter/nfnetlink_queue``.

A queue is there for as long as a program has it open. Rules name it by its number: ``queue to 98`` of nftables.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hoplab.core.errors import FactError
from hoplab.observe.facts import Fact


@dataclass(frozen=True)
class PacketQueue:
    """One queue of a network namespace."""

    number: int
    port: int = field(compare=False)  # netlink's number of the program's socket
    waiting: int = field(default=0, compare=False)  # packets without a verdict
    packets: int = field(default=0, compare=False)  # that were ever in it
    dropped: int = field(default=0, compare=False)  # for want of room in the queue or in the program's socket

    def __str__(self) -> str:
        return f"queue {self.number}: {self.packets} packets, {self.waiting} wait, {self.dropped} found no room"


COLUMNS = 9  # number, port, waiting, copy mode, copy range, dropped, dropped at the socket, packets, 1


def parse(text: str) -> tuple[PacketQueue, ...]:
    """Parse one line for each queue; a host on which no program ever opened one prints none."""
    return tuple(_queue(line) for line in text.splitlines() if line.strip())


def _queue(line: str) -> PacketQueue:
    try:
        number, port, waiting, _, _, full, lost, packets, _ = map(int, line.split())
    except ValueError:
        raise FactError(
            f"{line!r} is not a queue of {COLUMNS} numbers",
            remedy="look at /proc/net/netfilter/nfnetlink_queue on the node",
        ) from None
    return PacketQueue(number, port, waiting, packets, full + lost)


NFQUEUE = Fact("nfqueue", "cat /proc/net/netfilter/nfnetlink_queue 2>/dev/null || true", parse)
