"""What the kernel's tracepoints report of a node: dropped packets, with the reason, and routing decisions; pure.

`node_program.trace` makes an instance of tracefs, so nothing else that traces there is disturbed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from hoplab.core.ip import IPAddress

NOT_SPECIFIED = "NOT_SPECIFIED"
DELIVERED = frozenset({"QUEUE_PURGE"})  # reasons of packets that were in the queue of a socket when that was closed

_LINE = re.compile(r".*?\s(\d+\.\d+): (kfree_skb|fib6?_table_lookup): (.*)")
_DROP = re.compile(r".*location=(\S+) reason: (\w+)")
_LOOKUP = re.compile(
    r"table +(\d+) oif (\d+) iif (\d+) proto (\d+) ([\da-f.:]+)/(\d+) -> ([\da-f.:]+)/(\d+) .*==> dev (\S+) "
    r"gw ([\da-f.:]+)(?:/\S+)? err (-?\d+)"
)


@dataclass(frozen=True)
class Drop:
    """A packet that the kernel freed without delivering it."""

    time: int  # nanoseconds, of the node's monotonic clock
    reason: str  # "NETFILTER_DROP", "NO_SOCKET": enum skb_drop_reason
    function: str  # "nf_hook_slow"


@dataclass(frozen=True)
class Lookup:
    """A routing decision, of some namespace of the node."""

    time: int
    src: IPAddress
    dst: IPAddress
    dev: str  # "-" where there is no route
    gateway: IPAddress
    error: int  # 0, or a negative errno
    table: int = 254


def parse(text: str) -> Iterator[Drop | Lookup]:
    """Yield what the lines of trace_pipe report; other lines are left out."""
    for line in text.splitlines():
        match = _LINE.match(line)
        if not match:
            continue
        time = int(float(match[1]) * 1_000_000) * 1000
        if (drop := _DROP.match(match[3])) and match[2] == "kfree_skb":
            if drop[2] not in DELIVERED:
                yield Drop(time, drop[2], drop[1].partition("+")[0])
        elif lookup := _LOOKUP.match(match[3]):
            src, dst, gateway = (ip_address(lookup[number]) for number in (5, 7, 10))
            yield Lookup(time, src, dst, lookup[9], gateway, int(lookup[11]), int(lookup[1]))
