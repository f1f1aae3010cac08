"""The trial of faults: exactly their lessons fail while they are there, and none afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from hoplab.core.wait import settled
from tests.support.lesson_functions import applies, failures, read_only
from tests.system.faults.fault import Fault
from tests.system.faults.site import PATIENCE, Site, wait


def try_faults(faults: Sequence[Fault], site: Site) -> None:
    """Make faults, check that exactly their lessons fail, and repair them.

    What was made before is repaired, but its lessons may not hold yet: the next look at the lab is also the proof that
    they do. After the last trial, ``all_hold`` is that proof.
    """
    traffic = [lesson for fault in faults for lesson in fault.traffic]
    due = {lesson for fault in faults for lesson in fault.lessons if applies(lesson, site.session.snapshot)}
    with ExitStack() as stack:
        for fault in faults:
            stack.enter_context(fault.broken(site))
        found = settled(lambda: failing(traffic, site), lambda found: set(found) == due, PATIENCE, poll_s=0.5)
    assert set(found) == due, found
    for fault in faults:
        assert fault.says.format(**site.words) in found[fault.lessons[0]], found
    if traffic:
        for node in site.session.snapshot.nodes:
            site.run("conntrack -F", node)  # entries of broken connections would count as those of whole ones
        wait(lambda: not failures(traffic, site.session.snapshot, site.session))


def all_hold(site: Site) -> None:
    """Wait until no read-only lesson fails."""
    wait(lambda: not failing([], site))


def failing(traffic: Iterable[str], site: Site) -> dict[str, str]:
    """Return the read-only lessons that fail now, and those of ``traffic`` that fail, each with its message."""
    seen = site.session.refreshed()
    return failures([*read_only(), *traffic], seen.snapshot, seen)
