"""The evidence of a failed claim with traffic: where its packet ends by the facts at hand; no packet is sent for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from hoplab.core.errors import LabError
from hoplab.core.ip import with_port
from hoplab.observe.snapshot import Pod, Snapshot
from hoplab.trace import render
from hoplab.trace.follow import follow
from hoplab.trace.model import Trace
from hoplab.verify.remedies import DEFAULT_LAB

OUTSIDE = "outside"
HTTP, HTTPS = 80, 443
MOST = 6  # packets of a lesson that are traced: it may make many requests
LAST = 3  # hops that are shown


@dataclass(frozen=True)
class Request:
    """A request of a lesson, as the ends of a trace."""

    sender: str  # "hoplab-verify/single-659bfc6785-8hptb", "outside"
    receiver: str  # "10.96.0.10:53"

    @classmethod
    def of(cls, sender: Pod | None, url: str, to: object = None) -> Request:
        """Return the request of a URL by a pod, or by the outside; ``to`` is the address, where the host is a name."""
        found = urlsplit(url.partition("[")[0] if "//[" not in url else url)
        port = found.port or (HTTPS if found.scheme == "https" else HTTP)
        host = str(to) if to else found.hostname or ""
        return cls(str(sender) if sender else OUTSIDE, with_port(host, port))


@dataclass(frozen=True)
class Traced:
    """The trace of a request of a lesson that fails."""

    request: Request
    trace: Trace
    command: str  # that sends such a packet; "" on a cluster that hoplab did not make

    @property
    def evidence(self) -> tuple[str, ...]:
        """Return its last lines, and the command."""
        outcome = render.outcome(self.trace)
        return (
            f"trace {self.request.sender} to {self.request.receiver}, by the facts: {outcome}",
            *(() if self.trace.complete else render.last_lines(self.trace, LAST)),
            *((f"`{self.command}` sends such a packet and shows each hop",) if self.command else ()),
        )


def traced(lab: Snapshot, requests: Iterable[Request]) -> Traced | None:
    """Return the trace of the first request that does not get through, or else of the last one.

    The trace is a model of a snapshot. Return None where no request can be followed.
    """
    shown = None
    for request in list(dict.fromkeys(requests))[-MOST:]:
        try:
            trace = follow(lab, request.sender, request.receiver)
        except LabError:  # a name, a pod that is gone, or a fact that a hurt lab lacks
            continue
        shown = Traced(request, trace, _command(lab, request))
        if not trace.complete:
            break
    return shown


def _command(lab: Snapshot, request: Request) -> str:
    own = "" if lab.setting.lab in ("", DEFAULT_LAB) else f"--lab {lab.setting.lab} "
    return "" if lab.setting.foreign else f"./lab trace {own}{request.sender} {request.receiver}"
