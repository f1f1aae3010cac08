"""How far the clocks of nodes are ahead of this machine's; pure.

The first source is questions and answers, as NTP has them::

    this machine   sent ---------\\            /------- received
    node                          read its clock

The node read its clock at some moment between ``sent`` and ``received``. The quickest answer bounds that best. A clock
that is set meanwhile, or drifts, gives an answer that the earlier ones exclude: then only the new one counts.

The way of an answer takes longer than the way of a packet from a NIC to the wire. So there is a second source: frames
that two hosts captured. The one that sent it did so before the other one received it. `Clocks` chooses offsets that fit
both, so that no frame is seen to arrive before it was sent.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

MILLISECOND = 1_000_000  # nanoseconds
KEPT = 32  # samples
FRAMES = 4096  # frames that wait to be captured by another host too
UNBOUNDED = 1 << 80  # nanoseconds: no bound is known
HERE = ""  # this machine, whose clock is the base
ETHERNET_HEADER = 14  # bytes


@dataclass(frozen=True)
class Sample:
    """One question and its answer, in nanoseconds since 1970."""

    sent: int  # of this machine's clock
    node: int  # of the node's clock
    received: int  # of this machine's clock

    @property
    def least(self) -> int:
        """Return by how much the node's clock is ahead at least; below 0 it may be behind."""
        return self.node - self.received

    @property
    def most(self) -> int:
        return self.node - self.sent

    @property
    def width(self) -> int:
        return self.received - self.sent


class ClockOffset:
    """What answers say of the clock of one node."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self.bounds = (-UNBOUNDED, UNBOUNDED)  # nanoseconds by which it is ahead, at least and at most

    def add(self, sample: Sample) -> None:
        """Take one more answer into account."""
        least, most = self.bounds
        if sample.least > most or sample.most < least:
            self._samples.clear()
        self._samples.append(sample)
        best = min(self._samples, key=lambda sample: sample.width)
        self.bounds = (best.least, best.most)

    @property
    def ahead(self) -> int:
        """Return the nanoseconds by which the node's clock is ahead: the middle of what is possible, 0 if unknown."""
        return sum(self.bounds) // 2

    @property
    def error(self) -> int:
        """Return by how many nanoseconds ``ahead`` is wrong at most."""
        return (self.bounds[1] - self.bounds[0]) // 2

    def __str__(self) -> str:
        """Return it in words: "12.300 ms ahead, +/- 0.400 ms"."""
        way = "ahead" if self.ahead >= 0 else "behind"
        return f"{abs(self.ahead) / MILLISECOND:.3f} ms {way}, +/- {self.error / MILLISECOND:.3f} ms"


class Role(IntEnum):
    """What a host does with a frame, in the order of its way."""

    SENDS = 0
    CARRIES = 1  # a bridge
    RECEIVES = 2


class Clocks:
    """The clocks of all hosts of a capture."""

    def __init__(self, offsets: Mapping[str, ClockOffset], macs: Mapping[str, str]) -> None:
        """Take what is known of each clock by answers, and the MAC addresses of NICs, both by host."""
        self._offsets = offsets
        self._macs = {host: bytes.fromhex(mac.replace(":", "")) for host, mac in macs.items() if mac}
        self._seen: OrderedDict[int, dict[tuple[str, Role], int]] = OrderedDict()
        self._most: dict[tuple[str, str], int] = {}  # bounds by frames, as in `_fitting`
        self._ahead: dict[str, int] = {}
        self._basis: list[tuple[int, int]] = []  # what the answers said when ``_ahead`` was computed

    def frame(self, host: str, time: int, frame: bytes) -> None:
        """Take a frame that a node captured on its NIC, or this machine on the wire; ``time`` is of its own clock."""
        if len(frame) < ETHERNET_HEADER:
            return
        if host == HERE:
            role = Role.CARRIES
        elif host in self._macs:
            role = Role.SENDS if frame[6:12] == self._macs[host] else Role.RECEIVES
        else:
            return
        seen = self._seen.setdefault(hash(frame), {})
        self._seen.move_to_end(hash(frame))
        if (host, role) in seen:  # not the only one of its kind: which of them another host saw is not known
            seen[host, role] = 0
        else:
            seen[host, role] = time
            for (other, others_role), others_time in seen.items():
                if not others_time or other == host:
                    continue
                if role < others_role:
                    self._before(host, time, other, others_time)
                elif others_role < role:
                    self._before(other, others_time, host, time)
        if len(self._seen) > FRAMES:
            self._seen.popitem(last=False)

    def _before(self, host: str, time: int, later_host: str, later_time: int) -> None:
        """Take that something on the first host was before something on the second one."""
        pair, most = (later_host, host), later_time - time
        if most < self._most.get(pair, most + 1):
            self._most[pair] = most
            self._ahead.clear()

    def ahead(self, host: str) -> int:
        """Return the nanoseconds by which a host's clock is ahead of this machine's."""
        if host == HERE:
            return 0
        basis = [offset.bounds for offset in self._offsets.values()]
        if not self._ahead or basis != self._basis:
            self._basis = basis
            self._ahead = self._fitting(self._most)
            if not self._ahead:  # a clock was set, or drifts
                self._most.clear()
                self._ahead = self._fitting({})
        return self._ahead[host]

    def _fitting(self, most: Mapping[tuple[str, str], int]) -> dict[str, int]:
        """Return offsets that fit all bounds, in the middle of what is possible; empty where none do."""
        hosts = [HERE, *(host for host in self._offsets if host != HERE)]
        # by how much the first one's clock is ahead of the second's, at most; shortest paths make them consistent
        bounds = {(one, other): 0 if one == other else UNBOUNDED for one in hosts for other in hosts} | dict(most)
        for host, offset in self._offsets.items():
            least_ahead, most_ahead = offset.bounds
            bounds[host, HERE] = min(bounds[host, HERE], most_ahead)
            bounds[HERE, host] = min(bounds[HERE, host], -least_ahead)
        found = {}
        for host in hosts:
            for through in hosts:
                for one in hosts:
                    for other in hosts:
                        bounds[one, other] = min(bounds[one, other], bounds[one, through] + bounds[through, other])
            if bounds[host, host] < 0:
                return {}
            found[host] = (bounds[host, HERE] - bounds[HERE, host]) // 2
            bounds[host, HERE], bounds[HERE, host] = found[host], -found[host]
        return found
