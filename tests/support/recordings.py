"""The recordings of real labs, each loaded once a process."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from hoplab.observe.recording_format import load
from hoplab.observe.snapshot import Snapshot
from tests.support.files import RECORDINGS

RECORDED_LABS = tuple(sorted(file.stem for file in RECORDINGS.glob("*.json")))  # names of the healthy recordings


@cache
def recording(name: str) -> Snapshot:
    """Return a recording by its path under tests/recordings, without the ``.json``: ``recording("calico-bgp")``.

    Snapshots are frozen: a test that wants another lab makes one with ``dataclasses.replace``.
    """
    return load(RECORDINGS / f"{name}.json")


def healthy_of(broken: Path) -> Path:
    """Return the file with the healthy recording that a broken one differs from."""
    like: str = json.loads(broken.read_text())["like"]
    return (broken.parent / like).resolve()
