"""Pages of which a part is generated: what is between two marks is written anew, the rest is left as it is."""

from __future__ import annotations


def between(page: str, begin: str, end: str, text: str) -> str:
    """Return the page with this text between its first two such marks.

    >>> between("a <!-- b --> old <!-- e --> c", "<!-- b -->", "<!-- e -->", " new ")
    'a <!-- b --> new <!-- e --> c'
    """
    before, _, rest = page.partition(begin)
    return f"{before}{begin}{text}{end}{rest.partition(end)[2]}"
