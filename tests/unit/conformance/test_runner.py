"""A whole run, with a program in the place of e2e.test and without a cluster."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hoplab import image as images
from hoplab.conformance import namespaces, node_images, program, runner
from hoplab.conformance.ginkgo import SpecResult
from hoplab.core.errors import ClusterError, LabError
from hoplab.core.paths import LabPaths
from hoplab.image import conformance
from hoplab.lab import state
from tests.support import fake_e2e
from tests.support.fake_e2e import BASIC, HANGING, MORE, NODE_PORT, POLICY, SKIPPED
from tests.support.labs import IMAGE, MADE


class Shown:
    """Progress that keeps what it shows, and calls a function with each task."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.tasks: list[str] = []
        self.on_task: Callable[[str], None] = lambda _: None

    def phase(self, title: str) -> AbstractContextManager[None]:
        return nullcontext()

    def task(self, text: str) -> None:
        self.tasks.append(text)
        self.on_task(text)

    def note(self, text: str) -> None:
        self.notes.append(text)


class World:
    """A lab whose API knows of no namespace, and the tests that are built for it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths = LabPaths("dev", folder / "project")
        self.shown = Shown()
        self.cleaned = 0
        self.monkeypatch = monkeypatch
        self.brought: list[tuple[str, ...]] = []
        state.save(replace(MADE, image="feed"), self.paths)
        self.build()
        image = replace(IMAGE, digest="feed", versions={"kubernetes": "1.37.2"})
        monkeypatch.setattr(images, "list_images", lambda: [image])
        monkeypatch.setattr(runner, "connect", lambda *_, **__: nullcontext())
        monkeypatch.setattr(namespaces, "remove", self._remove)
        monkeypatch.setattr(node_images, "bring", self._bring)

    def build(self, broken: str = "") -> None:
        suite = fake_e2e.suite(self.paths.root, broken)
        self.monkeypatch.setattr(conformance, "ensure_suite", lambda *_: suite)

    def _remove(self, *_: Any) -> tuple[str, ...]:
        self.cleaned += 1
        return ("services-12",) if self.cleaned == 1 else ()

    def _bring(self, hosts: Any, *_: Any) -> tuple[str, ...]:
        self.brought.append(hosts.names)
        return ()

    def run(self, focus: str = "") -> runner.Ended:
        return runner.run(self.paths, self.shown, focus=focus)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_run_shows_specs_as_they_end(world: World) -> None:
    ended = world.run("Services|two nodes|Policy")
    assert [(result.name, result.outcome) for result in ended.run.results] == [
        (BASIC, "passed"),
        (MORE, "passed"),
        (NODE_PORT, "failed"),
        (SKIPPED, "skipped"),
    ]
    assert world.shown.notes == [
        "left out  Netpol NetworkPolicy between server and client should deny [Feature:NetworkPolicy]: "
        "the CNI of this lab, flannel, enforces no NetworkPolicy",
        "removed the namespace services-12",
        "ok          1.5 s  Services should serve a basic endpoint from pods [Conformance]",
        "ok          1.5 s  Services should serve a basic endpoint from pods [Conformance] [Serial]",
        "FAIL        1.5 s  Services should be able to create a functioning NodePort service [FAIL] [Conformance]",
        "skipped     1.5 s  Networking should work with two nodes [SKIP]",
    ]
    assert "2/4 Services should serve a basic endpoint from pods [Conformance] [Serial]" in world.shown.tasks
    assert ended.run.about == "lab dev: Kubernetes 1.37.2, flannel vxlan, kube-proxy iptables, tcg"
    assert world.brought == [("worker1", "worker2")]
    assert world.cleaned == 2  # what an earlier run left, and what this one did
    assert not ended.interrupted and ended.left is None


def test_specs_that_cannot_run_alone_need_no_node(world: World) -> None:
    ended = world.run("Policy")
    assert (ended.run.results, list(ended.run.impossible)) == ((), [POLICY])
    assert not world.brought and not world.cleaned


def test_what_enforces_policies_beside_the_cni_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    built = replace(state.built_setting(state.load(world.paths), world.paths), network_policy="kube-network-policies")
    monkeypatch.setattr(state, "built_setting", lambda *_: built)
    ended = world.run("Policy")
    assert [result.name for result in ended.run.results] == [POLICY]
    assert ended.run.about.endswith("flannel vxlan, kube-proxy iptables, kube-network-policies, tcg")


def test_an_interrupted_run_is_cleaned_up_and_reported(world: World) -> None:
    def interrupt(task: str) -> None:
        if "[HANG]" in task:
            signal.raise_signal(signal.SIGINT)

    world.shown.on_task = interrupt
    ended = world.run("basic endpoint|hang .HANG.$")
    assert ended.interrupted
    assert [(result.name, result.outcome) for result in ended.run.results] == [
        (BASIC, "passed"),
        (MORE, "passed"),
        (HANGING, "not run"),
    ]
    assert "ending the running spec; Ctrl-C again kills it" in world.shown.notes
    assert world.cleaned == 2


def test_a_killed_run_reports_what_was_printed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second Ctrl-C leaves no report of Ginkgo's."""

    def killed(*_: Any, on_line: Callable[[str], None], log: Path, **__: Any) -> bool:
        log.write_text("")
        last = ("-" * 30, MORE, "• [INTERRUPTED] [3.000 seconds]")
        for line in ("-" * 30, BASIC, "• [1.500 seconds]", "-" * 30, NODE_PORT, "• [FAILED] [2.000 seconds]", *last):
            on_line(line)
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "run", killed)
    ended = world.run("Services")
    assert ended.interrupted
    assert ended.run.results == (
        SpecResult(BASIC, "passed", 1.5),
        SpecResult(NODE_PORT, "failed", 2.0, "failed"),
        SpecResult(MORE, "not run", 3.0, "interrupted"),
    )
    assert world.shown.notes[-1] == "killed"


def test_results_are_not_lost_where_a_namespace_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def stays(*_: Any) -> tuple[str, ...]:
        world.cleaned += 1
        if world.cleaned == 2:
            raise ClusterError("it stays")
        return ()

    monkeypatch.setattr(namespaces, "remove", stays)
    ended = world.run("two nodes")
    assert ended.run.results[0].outcome == "skipped"
    assert ended.left and ended.left.message == "it stays"


def test_a_program_that_ends_at_once_is_an_error(world: World) -> None:
    world.build("unknown flag: --ginkgo.v")
    with pytest.raises(LabError, match=r"e2e\.test ended without a result: unknown flag: --ginkgo\.v") as caught:
        world.run()
    assert caught.value.log == str(world.paths.root / "conformance" / "e2e.log")


def test_a_lab_of_another_minor_is_refused_before_anything_is_built(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = replace(IMAGE, digest="feed", versions={"kubernetes": "1.36.3"})
    monkeypatch.setattr(images, "list_images", lambda: [older])
    monkeypatch.setattr(conformance, "ensure_suite", lambda *_: pytest.fail("built"))
    with pytest.raises(LabError) as caught:
        world.run()
    assert caught.value.message == "lab 'dev' has Kubernetes 1.36.3, and upstream's tests can be built of 1.37.2"
    assert caught.value.remedy == "run them on a lab of 1.37, one without lab:kubernetes.version in its spec"


def test_another_patch_in_the_lab_is_noted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        images, "list_images", lambda: [replace(IMAGE, digest="feed", versions={"kubernetes": "1.37.0"})]
    )
    world.run("Policy")
    assert world.shown.notes[-1] == "the lab has Kubernetes 1.37.0, and the tests are those of 1.37.2"


def test_another_version_in_the_lab_is_noted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "list_images", list)
    world.run("Policy")
    assert world.shown.notes[-1] == "the lab has Kubernetes ?, and the tests are those of 1.37.2"
