"""Verbs of a user who is not root: which enter the namespaces of their labs first, and the Pulumi CLI in them."""

from __future__ import annotations

import contextlib
import os
import shutil

import pytest

from hoplab import cli
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths


def test_pulumi_run_becomes_the_cli_with_the_labs_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, list[str], str]] = []
    monkeypatch.setattr("hoplab.engine.pulumi_cli.environment", lambda paths: {"PULUMI_BACKEND_URL": paths.lab})
    monkeypatch.setattr(os, "execve", lambda path, words, env: ran.append((path, words, env["PULUMI_BACKEND_URL"])))
    monkeypatch.setattr(shutil, "which", lambda _name: "/opt/pulumi")
    cli.cli(["pulumi", "run", "--lab", "blue", "up", "--yes"], standalone_mode=False)
    assert ran == [("/opt/pulumi", ["pulumi", "up", "--yes"], "blue")]
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(LabError, match="there is no Pulumi CLI on PATH") as error:
        cli.cli(["pulumi", "run", "up"], standalone_mode=False)
    assert "./lab pulumi install" in error.value.remedy


@pytest.mark.parametrize(
    ("words", "entered"),
    [
        (("up",), [("dev", True)]),
        (("fleet", "up", "course", "--count", "2"), [("course", True)]),
        (("image", "build", "--lab", "blue"), [(None, True)]),
        (("image", "list"), []),
        (("checkpoint", "list", "--lab", "blue"), [("blue", True)]),
        (("status", "--lab", "blue"), [("blue", False)]),
        (("verify", "--recording", "x.json"), [("dev", False)]),
        (("doctor",), []),
        (("version",), []),
        (("uri",), []),
    ],
)
def test_verbs_of_who_is_not_root_enter_first(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], entered: list[tuple[str | None, bool]]
) -> None:
    class Entered(Exception):
        pass

    seen: list[tuple[str | None, bool]] = []

    def enter(paths: LabPaths | None, *, makes: bool) -> None:
        seen.append((paths.lab if paths else None, makes))
        raise Entered

    monkeypatch.setattr("hoplab.cli.options.rootless", lambda: True)
    monkeypatch.setattr("hoplab.lab.rootless.enter", enter)
    if entered:
        with pytest.raises(Entered):
            cli.cli(list(words), standalone_mode=False)
    else:
        with contextlib.suppress(Exception, SystemExit):
            cli.cli(list(words), standalone_mode=False)
    assert seen == entered
