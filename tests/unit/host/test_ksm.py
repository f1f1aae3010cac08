"""KSM is switched on for some scans and put back, whatever happens."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from hoplab.core.wait import Timing
from hoplab.host import ksm
from hoplab.host.ksm import NoMerging

BEFORE = {"run": "0", "pages_to_scan": "100", "sleep_millisecs": "20"}


class Kernel:
    """The kernel's folder: each look of ours is a scan, which merges 256 pages."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder / "ksm", folder / "run"
        self.folder.mkdir()
        self.scans = 0
        self.fails = False
        for name, value in {**BEFORE, "full_scans": "7", "pages_sharing": "0"}.items():
            (self.folder / name).write_text(value)

    def settings(self) -> dict[str, str]:
        return {name: (self.folder / name).read_text() for name in BEFORE}

    def sleep(self, _seconds: float) -> None:
        assert self.settings() == ksm.FAST
        if self.fails:
            raise KeyboardInterrupt
        self.scans += 1
        (self.folder / "full_scans").write_text(str(7 + self.scans))
        (self.folder / "pages_sharing").write_text(str(256 * self.scans))

    def merge(self, *, slow: bool = False) -> ksm.Merged:
        seconds = itertools.count(0, 60 if slow else 1)
        timing = Timing(clock=lambda: float(next(seconds)), sleep=self.sleep, slowness=lambda: 1.0)
        return ksm.merge(lambda _text: None, folder=self.folder, run=self.run, timing=timing)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_it_runs_for_some_scans_and_is_put_back(kernel: Kernel) -> None:
    assert kernel.merge() == ksm.Merged(saved=ksm.SCANS * 2**20, scans=ksm.SCANS)
    assert kernel.settings() == BEFORE
    assert list(kernel.run.iterdir()) == []


def test_it_ends_at_its_limit(kernel: Kernel) -> None:
    assert kernel.merge(slow=True).scans < ksm.SCANS
    assert kernel.settings() == BEFORE


def test_it_is_put_back_after_ctrl_c(kernel: Kernel) -> None:
    kernel.fails = True
    with pytest.raises(KeyboardInterrupt):
        kernel.merge()
    assert kernel.settings() == BEFORE


def test_it_is_put_back_by_the_next_one_after_a_kill(kernel: Kernel) -> None:
    kernel.run.mkdir()
    (kernel.run / "ksm.json").write_text(json.dumps(BEFORE))
    for name, value in ksm.FAST.items():
        (kernel.folder / name).write_text(value)
    kernel.merge()
    assert kernel.settings() == BEFORE


def test_one_that_runs_is_somebody_elses(kernel: Kernel) -> None:
    (kernel.folder / "run").write_text("1")
    with pytest.raises(NoMerging, match="KSM runs on this host already, with settings of its own"):
        kernel.merge()
    assert kernel.settings() == {**BEFORE, "run": "1"}


def test_a_kernel_without_it(tmp_path: Path) -> None:
    with pytest.raises(NoMerging, match="this kernel has no KSM") as refused:
        ksm.merge(lambda _text: None, folder=tmp_path / "none", run=tmp_path / "run")
    assert refused.value.remedy == "a kernel with CONFIG_KSM has it"


def test_a_setting_that_may_not_be_written(kernel: Kernel) -> None:
    (kernel.folder / "run").unlink()
    (kernel.folder / "run").symlink_to("/proc/self/oom_score")  # root, too, may not write it; it reads as a number
    with pytest.raises(NoMerging, match="KSM can't be switched on: ") as refused:
        kernel.merge()
    assert refused.value.remedy == f"root of the host can: echo 1 >{kernel.folder}/run"
