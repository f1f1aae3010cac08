"""The verbs of checkpoints as a person types them, on a lab that is played."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from hoplab import cli
from hoplab import image as images
from hoplab.cli import maintain, options
from hoplab.core.errors import LabError
from hoplab.lab import lifecycle
from hoplab.lab.checkpoint.store import Store
from tests.support.checkpoint_lab import DIGEST, CheckpointLab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CheckpointLab:
    lab = CheckpointLab(tmp_path, monkeypatch)
    monkeypatch.setattr(options, "LabPaths", lambda name: type(lab.paths)(name, lab.paths.project))
    return lab


def run(*words: str) -> str:
    result = CliRunner().invoke(cli.cli, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_create_list_show_restore_delete(lab: CheckpointLab) -> None:
    assert run("checkpoint", "list") == "there are no checkpoints\n"
    assert json.loads(run("checkpoint", "list", "--json")) == {"checkpoints": []}
    created = run("checkpoint", "create", "day-4")
    assert "checkpoint day-4: 2 MiB, " in created
    assert "return to it   ./lab checkpoint restore day-4 --yes" in created

    (listed,) = json.loads(run("checkpoint", "list", "--json"))["checkpoints"]
    assert (listed["name"], listed["lab"], listed["image"], listed["problem"]) == ("day-4", "dev", DIGEST, "")
    shown = json.loads(run("checkpoint", "show", "day-4", "--json"))
    assert {name: shown[name] for name in listed} == listed
    assert "lab/pool/worker1.qcow2" in {file["path"] for file in shown["files"]}
    assert listed["content"][:12] in run("checkpoint", "list")
    text = run("checkpoint", "show", "day-4")
    assert "worker1, worker2, 4 MiB of memory" in text
    assert "libvirt 9.0.0, QEMU 7.2.22, tcg, CPU emulated" in text
    assert "control-plane/etc/kubernetes/pki/apiserver.crt" in text

    lab.change("changed")
    with pytest.raises(LabError, match="its present state would be lost"):
        run("checkpoint", "restore", "day-4")
    restored = run("checkpoint", "restore", "day-4", "--yes")
    assert "restored from day-4 of " in restored
    assert "note: Pulumi.dev.yaml is gone" in restored
    assert lab.content() == ("disk 1", "etcd")

    assert run("checkpoint", "delete", "day-4").startswith("removed checkpoint day-4 (2 MiB)")
    assert Store(lab.paths).names() == []


def test_a_damaged_checkpoint_is_listed_as_such(lab: CheckpointLab) -> None:
    run("checkpoint", "create", "one")
    (Store(lab.paths).find("one") / "manifest.json").write_text("{")
    assert "checkpoint one is damaged" in run("checkpoint", "list")
    assert "damaged" in json.loads(run("checkpoint", "list", "--json"))["checkpoints"][0]["problem"]


def test_destroy_names_the_checkpoints_that_stay(lab: CheckpointLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "destroy", lambda *_: ["machine worker1"])
    assert run("destroy") == "removed machine worker1\n"
    for name in ("b", "a"):
        run("checkpoint", "create", name)
    assert run("destroy").splitlines()[-1] == "kept      checkpoints a, b: ./lab checkpoint restore NAME"
    folder = Store(lab.paths).find("a")
    folder.rename(folder.with_name("up-0123456789ab"))
    assert run("destroy").splitlines()[-2:] == [
        "kept      checkpoints b, up-0123456789ab: ./lab checkpoint restore NAME",
        "          ./lab up starts from the last one, or with --fresh anew",
    ]


def test_prune_keeps_the_images_of_checkpoints(lab: CheckpointLab, monkeypatch: pytest.MonkeyPatch) -> None:
    run("checkpoint", "create", "one")
    lab.destroy()
    kept: list[set[str]] = []
    monkeypatch.setattr(maintain, "PROJECT", lab.paths.project)

    def prune(keep: set[str]) -> list[str]:
        kept.append(keep)
        return []

    monkeypatch.setattr(images, "prune_images", prune)
    run("image", "prune")
    assert kept == [{DIGEST}]


@pytest.mark.parametrize("verb", ["create", "list", "show", "restore", "delete"])
def test_help_of_every_verb(verb: str) -> None:
    text = run("checkpoint", verb, "--help")
    assert f"Usage: ./lab checkpoint {verb}" in text or f"checkpoint {verb} [OPTIONS]" in text
    assert "--lab NAME" in text
