"""What a change costs a controller: processes before and after it."""

from __future__ import annotations

from benchmarks.controllers import compared, parse

# /proc/PID/stat of a pod: pause, the controller, nginx with two workers, one of which is ending
BEFORE = """\
10 (catatonit) S 1 10 10 0 -1 4 0 0 0 0 1 1 0 0 20 0 1 0 400 1000 25 1
20 (python3) S 1 20 20 0 -1 4 0 0 0 0 500 100 0 0 20 0 1 0 401 1000 2500 1
30 (nginx) S 20 30 30 0 -1 4 0 0 0 0 10 10 100 20 20 0 1 0 402 1000 1000 1
31 (nginx) S 30 30 30 0 -1 4 0 0 0 0 5 5 0 0 20 0 1 0 403 1000 1000 1
"""
AFTER = """\
10 (catatonit) S 1 10 10 0 -1 4 0 0 0 0 1 1 0 0 20 0 1 0 400 1000 25 1
20 (python3) S 1 20 20 0 -1 4 0 0 0 0 600 100 0 0 20 0 1 0 401 1000 2500 1
30 (nginx) S 20 30 30 0 -1 4 0 0 0 0 10 10 110 30 20 0 1 0 402 1000 1000 1
31 (nginx) S 30 30 30 0 -1 4 0 0 0 0 1 0 0 0 20 0 1 0 900 1000 1000 1
"""


def test_processes() -> None:
    found = parse(BEFORE)
    assert [process.name for process in found] == ["catatonit", "python3", "nginx", "nginx"]
    assert (found[2].cpu_s, found[2].memory_kib) == (1.4, 4000)
    assert parse("no process\n") == ()


def test_a_pid_that_was_used_again_is_another_process() -> None:
    change = compared("a path", 1.26, parse(BEFORE), parse(AFTER))
    assert (change.name, change.seconds, change.started) == ("a path", 1.3, {"nginx": 1})
    assert change.cpu_s == 1.11  # 1 s of python3, 0.2 s of what ended under nginx; what has ended is 0.09 s less


def test_nothing_started() -> None:
    assert compared("", 0, parse(BEFORE), parse(BEFORE)).started == {}
