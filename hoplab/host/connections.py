"""TCP connections of a namespace, as its kernel lists them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hoplab.core.wait import HOST, Expired, NotYet, Timing
from hoplab.host import netns

LISTS = ("tcp", "tcp6")  # below /proc/thread-self/net, proc(5)
# include/net/tcp_states.h: the other end has not heard yet that this one is closed
NOT_HEARD = {"01": "established", "04": "FIN-WAIT-1", "09": "LAST-ACK", "0B": "CLOSING"}
LIMIT_S = 2.0  # a machine's kernel acknowledges within milliseconds, an emulated one's within tens of them


def wait_until_ended(namespace: str, port: int, timing: Timing = HOST) -> bool:
    """Wait until every client of an ended server has heard that its connection ended; return whether all have."""

    def heard() -> NotYet | None:
        with netns.entered(namespace):
            text = "".join((Path("/proc/thread-self/net") / name).read_text() for name in LISTS)
        left = not_heard(text, port)
        return NotYet(f"{len(left)} connections are {', '.join(sorted(set(left)))}") if left else None

    with suppress(Expired):  # such a client finds out by itself, later
        timing.until(heard, LIMIT_S, poll_s=0.02)
        return True
    return False


def not_heard(text: str, port: int) -> list[str]:
    """Return the states of a port's connections whose other end does not know yet that they ended.

    >>> not_heard("   0: 0100007F:192B 0100007F:B2F4 04 00000000:00000000 ...", 6443)
    ['FIN-WAIT-1']
    >>> not_heard("   0: 0100007F:192B 00000000:0000 0A 00000000:00000000 ...", 6443)  # it listens
    []
    """
    rows = (line.split() for line in text.splitlines() if line.count(":") > 3)
    return [NOT_HEARD[row[3]] for row in rows if row[1].endswith(f":{port:04X}") and row[3] in NOT_HEARD]
