"""The trial of faults: exactly their lessons fail while they are there, and none afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from tests.support.lesson_functions import applies, causes_of, failures, read_only
from tests.system.faults.fault import Fault
from tests.system.faults.site import Site, wait


def try_faults(faults: Sequence[Fault], site: Site) -> None:
    """Make faults, check that exactly their lessons fail, repair them, and wait until all lessons hold."""
    traffic = [lesson for fault in faults for lesson in fault.traffic]
    with ExitStack() as stack:
        for fault in faults:
            stack.enter_context(fault.broken(site))
        found = failing(traffic, site)
    due = {lesson for fault in faults for lesson in fault.lessons if applies(lesson, site.session.snapshot)}
    assert set(found) == due, found
    for fault in faults:
        assert fault.says.format(**site.words) in found[fault.lessons[0]], found
    _cause_is_named_first(faults, found, site)
    if traffic:
        for node in site.session.snapshot.nodes:
            site.run("conntrack -F", node)  # entries of broken connections would count as those of whole ones
        wait(lambda: not failures(traffic, site.session.snapshot, replace(site.session)))  # without what it remembers
    if any(fault.caught_by for fault in faults):  # where nobody saw anything, the next fault's look is early enough
        wait(lambda: not failing([], site))


def _cause_is_named_first(faults: Sequence[Fault], found: Mapping[str, str], site: Site) -> None:
    """Check what verification names first: the broken thing; of several at once, one of them."""
    first = causes_of(found, site.session.snapshot)[0]
    due = [(lesson, says.format(**site.words)) for lesson, says in (fault.named_first for fault in faults)]
    assert any(first.name == lesson and says in first.why for lesson, says in due), (first, due)


def failing(traffic: Iterable[str], site: Site) -> dict[str, str]:
    """Return the read-only lessons that fail now, and those of ``traffic`` that fail, each with its message."""
    seen = site.session.refreshed()
    return failures([*read_only(), *traffic], seen.snapshot, seen)
