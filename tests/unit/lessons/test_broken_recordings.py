"""Recordings of a real lab, broken in one place each: exactly the lessons on it fail, without any machine.

They are what `python -m tests.system.recordings` saw while it tried the faults of tests/system/faults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hoplab.observe.recording_format import RecordingError, load
from hoplab.verify.session import LabSession
from tests.support.lesson_functions import applies, failures, read_only
from tests.system.faults import FAULTS, Fault, Site
from tests.system.recordings import (
    BROKEN,
    BROKEN_YOUNGER,
    FEW,
    FOLDER,
    HEALTHY,
    OLDER_THAN,
    YOUNGER,
    YOUNGER_FAULTS,
    name_of,
    recorded,
)

pytestmark = pytest.mark.thorough

RECORDED = tuple(fault for fault in recorded(load(HEALTHY)) if fault.name not in YOUNGER_FAULTS)
SINCE = tuple(fault for fault in FAULTS if fault.name in YOUNGER_FAULTS)
CASES = [
    *(pytest.param(HEALTHY, BROKEN / fault.file, fault, id=fault.name) for fault in RECORDED),
    *(pytest.param(YOUNGER, BROKEN_YOUNGER / fault.file, fault, id=fault.name) for fault in SINCE),
    *(
        pytest.param(FOLDER / f"{name}.json", BROKEN / name / fault.file, fault, id=name)
        for name, only in FEW.items()
        for fault in FAULTS
        if fault.name == only and (FOLDER / f"{name}.json").exists()
    ),
]
SMALL = 32  # KiB
NOBODY: Any = None


@pytest.mark.parametrize(("healthy", "file", "fault"), CASES)
def test_a_broken_lab_fails_exactly_its_lessons(healthy: Path, file: Path, fault: Fault) -> None:
    lab, broken = load(healthy), load(file)
    words = Site.of(LabSession(lab, NOBODY, NOBODY, NOBODY, NOBODY)).words
    found = failures(read_only(), broken)
    known = set(fault.caught_by) - OLDER_THAN.get(healthy.stem, set())
    wanted = {name for name in known if applies(name, broken)}
    assert set(found) == wanted, found
    assert fault.says.format(**words) in found[fault.caught_by[0]]
    if healthy not in (HEALTHY, YOUNGER):  # the only fault that is recorded on this lab
        assert recorded(lab) == (fault,) and name_of(lab) == healthy.stem
        assert wanted == known


def test_there_is_one_for_each_fault_that_can_be_seen_without_packets() -> None:
    for folder, faults in ((BROKEN, RECORDED), (BROKEN_YOUNGER, SINCE)):
        assert sorted(file.name for file in folder.glob("*.json")) == sorted(fault.file for fault in faults)
    assert len(SINCE) == len(YOUNGER_FAULTS)


def test_a_healthy_lab_with_the_younger_facts_fails_nothing() -> None:
    assert failures(read_only(), load(YOUNGER)) == {}


def test_they_are_small() -> None:
    for file in BROKEN.rglob("*.json"):
        assert file.stat().st_size <= SMALL * 1024, file


def test_one_that_fits_no_healthy_recording(tmp_path: Path) -> None:
    file = BROKEN / RECORDED[0].file
    (tmp_path / "broken.json").write_text(file.read_text())
    with pytest.raises(RecordingError, match="No such file or directory"):
        load(tmp_path / "broken.json")
    (tmp_path / "flannel-vxlan.json").write_text(HEALTHY.read_text().replace("eth0", "eth1"))
    (tmp_path / "broken.json").write_text(file.read_text().replace("../flannel", "flannel"))
    with pytest.raises(RecordingError, match="the base recording has no"):
        load(tmp_path / "broken.json")
    (tmp_path / "broken.json").write_text('{"like": "broken.json", "but": {}}')
    with pytest.raises(RecordingError, match="recursion"):
        load(tmp_path / "broken.json")
