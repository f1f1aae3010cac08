"""A document told by how it differs from another one: what a recording of a broken lab has beside a healthy one's.

>>> delta({"links": "1: lo\\n2: eth0\\n", "mtu": 1500}, {"links": "1: lo\\n", "mtu": 1500})
{'links': [[6, '2: eth0\\n', '']]}
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import Any

_PIECES = re.compile(r"[^\n,]*[\n,]?")  # a text is edited by lines and, as JSON often has only one, by items


def delta(base: Any, now: Any) -> Any:
    """How `now` differs: of an object its members that do (null: gone), of a text [offset, before, after], else all."""
    if isinstance(base, dict) and isinstance(now, dict):
        changed = {key: delta(base[key], each) if key in base else each for key, each in now.items()}
        return {key: each for key, each in changed.items() if key not in base or base[key] != now[key]} | {
            key: None for key in base if key not in now
        }
    if isinstance(base, str) and isinstance(now, str):
        return _edits(base, now)
    return now


def applied(base: Any, changes: Any) -> Any:
    """What differs so from the base; ValueError where that is another base."""
    if isinstance(base, dict) and isinstance(changes, dict):
        kept = {
            key: applied(each, changes[key]) if key in changes else each
            for key, each in base.items()
            if key not in changes or changes[key] is not None
        }
        return kept | {key: each for key, each in changes.items() if key not in base}
    if isinstance(base, str) and isinstance(changes, list):
        for offset, before, after in reversed(changes):
            if base[offset : offset + len(before)] != before:
                raise ValueError(f"the recording it is like has no {before!r} at {offset}")
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
