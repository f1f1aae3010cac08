"""The tree of exceptions at the top of the module is the one that the classes make."""

from __future__ import annotations

import re

from hoplab.core import errors
from hoplab.core.errors import LabError


def test_the_drawn_tree_is_the_tree_of_the_classes() -> None:
    def names(base: type[LabError], depth: int = 0) -> list[tuple[int, str]]:
        ours = [error for error in base.__subclasses__() if error.__module__ == errors.__name__]
        return [(depth, base.__name__), *(line for error in ours for line in names(error, depth + 1))]

    drawn = re.findall(r"^([│├└─ ]*)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE)
    assert [(len(branch) // 4, name) for branch, name in drawn] == names(LabError)


def test_a_whole_error_has_message_remedy_and_log() -> None:
    assert LabError("no disk", remedy="free some", log="x.log").whole() == "no disk\n  -> free some\n  log: x.log"
    assert LabError("no disk").whole() == "no disk"
