"""Restores in a row: what is counted, and what is a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks import restores
from benchmarks.labs import BenchLab
from benchmarks.restores import Restored
from benchmarks.soak import Cold
from hoplab.core.paths import LabPaths
from tests.support.benchmark_labs import lab_state

SCRIPT = """\
case "$1 $2" in
  "checkpoint restore") printf '[    2s] check: done in 2s\\n[ 1m10s] usable: done in 1m08s\\n' ;;
esac
echo "$@" >>calls
"""
BEFORE = {"default/app-1/echo": 0}


class Api:
    """An API with one pod and one node."""

    def __init__(self) -> None:
        self.restarts = 0
        self.ready = "True"

    def read(self, path: str) -> dict[str, Any]:
        if path.endswith("pods"):
            container = {"name": "echo", "restartCount": self.restarts}
            meta = {"namespace": "default", "name": "app-1"}
            return {"items": [{"metadata": meta, "status": {"containerStatuses": [container]}}]}
        condition = {"type": "Ready", "status": self.ready, "message": "kubelet stopped posting node status"}
        return {"items": [{"metadata": {"name": "worker1"}, "status": {"conditions": [condition]}}]}


@pytest.fixture
def api(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> Api:
    found = Api()

    @contextmanager
    def connect(_paths: LabPaths, _netns: str) -> Iterator[Api]:
        yield found

    monkeypatch.setattr(restores, "connect", connect)
    lab_state(paths)
    return found


def test_a_restore_over_the_running_lab(fake: Callable[[str], BenchLab], api: Api) -> None:
    lab = fake(SCRIPT)
    one = restores.restore(lab, 1, from_nothing=False, verify=True, before=BEFORE)
    assert one.failed == "" and one.phases == {"check": 2, "usable": 68} and one.verify_s is not None
    calls = (lab.paths.project / "calls").read_text().splitlines()
    assert calls == ["checkpoint restore benchmark --yes --lab bench", "verify --lab bench"]


def test_a_restore_from_nothing(fake: Callable[[str], BenchLab], api: Api) -> None:
    lab = fake(SCRIPT)
    assert restores.restore(lab, 1, from_nothing=True, verify=False, before=BEFORE).verify_s is None
    assert (lab.paths.project / "calls").read_text().splitlines()[0] == "destroy --lab bench"


def test_what_is_no_restore(fake: Callable[[str], BenchLab], api: Api) -> None:
    def failed(script: str, *, verify: bool = False) -> str:
        return restores.restore(fake(script), 1, from_nothing=False, verify=verify, before=BEFORE).failed

    assert failed("echo 'error: the lab is not usable'; exit 1") == "restore: the lab is not usable"
    assert failed("test $1 != verify || { echo '3 claims fail'; exit 1; }", verify=True) == "verify: 3 claims fail"
    api.restarts = 1
    assert failed("true") == "default/app-1/echo started anew"
    api.restarts, api.ready = 0, "Unknown"
    assert failed("true") == "worker1: kubelet stopped posting node status"


def test_the_table() -> None:
    done = [
        Restored(1, 40.2, phases={"check": 1, "usable": 18}, verify_s=61.0, load=0.5),
        Restored(2, 12.0, "restore: no"),
        Restored(3, 44.0, phases={"check": 1, "usable": 22}),
    ]
    assert restores.restores_table(done).splitlines() == [
        "           s  check  usable  verify  load",
        "1         40      1      18      61   0.5",
        "2 FAILED  12      -       -       -   0.0",
        "3         44      1      22       -   0.0",
        "median    42      1      20",
        "slowest   44      1      22",
    ]


@pytest.mark.parametrize(("cold_s", "code"), [(700.0, 0), (300.0, 1)])
def test_a_slow_restore_is_a_missed_target(
    cold_s: float,
    code: int,
    fake: Callable[[str], BenchLab],
    api: Api,
    paths: LabPaths,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is said at the end: the figures as parts of the cold bring-up."""
    verified: list[bool] = []

    @contextmanager
    def made(*_: object) -> Iterator[BenchLab]:
        yield fake(SCRIPT)

    def restore(_lab: BenchLab, number: int, *, verify: bool, **_: object) -> Restored:
        verified.append(verify)
        return Restored(number, 40.0)

    monkeypatch.setattr(restores, "bench_lab", made)
    monkeypatch.setattr(restores, "results_folder", lambda _name: paths.project)
    monkeypatch.setattr(restores, "bring_up", lambda *_, **__: Cold(0, cold_s))
    monkeypatch.setattr(restores, "restore", restore)
    ran = CliRunner().invoke(restores.restores, ["-n", "3", "--verify", "2"], standalone_mode=False)
    assert ran.return_value == code
    assert f"3 restores, 0 failed; median 1/{cold_s / 40:.1f} and 95 % within" in ran.output
    assert verified == [False, True, False]
    calls = (paths.project / "calls").read_text().splitlines()
    assert calls == [f"checkpoint {verb} benchmark --lab bench" for verb in ("create", "delete")]
