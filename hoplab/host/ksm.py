"""Let the kernel keep equal pages of machines once: KSM (kernel samepage merging), for a bounded time.

QEMU offers the memory of machines to KSM. Forks of one lab begin with equal memory, but each QEMU reads its own copy.
KSM is a setting of the whole host, off on most, and its thread uses a processor while it looks. So it is switched on
until it has seen all pages a few times, then put back to what it was: merged pages stay merged until one is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hoplab.core import fs
from hoplab.core.errors import HostError
from hoplab.core.lock import locked
from hoplab.core.wait import HOST, Expired, NotYet, Timing

FOLDER = Path("/sys/kernel/mm/ksm")
RUN = Path("/run/hoplab")
SCANS = 4  # a page is merged when it was the same in two scans; busy pages need more
LIMIT_S = 90.0  # three machines with 1 GiB in use each took 20 s
FAST = {"pages_to_scan": "20000", "sleep_millisecs": "10", "run": "1"}
PAGE = 4096


@dataclass(frozen=True)
class Merged:
    """What a run of KSM found."""

    saved: int  # bytes that are kept once instead of several times, of all programs of this host
    scans: int  # complete looks at all pages


class NoMerging(HostError):
    """KSM can't be used on this host, or is somebody else's."""


def merge(report: Callable[[str], None], *, folder: Path = FOLDER, run: Path = RUN, timing: Timing = HOST) -> Merged:
    """Let KSM look at all pages a few times, at most ``LIMIT_S``; raise NoMerging where it can't be used."""
    if not os.access(folder / "run", os.W_OK):
        _value(folder, "run")
        raise _not_allowed(folder, "this user may not")
    with locked(run / "ksm.lock", "merging memory of machines"):
        _put_back(folder, run)
        if _value(folder, "run") == 1:
            raise NoMerging("KSM runs on this host already, with settings of its own", remedy="nothing has to be done")
        with _running(folder, run):
            first = _value(folder, "full_scans")

            def done() -> Merged | NotYet:
                scans = _value(folder, "full_scans") - first
                found = Merged(_value(folder, "pages_sharing") * PAGE, scans)
                return found if scans >= SCANS else NotYet(f"{found.saved >> 20} MiB are kept once so far")

            try:
                return timing.until(done, LIMIT_S, poll_s=0.5, report=report)
            except Expired:
                return Merged(_value(folder, "pages_sharing") * PAGE, _value(folder, "full_scans") - first)


@contextmanager
def _running(folder: Path, run: Path) -> Iterator[None]:
    """Run KSM fast within the body; what it was is in a file until it is put back, for whoever comes after a kill."""
    before = {name: str(_value(folder, name)) for name in FAST}
    fs.write(run / "ksm.json", json.dumps(before))
    try:
        _write(folder, FAST)
        yield
    finally:
        _put_back(folder, run)


def _put_back(folder: Path, run: Path) -> None:
    kept = run / "ksm.json"
    if kept.exists():
        _write(folder, dict(reversed(json.loads(kept.read_text()).items())))  # it stops before its settings change
        kept.unlink()


def _value(folder: Path, name: str) -> int:
    try:
        return int((folder / name).read_text())
    except (OSError, ValueError):
        raise NoMerging("this kernel has no KSM", remedy="a kernel with CONFIG_KSM has it") from None


def _write(folder: Path, values: dict[str, str]) -> None:
    for name, value in values.items():
        try:
            (folder / name).write_text(value)
        except OSError as error:
            raise _not_allowed(folder, str(error.strerror)) from None


def _not_allowed(folder: Path, why: str) -> NoMerging:
    return NoMerging(f"KSM can't be switched on: {why}", remedy=f"root of the host can: echo 1 >{folder}/run")
