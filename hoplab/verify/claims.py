"""Claims: a sentence with the observation where one holds, the reason and the evidence where one fails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from hoplab.observe.facts._json import unread

R_contra = TypeVar("R_contra", contravariant=True)
R = TypeVar("R")


class Expectation(Protocol[R_contra]):
    """A requirement on one record of a fact; its ``str`` is the record as the command would print it."""

    def met_by(self, record: R_contra) -> bool: ...


class ClaimFailed(AssertionError):
    """A claim does not hold: the reason as a sentence, and the evidence."""

    def __init__(self, why: str, evidence: Sequence[object] = ()) -> None:
        self.why = why
        self.evidence = tuple(str(item) for item in evidence)
        super().__init__("\n".join([why, *(f"    {line}" for line in self.evidence)]))


class Claim:
    """One claim while it is checked. The first requirement that is not met ends it."""

    def __init__(self) -> None:
        self.seen = ""
        self.evidence: list[str] = []

    def saw(self, sentence: str, *evidence: object) -> None:
        """Note what was observed, in one sentence: the claim holds."""
        self.seen = sentence
        self.evidence += [str(item) for item in evidence]

    def require(self, holds: object, why: str, *evidence: object) -> None:
        """Raise ClaimFailed with the reason and the evidence unless the condition holds."""
        if not holds:
            raise ClaimFailed(why, evidence)

    def each_met(self, expectations: Iterable[Expectation[R]], records: Iterable[R], *, where: str, kind: str) -> int:
        """Require that a record meets each expectation: "worker1 has no route 10.244.2.0/24". Return their number."""
        lost = unread(records)
        found = list(records)
        wanted = list(expectations)
        besides = f", and {counted(len(lost), 'entry')} could not be read" if lost else ""
        for expectation in wanted:
            self.require(
                any(expectation.met_by(record) for record in found),
                f"{where} has no {kind} {expectation}{besides}",
                *found[:EVIDENCE],
                *lost,
            )
        return len(wanted)


EVIDENCE = 20  # records shown beside a failure


def counted(number: int, noun: str) -> str:
    """
    >>> counted(1, "route"), counted(3, "route"), counted(2, "entry"), counted(2, "address")
    ('1 route', '3 routes', '2 entries', '2 addresses')
    """
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("ry"):
        return f"{number} {noun[:-1]}ies"
    return f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def listed(names: Iterable[object]) -> str:
    """
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    *first, last = [str(name) for name in names] or ["nothing"]
    return f"{', '.join(first)} and {last}" if first else last
