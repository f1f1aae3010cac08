"""Verbs that let a lab be used by the host's own tools, as a person types them: what is printed. Nothing real runs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from hoplab import cli
from hoplab.cluster.converge import ConvergeResult
from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT
from hoplab.lab import lifecycle, state
from tests.support.labs import MADE

STATE = replace(MADE, libvirt_uri="test:///default")


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.cli, words, catch_exceptions=False)
    return result.exit_code, result.output


def test_help_on_a_narrow_terminal_is_whole() -> None:
    out = click.Context(cli.cli, info_name="./lab", terminal_width=60).get_help()
    verbs = out.partition("Make a lab:")[2]
    assert "..." not in verbs and "Make the lab as its spec describes it." in verbs
    assert max(map(len, verbs.splitlines())) <= 60
    assert "Show what `up` would change in machines, networks and volumes." in " ".join(verbs.split())


def test_up_names_the_context_of_kubectl(monkeypatch: pytest.MonkeyPatch) -> None:
    made = lifecycle.UpResult(replace(STATE, context="hoplab-dev"), (), ConvergeResult(changed=0, tasks=0, seconds=1.0))
    monkeypatch.setattr(lifecycle, "up", lambda *_, **__: made)
    assert "          kubectl --context hoplab-dev get pods -A\n" in run("up")[1]


def test_uri_is_for_virsh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "load_summary", lambda _paths: STATE)
    assert run("uri") == (0, "test:///default\n")
    private = replace(STATE, netns="hoplab-x", libvirt_uri="qemu+unix:///system?socket=/run/hoplab/x/libvirt-sock")
    monkeypatch.setattr(state, "load_summary", lambda _paths: private)
    assert run("uri", "--lab", "none") == (
        0,
        "qemu+unix:///system?socket=/run/hoplab/x/libvirt-sock\n"
        "note: this libvirt does not run now; ./lab start --lab none starts it\n",
    )


def test_kubeconfig_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.lab.host_access.kubeconfig_text", lambda paths: f"of {paths.lab}\n")
    assert run("kubeconfig", "--lab", "blue") == (0, "of blue\n")


def test_ssh_help_has_the_line_for_the_users_own_configuration() -> None:
    assert f'Include "{PROJECT}/inventory/*.ssh_include"' in run("ssh", "--help")[1]


def test_kubectl_asks_no_proxy_for_the_lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[dict[str, str]] = []
    (tmp_path / "kubectl").touch()
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org")
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.setattr(state, "load_summary", lambda _paths: replace(STATE, image_bin=str(tmp_path)))
    monkeypatch.setattr("os.execve", lambda _program, _words, environment: given.append(environment))
    run("kubectl", "apply", "-f", "https://example.com/x.yaml")
    assert given[0]["HTTPS_PROXY"] == "http://proxy.example.org"
    assert given[0]["NO_PROXY"] == "example.org,192.168.77.1,192.168.77.20,192.168.77.21"


def test_no_color_is_heeded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise LabError("no", remedy="yes")

    monkeypatch.setattr(lifecycle, "up", refuse)
    monkeypatch.setattr(sys, "argv", ["lab", "up"])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for no_color, said in (("", "\x1b[31merror:\x1b[0m no\n  -> yes\n"), ("1", "error: no\n  -> yes\n")):
        monkeypatch.setenv("NO_COLOR", no_color)
        with pytest.raises(SystemExit):
            cli.main()
        assert capsys.readouterr().err == said
