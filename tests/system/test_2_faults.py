"""Negative controls: a real lab broken in known places. Exactly the lessons on them fail, and hold again after.

Faults that only read-only lessons notice are made several at once, no two of them with a lesson in common: looking at
the whole lab is what takes the time.

`./lab test` makes some faults of each chapter, `./lab test --all` makes all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hoplab.core.paths import LabPaths
from hoplab.verify import observations, requirements
from tests.support.lesson_functions import applies, failures, lessons
from tests.system.conftest import LabCommand, some_on_request
from tests.system.faults import FAULTS, Fault, Site, opened, together
from tests.system.faults.trial import try_faults
from tests.system.faults.without import POLICIES, STANDS_STILL

pytestmark = pytest.mark.timeout(0)  # every command that is run has a bound of its own

GROUPS = together(FAULTS)


def _of_every_run() -> Iterator[tuple[Fault, ...]]:
    """The largest group, and of each chapter of lessons the first fault that packets notice."""
    yield max(GROUPS, key=len)
    chapters: set[str] = set()
    for group in GROUPS:
        chapter = Path(lessons()[group[0].lessons[0]].function.__code__.co_filename).name[: len("test_01")]
        if group[0].traffic and chapter not in chapters:
            chapters.add(chapter)
            yield group


EVERY_RUN = tuple(_of_every_run())
TRIALS = some_on_request(GROUPS, EVERY_RUN, lambda group: ", ".join(fault.name for fault in group))


@pytest.fixture(scope="module")
def site(lab: LabCommand, paths: LabPaths) -> Iterator[Site]:
    """The node of the pod `single`, until the last fault is repaired."""
    with opened(paths) as found:
        yield found


@pytest.mark.parametrize("faults", TRIALS)
def test_faults_fail_exactly_their_lessons(faults: tuple[Fault, ...], site: Site) -> None:
    if reason := requirements.skip_reason(site.session.snapshot, **faults[0].needs):
        pytest.skip(reason)
    try_faults(faults, site)


def test_a_kube_proxy_that_stands_still_is_noticed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "SETTLE_DEADLINE", 20.0)  # it will not come right by waiting
    found = failures(STANDS_STILL, site.session.snapshot, site.session)
    assert set(found) == set(STANDS_STILL)
    assert all(says in found[lesson] for lesson, says in STANDS_STILL.items()), found


@pytest.mark.parametrize("lesson", sorted(POLICIES))
def test_a_felix_that_stands_still_is_noticed(lesson: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    if not applies(lesson, site.session.snapshot):
        pytest.skip("needs Calico")
    monkeypatch.setattr(observations, "SETTLE_DEADLINE", 20.0)
    assert set(failures([lesson], site.session.snapshot, site.session)) == {lesson}
