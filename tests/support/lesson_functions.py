"""The lessons as plain functions, so that tests can call each on any lab, healthy or broken, and see what it says."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import requirements
from hoplab.verify.causes import Basis, Cause, basis, find
from hoplab.verify.claims import Claim, ClaimFailed
from hoplab.verify.places import Places
from hoplab.verify.session import LabSession


@dataclass(frozen=True)
class Lesson:
    function: Callable[..., None]
    needs: tuple[Mapping[str, Any], ...]  # what its markers say
    basis: Basis  # what its failures rest on

    @property
    def takes(self) -> frozenset[str]:
        """What it asks for: "lab", "session", "claim"."""
        return frozenset(inspect.signature(self.function).parameters)


@cache
def lessons() -> Mapping[str, Lesson]:
    """Every lesson by its name, without the ``test_``."""
    found = {}
    for path in sorted((PROJECT / "tests" / "lessons").glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        functions = inspect.getmembers(module, inspect.isfunction)
        for name, function in sorted(functions, key=lambda found: found[1].__code__.co_firstlineno):  # as pytest does
            if name.startswith("test_"):
                shared = getattr(module, "pytestmark", ())
                given = shared if isinstance(shared, Iterable) else (shared,)
                marks = [*getattr(function, "pytestmark", ()), *(decorator.mark for decorator in given)]
                packets = "session" in inspect.signature(function).parameters
                found[name.removeprefix("test_")] = Lesson(
                    function,
                    tuple(mark.kwargs for mark in marks if mark.name == "needs"),
                    basis(marks, sends_packets=packets),
                )
    return found


@cache
def read_only() -> tuple[str, ...]:
    """The lessons that look at a snapshot and need no machine."""
    return tuple(name for name, lesson in lessons().items() if "session" not in lesson.takes)


@cache
def with_traffic() -> tuple[str, ...]:
    """The lessons that send packets."""
    return tuple(name for name, lesson in lessons().items() if "session" in lesson.takes)


def applies(name: str, lab: Snapshot) -> bool:
    return not any(requirements.skip_reason(lab, **needs) for needs in lessons()[name].needs)


def causes_of(failed: Mapping[str, str], lab: Snapshot) -> tuple[Cause, ...]:
    """The causes among lessons that fail, given by name with the reason, as a report has them."""
    ordered = {name: failed[name] for name in lessons() if name in failed}
    return find(ordered, {name: lesson.basis for name, lesson in lessons().items()}, Places.of(lab))


def failures(names: Iterable[str], lab: Snapshot, session: LabSession | None = None) -> dict[str, str]:
    """Those of the lessons that apply to the lab and fail on it, each with its sentence."""
    found = {}
    for name in names:
        lesson = lessons()[name]
        if not applies(name, lab):
            continue
        claim = Claim()
        given = {"lab": lab, "session": session, "claim": claim}
        try:
            lesson.function(**{key: given[key] for key in lesson.takes})
            assert claim.seen, f"{name} holds but does not say what it saw"
        except ClaimFailed as error:
            found[name] = error.why
        except LabError as error:
            found[name] = error.message
    return found
