"""What the kernel's tracepoints report of a node: packets that it drops, with the reason, and its routing decisions.

A shell on the node makes an instance of tracefs, so nothing else that traces there is disturbed. It removes the
instance when its input ends, or with a signal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

INSTANCE = "hoplab_trace"
READY = "hoplab listens"
NOT_SPECIFIED = "NOT_SPECIFIED"

# The shell waits for `cat`, so that a signal interrupts it; in the background that has no input but what it is given.
# Its own output may have no reader any more at the end: a message would end it before it has removed the instance.
SCRIPT = f"""\
t=/sys/kernel/tracing
if ! [ -d $t/events ]; then
  [ "$1" ] && {{ echo "tracefs cannot be mounted" >&2; exit 3; }}
  exec unshare --mount sh -c 'mount -t tracefs tracefs /sys/kernel/tracing && exec sh -c "$0" sh mounted' "$0"
fi
for old in $t/instances/{INSTANCE}.*; do
  [ -d "$old" ] && ! [ -d "/proc/${{old##*.}}" ] && echo 0 >"$old/events/enable" && rmdir "$old"
done
i=$t/instances/{INSTANCE}.$$
mkdir $i || exit 3
children=
trap 'exec >/dev/null 2>&1; kill $children; wait; echo 0 >$i/events/enable; rmdir $i' EXIT
trap 'exit 0' TERM HUP INT
echo mono >$i/trace_clock
echo 'protocol == 0x800 && reason != 1' >$i/events/skb/kfree_skb/filter
echo 1 >$i/events/skb/kfree_skb/enable
[ -d $i/events/fib ] && echo 1 >$i/events/fib/fib_table_lookup/enable
cat $i/trace_pipe & children=$!
exec 3<&0
cat <&3 >/dev/null & children="$children $!"
echo {READY}
wait $!
"""

_LINE = re.compile(r".*?\s(\d+\.\d+): (kfree_skb|fib_table_lookup): (.*)")
_DROP = re.compile(r".*location=(\S+) reason: (\w+)")
_LOOKUP = re.compile(
    r"table (\d+) oif (\d+) iif (\d+) proto (\d+) ([\d.]+)/(\d+) -> ([\d.]+)/(\d+) .*==> dev (\S+) gw ([\d.]+)/\S+ "
    r"err (-?\d+)"
)


def command() -> list[str]:
    """Return the command that reports; its input has to stay open."""
    return ["sh", "-c", SCRIPT, SCRIPT]


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
    src: IPv4Address
    dst: IPv4Address
    dev: str  # "-" where there is no route
    gateway: IPv4Address
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
            yield Drop(time, drop[2], drop[1].partition("+")[0])
        elif lookup := _LOOKUP.match(match[3]):
            src, dst, gateway = (IPv4Address(lookup[number]) for number in (5, 7, 10))
            yield Lookup(time, src, dst, lookup[9], gateway, int(lookup[11]), int(lookup[1]))
