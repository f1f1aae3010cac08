"""Fewer processes for the same outputs: commands of a script that one process, or none, can run; pure.

A process costs up to a second on an emulated node, and most of a look's commands are ``ip ... show``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# `ip -4 -d -j route show table all`: the family is of one letter, and `link show` has none
_IP = re.compile(r"ip (?:-([46]) )?(?:-d )?-j ((?:address|link|neigh|route|rule) show[a-z ]*)")
_CAT = re.compile(r"cat (/proc/[\w/]+)")  # files of whole lines


@dataclass(frozen=True)
class Group:
    """Commands that one process runs; it prints one line of JSON for each."""

    keys: tuple[str, ...]
    command: str

    @property
    def key(self) -> str:
        """Return the key of its output in a script."""
        return "+".join(("", *self.keys))

    def split(self, printed: str) -> dict[str, str]:
        """Return the outputs by key."""
        return {key: f"{line}\n" for key, line in zip(self.keys, printed.splitlines(), strict=True)}


def groups(commands: Mapping[str, str]) -> tuple[Group, ...]:
    """Return the groups of two or more commands of iproute2 that read, one for each family of addresses.

    They run with -d, as some of them do by themselves: it adds fields to the others' outputs.
    """
    families: dict[str, dict[str, str]] = {"4": {}, "6": {}}
    for key, command in commands.items():
        if found := _IP.fullmatch(command):
            families[found[1] or "4"][key] = found[2]
    return tuple(
        Group(tuple(lines), _batch(family, tuple(lines.values())))
        for family, lines in families.items()
        if len(lines) > 1
    )


def _batch(family: str, lines: Sequence[str]) -> str:
    return "\n".join([f"ip -{family} -d -j -batch - <<'END'", *lines, "END"])


def cheap(command: str) -> str:
    r"""Return a command that does the same without a process, where there is one; otherwise the same command.

    >>> cheap("cat /proc/net/route")
    "while IFS= read -r line; do printf '%s\\n' \"$line\"; done </proc/net/route"
    """
    found = _CAT.fullmatch(command)
    return f"while IFS= read -r line; do printf '%s\\n' \"$line\"; done <{found[1]}" if found else command
