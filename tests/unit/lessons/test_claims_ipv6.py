"""Chapter 9 on a recording of a dual-stack lab, and on the same with one thing wrong."""

from __future__ import annotations

import pytest

from tests.support import edits
from tests.support.edited.ipv6 import (
    ECHO,
    EVERYBODY,
    FAULTS,
    LIVE,
    MASKED,
    OTHER,
    POD,
    RECORDED,
    ROUTES,
    SERVICE,
    UNWRAPS,
    WAY_OUT,
)
from tests.support.edits import Fault
from tests.support.lesson_functions import applies, lessons


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fails_its_lessons(fault: Fault) -> None:
    fault.fails_its_lessons()


def test_chapter_9_is_for_labs_with_ipv6_only() -> None:
    without_ipv6 = edits.HEALTHY
    chapter = [name for name, lesson in lessons().items() if "test_09" in lesson.function.__code__.co_filename]
    assert set(chapter) == {EVERYBODY, WAY_OUT, ROUTES, UNWRAPS, SERVICE, MASKED, *LIVE}
    assert not any(applies(name, without_ipv6) for name in chapter)
    assert all(applies(name, RECORDED) for name in chapter)


def test_services_of_ipv6_have_endpoints_with_brackets() -> None:
    assert {endpoint.to for endpoint in ECHO.endpoints} == {f"[{pod.address6}]:8080" for pod in (POD, OTHER)}
