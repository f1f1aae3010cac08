"""Recordings of labs: the read-only lessons run on such a file without any machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hoplab.cluster.api import cluster_name
from hoplab.core import fs
from hoplab.core.paths import LabPaths
from hoplab.expectations.parts import known_parts
from hoplab.observe import health, recording_format
from hoplab.observe.outage import Outage
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import foreign, session
from hoplab.verify.claims import counted


@dataclass(frozen=True)
class Recording:
    """A recording that was made."""

    file: Path
    snapshot: Snapshot
    size: int  # bytes

    def __str__(self) -> str:
        """`dev-2026-11-23-0412.json: lab dev, 2 nodes, 5 pods, 114 KiB`"""
        lab = self.snapshot
        pods = counted(sum(map(len, lab.netns_facts.values())) if lab.outages else len(lab.pods), "pod")
        nodes = counted(len(lab.node_facts) if lab.outages else len(lab.nodes), "node")
        return f"{self.file}: lab {self.snapshot.setting.lab}, {nodes}, {pods}, {self.size // 1024} KiB"

    @property
    def outages(self) -> tuple[Outage, ...]:
        """Return what could not be looked at or does not run."""
        return health.outages(self.snapshot)


def record(
    paths: LabPaths, file: Path | None = None, *, force: bool = False, say: Callable[[str], None] = lambda _text: None
) -> Recording:
    """Write a recording of the running lab, by default to <lab>-<date>-<time>.json in the current folder.

    What could not be looked at is not in it; the recording says what that is, and why.
    """
    file = file or Path(f"{paths.lab}-{datetime.now():%Y-%m-%d-%H%M}.json")
    fs.check(file, force=force)
    with session.opened(paths, say) as lab:
        say("writing")
        return _saved(lab.snapshot, file)


def record_cluster(
    target: foreign.Target,
    file: Path | None = None,
    *,
    force: bool = False,
    say: Callable[[str], None] = lambda _text: None,
) -> tuple[Recording, str]:
    """Write a recording of a cluster that hoplab did not make; return with it what was found out, as text."""
    file = file or Path(f"{cluster_name(target.kubeconfig)}-{datetime.now():%Y-%m-%d-%H%M}.json")
    fs.check(file, force=force)
    found: list[str] = []
    with foreign.opened(target, say, found.append) as lab:
        say("writing")
        return _saved(lab if isinstance(lab, Snapshot) else lab.snapshot, file), "\n".join(found)


def _saved(lab: Snapshot, file: Path) -> Recording:
    recording_format.save(lab, file, known_parts())
    return Recording(file, lab, file.stat().st_size)
