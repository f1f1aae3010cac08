"""e2e.test as a process: lists, a run, and its ends."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from hoplab.conformance import program
from hoplab.conformance.ginkgo import parse_report
from hoplab.conformance.selection import focus_expression
from hoplab.core.errors import ImageError, LabError
from tests.support import fake_e2e
from tests.support.fake_e2e import BASIC, DEAF, HANGING, IMAGE, NODE_PORT


class Started:
    """A run of some specs in a folder."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        self.report = folder / "report.json"
        self.lines: list[str] = []
        self.interruptions = 0
        self.argv = program.command(
            fake_e2e.suite(folder),
            focus=focus_expression(names),
            kubeconfig=folder / "kubeconfig",
            kubectl=folder / "kubectl",
            report=self.report,
            output=folder,
        )

    def interrupted(self) -> None:
        self.interruptions += 1

    def run(self, on_line: Callable[[str], None] = lambda _: None) -> bool:
        def line(text: str) -> None:
            self.lines.append(text)
            on_line(text)

        return program.run(
            self.argv,
            netns="",
            environment=dict(os.environ),
            folder=self.folder,
            log=self.folder / "log",
            on_line=line,
            on_interrupt=self.interrupted,
        )


def test_a_run_is_of_the_chosen_specs_alone(tmp_path: Path) -> None:
    run = Started(tmp_path, BASIC, NODE_PORT)
    assert run.run() is False
    assert "Will run 2 of 8 specs" in run.lines
    assert (tmp_path / "log").read_text().splitlines() == run.lines
    outcomes = [result.outcome for result in parse_report(run.report.read_text(), [BASIC, NODE_PORT])]
    assert outcomes == ["passed", "failed"]


def test_the_first_interruption_lets_the_spec_end(tmp_path: Path) -> None:
    """Ctrl-C is this process's alone: e2e.test has a session of its own, and gets one signal."""
    run = Started(tmp_path, HANGING, BASIC)

    def interrupt(line: str) -> None:
        if "STEP" in line and any(HANGING in before for before in run.lines):
            signal.raise_signal(signal.SIGINT)

    assert run.run(interrupt) is True
    assert run.interruptions == 1
    by_name = {result.name: result for result in parse_report(run.report.read_text(), [HANGING, BASIC])}
    assert by_name[HANGING].outcome == "not run" and by_name[HANGING].why.startswith("timed out")


def test_the_second_interruption_kills(tmp_path: Path) -> None:
    run = Started(tmp_path, DEAF)

    def interrupt(line: str) -> None:
        if "STEP" in line:
            signal.raise_signal(signal.SIGINT)

    # another process sends it, while nothing is printed any more
    command = ["sh", "-c", f"read line; kill -INT {os.getpid()}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0) as again:
        assert again.stdin
        run.interrupted = partial(again.stdin.write, b"now\n")  # type: ignore[method-assign,assignment]
        with pytest.raises(KeyboardInterrupt):
            run.run(interrupt)
    assert again.returncode == 0
    assert not run.report.exists()


def test_bytes_that_are_no_text_and_an_end_within_a_line(tmp_path: Path) -> None:
    run = Started(tmp_path)
    run.argv = ["printf", "two\\377\\nlast"]
    assert run.run() is False
    assert run.lines == ["two\N{REPLACEMENT CHARACTER}", "last"]


def test_lists_are_what_the_program_prints(tmp_path: Path) -> None:
    suite = fake_e2e.suite(tmp_path)
    assert program.listed(suite, "images", tmp_path).splitlines()[0] == IMAGE


@pytest.mark.parametrize(
    ("text", "problem"),
    [("#!/bin/sh\necho no >&2; exit 1\n", "--list-tests failed: no"), ("not a program", "e2e.test does not run")],
)
def test_a_program_that_lists_nothing_is_an_error(tmp_path: Path, text: str, problem: str) -> None:
    suite = fake_e2e.suite(tmp_path)
    suite.program.write_text(text)
    with pytest.raises(LabError, match=problem) as caught:
        program.listed(suite, "tests", tmp_path)
    assert caught.value.remedy == f"remove {tmp_path} and run the same command again: it is built anew"


def test_an_image_of_another_version_is_an_error(tmp_path: Path) -> None:
    suite = fake_e2e.suite(tmp_path)
    program.require_images(suite, f"a:1\n{IMAGE}\n")
    with pytest.raises(ImageError, match=f"e2e.test 1.37.2 asks for no image {IMAGE}") as caught:
        program.require_images(suite, "a:1\nregistry.k8s.io/e2e-test-images/agnhost:9\n")
    assert caught.value.remedy == "name the one it asks for: registry.k8s.io/e2e-test-images/agnhost:9"
    with pytest.raises(ImageError) as caught:
        program.require_images(replace(suite, images={"b:1": ""}), "a:1")
    assert "--list-images" in caught.value.remedy
