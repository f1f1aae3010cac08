"""The result of one check of the machine, for `lab doctor` and for what `lab up` checks first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    ok: bool
    found: str
    remedy: str = ""  # "" where it is ok
    needed: bool = True  # whether a lab can't run where it fails; a failed other one is a note
