"""Differences of two documents: a recording of a broken lab holds only its difference from that of a healthy lab.

>>> diff({"links": "1: lo\\n2: eth0\\n", "mtu": 1500}, {"links": "1: lo\\n", "mtu": 1500})
{'links': [[6, '2: eth0\\n', '']]}
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Any

_PIECES = re.compile(r"[^\n,]*[\n,]?")  # a text is edited by lines and, as JSON often has only one, by items


def diff(base: Any, now: Any) -> Any:
    """Return the changes from `base` to `now`: members of an object (null: removed), edits of a text.

    An edit is [offset, before, after]. For any other value the change is the new value.
    """
    if isinstance(base, dict) and isinstance(now, dict):
        changed = {key: diff(base[key], value) if key in base else value for key, value in now.items()}
        return {key: value for key, value in changed.items() if key not in base or base[key] != now[key]} | {
            key: None for key in base if key not in now
        }
    if isinstance(base, str) and isinstance(now, str):
        return _edits(base, now)
    return now


def patch(base: Any, changes: Any) -> Any:
    """Apply changes to their base and return the result; raise ValueError when they are of another base."""
    if isinstance(base, dict) and isinstance(changes, dict):
        kept = {
            key: patch(value, changes[key]) if key in changes else value
            for key, value in base.items()
            if key not in changes or changes[key] is not None
        }
        return kept | {key: value for key, value in changes.items() if key not in base}
    if isinstance(base, str) and isinstance(changes, list):
        for offset, before, after in reversed(changes):
            if base[offset : offset + len(before)] != before:
                raise ValueError(f"the base recording has no {before!r} at {offset}")
            base = base[:offset] + after + base[offset + len(before) :]
        return base
    return changes


def _edits(base: str, now: str) -> list[list[int | str]]:
    before, after = _PIECES.findall(base), _PIECES.findall(now)
    offsets = [0]
    for piece in before:
        offsets.append(offsets[-1] + len(piece))
    return [
        [offsets[i], "".join(before[i:j]), "".join(after[k:m])]
        for what, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        if what != "equal"
    ]
