"""A verb on many labs: in parallel, each with its log, interrupted, and failed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from typing import Any

import pytest

from hoplab.lab import fleet_members, fleet_run
from hoplab.lab.fleet_members import Fleet, FleetError
from tests.support.fleets import Heard, stand_in


def test_run_all_gives_every_lab_a_process_and_a_log(course: Fleet) -> None:
    members, heard = fleet_members.write_specs(course, 3), Heard()
    stand_in(course, 'echo "[   12s] cluster: worker1: kubeadm join" >&2; echo "made $3"')
    fleet_run.run_all(course, members, "up", 2, heard)
    assert course.log(members[2]).read_text() == "[   12s] cluster: worker1: kubeadm join\nmade course-s3\n"
    assert sorted(heard.tasks) == [f"course-s{number}: cluster: worker1: kubeadm join" for number in (1, 2, 3)]
    assert heard.notes[-1].endswith(": up is done (3 of 3)")
    assert course.folder.stat().st_mode & 0o777 == 0o700


def test_run_all_keeps_to_the_number_of_parallel_labs(course: Fleet) -> None:
    stand_in(course, 'mkdir busy || { echo "error: two at once"; exit 1; }; read -rt 0.05 <> <(:); rmdir busy')
    fleet_run.run_all(course, fleet_members.write_specs(course, 4), "up", 1, Heard())


def test_run_all_continues_after_a_lab_that_failed(course: Fleet) -> None:
    members, heard = fleet_members.write_specs(course, 3), Heard()
    stand_in(course, '[ "$3" != course-s2 ] || { echo "error: worker1 is broken"; exit 1; }')
    with pytest.raises(FleetError) as failed:
        fleet_run.run_all(course, members, "up", 3, heard)
    assert failed.value.message == "1 of 3 labs failed:\n  course-s2: worker1 is broken"
    assert failed.value.remedy == "run the same command again to continue with them"
    assert failed.value.log == str(course.folder)
    assert len(heard.notes) == 2


def test_run_all_names_the_exit_code_of_a_silent_failure(course: Fleet) -> None:
    stand_in(course, "exit 3")
    with pytest.raises(FleetError, match="course-s1: ended with 3"):
        fleet_run.run_all(course, fleet_members.write_specs(course, 1), "up", 1, Heard())


def test_run_all_lets_the_others_wait_for_the_first(course: Fleet) -> None:
    members = fleet_members.write_specs(course, 3)
    stand_in(course, f"[ $3 = course-s1 ] || [ -e {course.project}/made ] || exit 1; touch {course.project}/made")
    fleet_run.run_all(course, members, "up", 3, Heard(), first_alone=True)


def test_run_all_makes_the_others_where_the_first_failed(course: Fleet) -> None:
    members, heard = fleet_members.write_specs(course, 2), Heard()
    stand_in(course, '[ $3 != course-s1 ] || { echo "error: no"; exit 1; }')
    with pytest.raises(FleetError, match="1 of 2 labs failed:\n  course-s1: no"):
        fleet_run.run_all(course, members, "up", 1, heard, first_alone=True)
    assert heard.notes == ["course-s2: up is done (1 of 2)"]


def test_run_all_passes_ctrl_c_on_and_starts_no_other_lab(course: Fleet) -> None:
    members = fleet_members.write_specs(course, 2)
    mark = course.project / "mark"
    os.mkfifo(mark)
    stand_in(
        course,
        'trap "touch $3.stopped; exit 130" INT; touch $3.began; echo >mark; while :; do read -rt 1 <> <(:); done',
    )

    def interrupt() -> None:
        mark.read_text()  # the first lab runs
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        fleet_run.run_all(course, members, "up", 1, Heard())
    assert (course.project / "course-s1.stopped").exists()
    assert not (course.project / "course-s2.began").exists()


def test_run_all_passes_ctrl_c_on_to_a_lab_that_starts_at_that_moment(
    course: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = fleet_members.write_specs(course, 1)
    stand_in(course, 'trap "touch $3.stopped; exit 130" INT; echo; while :; do read -rt 1 <> <(:); done')
    interrupted = threading.Event()

    class Slow(subprocess.Popen[str]):
        """A process that already runs when its caller gets it: the interrupt comes in between."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            assert self.stdout
            self.stdout.readline()  # the trap is set
            os.kill(os.getpid(), signal.SIGINT)
            assert interrupted.wait(60)

    interrupt = fleet_run._Running.interrupt

    def noticed(running: fleet_run._Running) -> None:
        interrupt(running)
        interrupted.set()

    monkeypatch.setattr(fleet_run._Running, "interrupt", noticed)
    monkeypatch.setattr(subprocess, "Popen", Slow)
    with pytest.raises(KeyboardInterrupt):
        fleet_run.run_all(course, members, "up", 1, Heard())
    assert (course.project / "course-s1.stopped").exists()
