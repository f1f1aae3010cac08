"""Look at a running lab again and again, and say what changed since the look before.

A look is one round trip for each node, and what belongs to one event arrives together. Nothing is created in the lab.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hoplab.observe.snapshot import Snapshot
from hoplab.verify.changes.entries import LEFT_OUT
from hoplab.verify.changes.entry import Event
from hoplab.verify.changes.events import difference
from hoplab.verify.changes.text import counted, said

Look = Callable[[], Snapshot]
LEAST_PAUSE = 1.0  # seconds between two looks; as long as a look takes, where that is longer
# Facts that are not looked at: they say nothing of changes, say it of what comes and goes by itself, or repeat another
UNWATCHED = frozenset({*LEFT_OUT, "conntrack", "nft_ruleset", "resolv_conf", "sockets"})


@dataclass(frozen=True)
class Seen:
    """An event, and when the look began that showed it, in seconds since 1970."""

    event: Event
    when: float

    def __str__(self) -> str:
        """`12:03:04  worker2: - route 10.244.1.0/24 ... (worker1: - 4 sysctls)`"""
        headline = self.event.headline
        details = self.event.details
        more = [
            f"{'' if place == headline.place else f'{place}: '}"
            f"{counted(change for change in details if change.place == place)}"
            for place in dict.fromkeys(change.place for change in details)
        ]
        rest = f" ({'; '.join(more)})" if more else ""
        return f"{time.strftime('%H:%M:%S', time.localtime(self.when))}  {headline.place}: {said(headline)}{rest}"


def watch(
    look: Look, *, wait: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.time
) -> Iterator[Seen]:
    """Yield what changed, after each look that shows something; without an end."""
    before = look()
    taken = LEAST_PAUSE
    while True:
        wait(max(LEAST_PAUSE, taken))
        began = clock()
        after = look()
        taken = clock() - began
        yield from (Seen(event, began) for event in difference(before, after).events)
        before = after
