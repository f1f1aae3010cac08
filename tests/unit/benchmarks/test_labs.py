"""Labs of benchmarks: nothing is left of them, somebody's lab is refused, rounds are timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import labs, pair
from benchmarks.labs import MARK, BenchLab, Report, bench_lab
from benchmarks.pair import Bringup
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from tests.support.benchmark_labs import lab_state

UP = """\
[    1s] machines ...
[   40s] hoplab-bench-1a2b3c-worker1: its kernel panicked; restarted it (1 of at most 3 times)
changed   0 resources, 0 tasks
"""


def test_nothing_is_left_of_a_benchmarks_lab(
    fake: Callable[[str], BenchLab], paths: LabPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labs, "LabPaths", lambda _name: paths)
    fake(f'test -e {paths.spec} && echo "$@" >> {paths.project}/calls')
    with pytest.raises(KeyboardInterrupt), bench_lab("bench", {"lab:nodes": {"workers": 1}}, paths.project):
        assert paths.spec.read_text() == MARK + "config:\n  lab:nodes:\n    workers: 1\n"
        raise KeyboardInterrupt
    assert (paths.project / "calls").read_text() == "destroy --lab bench\n" * 2  # before and after
    assert not paths.spec.exists()


def test_somebodys_lab_is_refused(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labs, "LabPaths", lambda _name: paths)
    paths.spec.write_text("config: {}\n")
    with (
        pytest.raises(LabError, match=r"Pulumi.bench.yaml is a lab of somebody's") as refused,
        bench_lab("bench", {}, paths.project),
    ):
        pytest.fail("it was not refused")
    assert "--lab" in refused.value.remedy
    assert paths.spec.read_text() == "config: {}\n"


def test_a_lab_that_cannot_be_destroyed_ends_the_benchmark(fake: Callable[[str], BenchLab]) -> None:
    lab = fake("echo 'error: libvirtd did not start'; exit 1")
    with pytest.raises(LabError, match="lab bench can't be destroyed: libvirtd did not start") as failed:
        lab.destroy("before")
    assert failed.value.remedy == "./lab destroy --lab bench, then try again"


def test_evidence_survives_the_lab(paths: LabPaths, tmp_path: Path) -> None:
    paths.console.mkdir(parents=True)
    (paths.console / "worker1.log").write_text("Kernel panic")
    kept = BenchLab(paths, tmp_path / "logs").keep_evidence("03")
    assert (kept / "console/worker1.log").read_text() == "Kernel panic"


def test_a_report_is_for_people_and_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("soak", tmp_path)
    report.say("1  251.0 s")
    report.figures = {"failed": 0}
    report.end()
    assert capsys.readouterr().out == '1  251.0 s\n{"benchmark": "soak", "failed": 0}\n'
    assert (tmp_path / "result.json").read_text() == '{"benchmark": "soak", "failed": 0}\n'


def test_lab_up_is_timed_with_what_follows_it(fake: Callable[[str], BenchLab], paths: LabPaths) -> None:
    lab_state(paths)
    made = pair.up(fake(f"test $1 = verify && exit 1; cat <<'END'\n{UP}END"), "round-1", verify=True)
    assert made.seconds is not None and made.no_op_s is not None and made.verify_s is not None
    assert (made.steps, made.boot_retries, made.no_op_changed, made.verify_failed) == ({"cluster": 120.0}, 1, 0, True)


def test_a_failed_up_is_a_round_without_a_time(fake: Callable[[str], BenchLab]) -> None:
    made = pair.up(fake("echo 'error: worker1 does not boot (4 attempts)'; exit 1"), "round-1", verify=True)
    assert (made.seconds, made.why) == (None, "worker1 does not boot (4 attempts)")


def test_targets_that_are_met_and_missed() -> None:
    hands = [Bringup(200.0), Bringup(220.0), Bringup(210.0)]
    good = [Bringup(seconds, no_op_s=4.0, no_op_changed=0) for seconds in (200.0, 215.0, 210.0)]
    assert pair.shortcomings(hands, good) == []
    bad = [
        Bringup(280.0, no_op_s=11.0, no_op_changed=2),
        Bringup(None, why="worker1 does not boot"),
        Bringup(300.0, no_op_s=12.0, verify_failed=True),
    ]
    assert pair.shortcomings(hands, bad) == [
        "a bring-up failed: worker1 does not boot",
        "`./lab up` takes 1.38 times as long as by hand, at most 1.0 is wanted",
        "`./lab up` takes 11.5 s where there is nothing to do, at most 5 s is wanted",
        "the second `./lab up` changed 2 resources or tasks",
        "the second `./lab up` failed",
        "`./lab verify` found a claim that does not hold",
    ]


def test_the_pairs_table() -> None:
    hands = [Bringup(200.0), Bringup(210.0)]
    made = [Bringup(None, why="no"), Bringup(252.0, no_op_s=6.0, verify_s=20.5)]
    assert pair.figures_table(hands, made).splitlines() == [
        "         by hand s  ./lab up s  ratio  no-op s  verify s",
        "round 1      200.0      failed      -        -         -",
        "round 2      210.0       252.0   1.20      6.0      20.5",
        "median       205.0       252.0   1.23      6.0      20.5",
    ]
