"""Options of a cluster that hoplab did not make: what they name, and combinations without a meaning."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hoplab import cli
from hoplab.core.paths import PROJECT
from hoplab.observe.recording_format import load
from hoplab.verify import probe, recording, runner
from hoplab.verify.discovery import Given
from hoplab.verify.foreign import Target

RECORDING = PROJECT / "tests" / "recordings" / "flannel-vxlan.json"
REACHED = ("--kubeconfig", "k", "--ssh-config", "s")


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.cli, words, catch_exceptions=False)
    return result.exit_code, result.output


def test_verify_gets_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Target] = []

    def remember(_paths: object, *, target: Target, **_options: Any) -> int:
        asked.append(target)
        return 0

    monkeypatch.setattr(runner, "run", remember)
    monkeypatch.setenv("HOPLAB_LAB", "blue")  # does not contradict
    ranges = ("--pod-cidr", "10.1.0.0/16", "--service-cidr", "10.2.0.0/16")
    assert run("verify", *REACHED, *ranges) == (0, "")
    run("verify", "--kubeconfig", "k", "--inventory", "i", "--traffic", "--probe-image", "mine:1")
    given = Given(IPv4Network("10.1.0.0/16"), IPv4Network("10.2.0.0/16"))
    assert asked == [
        Target(Path("k"), Path("s"), probe_image=probe.AGNHOST_IMAGE, given=given),
        Target(Path("k"), None, Path("i"), traffic=True, probe_image="mine:1"),
    ]


@pytest.mark.parametrize("verb", ["verify", "record"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--ssh-config", "s"), "--ssh-config goes with --kubeconfig"),
        (("--pod-cidr", "10.1.0.0/16"), "--pod-cidr goes with --kubeconfig"),
        (("--kubeconfig", "k"), "goes with one of --ssh-config and --inventory"),
        ((*REACHED, "--inventory", "i"), "goes with one of --ssh-config and --inventory"),
        ((*REACHED, "--service-cidr", "10.1.0.1/16"), "10.1.0.1/16 has host bits set"),
        ((*REACHED, "--lab", "dev"), "--kubeconfig and --lab exclude each other"),
    ],
)
def test_combinations_without_a_meaning(
    monkeypatch: pytest.MonkeyPatch, verb: str, words: tuple[str, ...], said: str
) -> None:
    for name in ("record", "record_cluster"):
        monkeypatch.setattr(recording, name, lambda *_, **__: pytest.fail("it went on"))
    monkeypatch.setattr(runner, "run", lambda *_, **__: pytest.fail("it went on"))
    code, out = run(verb, *words)
    assert code == 2 and said in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--traffic",), "--traffic goes with --kubeconfig"),
        ((*REACHED, "--probe-image", "x"), "--probe-image goes with --traffic"),
        ((*REACHED, "--recording", "r.json"), "--kubeconfig and --recording exclude each other"),
        ((*REACHED, "--cleanup"), "--kubeconfig and --cleanup exclude each other"),
    ],
)
def test_combinations_of_verify(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str) -> None:
    monkeypatch.setattr(runner, "run", lambda *_, **__: pytest.fail("it went on"))
    code, out = run("verify", *words)
    assert code == 2 and said in " ".join(out.split())


def test_record_prints_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(target: Target, file: Path | None, *, force: bool, say: Any) -> tuple[recording.Recording, str]:
        assert (target, file, force) == (Target(Path("k"), Path("s")), Path("it.json"), True)
        return recording.Recording(Path("it.json"), load(RECORDING), 4096), "cluster prod"

    monkeypatch.setattr(recording, "record_cluster", record)
    code, out = run("record", "it.json", "--force", *REACHED)
    assert code == 0 and "cluster prod\nrecorded it.json: lab dev" in out
