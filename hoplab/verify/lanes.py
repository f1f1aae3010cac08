"""Lanes: lessons of different lanes run side by side on a running lab, those of one lane in their order.

    pytestmark = pytest.mark.lane("apps")      # of a module, or of one lesson

A lesson mostly waits: for an answer, for a capture, for kube-proxy. Lessons of one lane capture packets of the same
pods and count in the same rules, so one follows the other; another lane has pods of its own. Lessons without the marker
are the main lane, which pytest runs. A lesson marked ``alone`` compares what others change, so it waits until those of
all other lanes have ended.

pytest itself knows one test at a time. So the function of a lesson runs in the thread of its lane, and when pytest
calls the lesson, it gets the outcome.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from hoplab.core.errors import UnavailableError
from hoplab.verify import requirements
from hoplab.verify.claims import Claim

if TYPE_CHECKING:
    from hoplab.verify.session import LabSession

GIVEN = frozenset({"lab", "session", "claim"})  # fixtures that a lesson of a lane may have


@dataclass(frozen=True)
class Done:
    """The outcome of a lesson that ran in a lane."""

    claim: Claim
    seconds: float
    error: BaseException | None  # also pytest's, for a skipped test


class Lanes:
    """The threads of the lanes, from the opening of a lab to its end."""

    def __init__(self, items: Iterable[pytest.Item], lab: LabSession) -> None:
        self._lab = lab
        self._stopped = threading.Event()
        lanes: dict[str, list[pytest.Function]] = {}
        for item in items:
            marker = item.get_closest_marker("lane")
            if marker and isinstance(item, pytest.Function) and _runs(item, lab):
                lanes.setdefault(marker.args[0], []).append(item)
        self._outcomes: Mapping[str, Future[Done]] = {item.nodeid: Future() for lane in lanes.values() for item in lane}
        self._threads = [
            threading.Thread(target=self._run, args=(lane,), name=f"lane-{name}", daemon=True)
            for name, lane in lanes.items()
        ]
        for thread in self._threads:
            thread.start()

    def outcome(self, item: pytest.Item) -> Done | None:
        """Return the outcome of a lesson, once it has ended; None for one of the main lane."""
        found = self._outcomes.get(item.nodeid)
        return found.result() if found else None

    def ended(self) -> None:
        """Wait until the lessons of all lanes have ended."""
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """Let no further lesson begin, and wait for those that run: they undo what they changed."""
        self._stopped.set()
        self.ended()

    def _run(self, lane: Sequence[pytest.Function]) -> None:
        for item in lane:
            outcome = self._outcomes[item.nodeid]
            if self._stopped.is_set():
                outcome.cancel()
                continue
            outcome.set_result(self._call(item))

    def _call(self, item: pytest.Function) -> Done:
        claim, began = Claim(), time.monotonic()
        given: dict[str, Any] = {"lab": self._lab.snapshot, "session": self._lab, "claim": claim}
        error: BaseException | None = None
        try:
            item.obj(**{name: given[name] for name in arguments(item)})
        except BaseException as raised:  # a failed or skipped lesson: pytest raises it in its own thread
            error = raised
        return Done(claim, time.monotonic() - began, error)


def arguments(item: pytest.Function) -> tuple[str, ...]:
    """Return the names of the arguments of a test, which are fixtures or parameters."""
    code = item.obj.__code__
    return tuple(code.co_varnames[: code.co_argcount])


def _runs(item: pytest.Function, lab: LabSession) -> bool:
    """Return whether a lane runs the lesson: it sends packets, applies to the lab, and needs no further fixture."""
    names = set(arguments(item))
    if "session" not in names or not names <= GIVEN:
        return False
    needed = [marker.kwargs for marker in item.iter_markers("needs")]
    try:
        return not any(requirements.skip_reason(lab.snapshot, **needs) for needs in needed)
    except UnavailableError:  # pytest meets it again, and says why
        return False
