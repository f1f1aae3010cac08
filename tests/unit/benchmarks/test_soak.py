"""The soak: one lab made again and again, and one that is watched."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import soak
from benchmarks.labs import BenchLab
from benchmarks.soak import Cold
from hoplab.core.errors import ClusterError
from hoplab.core.paths import LabPaths
from tests.support.benchmark_labs import lab_state


def test_the_soaks_table() -> None:
    colds = [
        Cold(1, 250.0, phases={"machines": 5.0, "cluster": 120.0}, load=1.5),
        Cold(2, 90.0, failed="up: no", boot_retries=3),
        Cold(3, 260.0, phases={"machines": 7.0, "cluster": 130.0}, boot_retries=1),
    ]
    assert soak.soak_table(colds).splitlines() == [
        "          up s  machines  cluster  retries  load",
        "1          250         5      120        0   1.5",
        "2 FAILED    90         -        -        3   0.0",
        "3          260         7      130        1   0.0",
        "median     255         6      125",
        "slowest    260         7      130",
    ]


def test_a_bring_up_that_fails_keeps_its_log(fake: Callable[[str], BenchLab]) -> None:
    lab = fake("echo 'error: worker1 does not boot'; exit 1")
    cold = soak.bring_up(lab, 3, verify=False)
    assert cold.failed == "up: worker1 does not boot"
    assert "does not boot" in (lab.logs / "03-up.log").read_text()


def test_a_failed_verify_is_a_failure(fake: Callable[[str], BenchLab], paths: LabPaths) -> None:
    lab_state(paths)
    lab = fake("test $1 = verify && { echo '20 claims hold, 1 fail'; exit 1; }; true")
    assert soak.bring_up(lab, 1, verify=True).failed == "verify: 20 claims hold, 1 fail"


def pod(restarts: int) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "kube-system", "name": "coredns-1"},
        "status": {"containerStatuses": [{"name": "coredns", "restartCount": restarts}]},
    }


def watched(paths: LabPaths, monkeypatch: pytest.MonkeyPatch, answers: list[Any]) -> soak.Steady:
    """A watch of a lab whose API gives these answers, and the last one from then on."""
    lab_state(paths)

    def read(_path: str) -> dict[str, Any]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return {"items": [pod(answer)]}

    monkeypatch.setattr(soak, "connect", lambda _paths, _netns: nullcontext(SimpleNamespace(read=read)))
    monkeypatch.setattr(soak, "PROBE_S", 0.0)
    monkeypatch.setattr(soak, "LOOK_S", 0.0)
    monkeypatch.setattr(soak, "running", lambda _lab: {"etcd": 4711})
    return soak.watch(BenchLab(paths, paths.project), minutes=0.05 / 60)


def test_a_steady_lab_has_no_troubles(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watched(paths, monkeypatch, [2])
    assert (seen.troubles, seen.restarts_before) == ((), 2)
    assert seen.probes >= 1 and seen.p99_s <= seen.max_s < soak.ANSWER_S


def test_restarts_and_silence_are_troubles(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    silence = ClusterError("the API server does not answer: timed out")
    seen = watched(paths, monkeypatch, [0, silence, 0, 1])
    assert seen.troubles == (
        "after 0 s the API server does not answer: timed out",
        "restarts of kube-system/coredns-1/coredns: 0 -> 1",
    )


def test_the_processes_of_a_hosted_control_plane_are_known_by_their_program(paths: LabPaths) -> None:
    folder = paths.control_plane / "bin"
    folder.mkdir(parents=True)
    (folder / "etcd").symlink_to("/bin/cat")
    process = subprocess.Popen([str(folder / "etcd")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"ready\n")
        process.stdin.flush()
        # Popen returns before the kernel has laid out the new command line; the answer comes after it.
        assert process.stdout.readline() == b"ready\n"
        assert soak.running(BenchLab(paths, paths.project)) == {"etcd": process.pid}
        process.stdin.close()
