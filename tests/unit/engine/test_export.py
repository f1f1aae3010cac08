"""The embedded engine's state as Pulumi would have written it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hoplab.core.errors import EngineError, StateError
from hoplab.core.paths import LabPaths
from hoplab.engine import cli_engine, schema
from hoplab.engine.embedded import EmbeddedEngine
from hoplab.engine.export import deployment
from hoplab.engine.monitor import STACK
from hoplab.engine.state_file import Resource, StateFile

URN = "urn:pulumi:dev::hoplab::"


def state(tmp_path: Path) -> StateFile:
    made = StateFile(tmp_path / "engine.json", "dev-1")
    stack, lab = f"{URN}{STACK}::hoplab-dev", f"{URN}hoplab:lab:Lab::dev"
    provider, domain = f"{URN}{schema.PROVIDER}::libvirt", f"{URN}{schema.DOMAIN}::worker1"
    for resource in (
        Resource(stack, STACK, "hoplab-dev", custom=False),
        Resource(lab, "hoplab:lab:Lab", "dev", custom=False, parent=stack),
        Resource(provider, schema.PROVIDER, "libvirt", True, lab, id="p-1", inputs={"uri": "qemu:///system"}),
        Resource(
            f"{URN}{schema.SEED}::worker1-seed",
            schema.SEED,
            "worker1-seed",
            True,
            lab,
            f"{provider}::p-1",
            "/pool/seed.iso;42",
            inputs={"name": "seed.iso", "userData": "a host key"},
            secrets=("userData",),
        ),
        Resource(
            domain,
            schema.DOMAIN,
            "worker1",
            True,
            lab,
            f"{provider}::p-1",
            "uuid-1",
            inputs={"name": "w1", "consoles": [{"type": "file"}], "graphics": {"type": "vnc"}},
            property_dependencies={"disks": (f"{URN}{schema.SEED}::worker1-seed",)},
        ),
        Resource(
            f"{URN}{schema.MEMBER}::worker1-member", schema.MEMBER, "worker1-member", True, lab, id="dev-1-worker1"
        ),
        Resource(
            f"{URN}{schema.CLUSTER}::dev",
            schema.CLUSTER,
            "dev",
            True,
            lab,
            id="dev-1",
            inputs={"roles": "12", "__provider": "pickled"},
        ),
    ):
        made.put(resource)
    made.outputs = {"uri": "qemu:///system", "sshKey": "private", "kubeconfig": None}
    return made


def exported(tmp_path: Path) -> dict[str, dict[str, Any]]:
    document = deployment(state(tmp_path), "dev", "the administrator's")
    assert document["version"] == 3
    return {entry["urn"].removeprefix(URN): entry for entry in document["deployment"]["resources"]}


def test_deployment_is_ordered_by_dependency(tmp_path: Path) -> None:
    seen: set[str] = set()
    for entry in exported(tmp_path).values():
        needs = {entry.get("parent", ""), entry.get("provider", "").rpartition("::")[0], *entry.get("dependencies", [])}
        assert needs - {""} <= seen, entry["urn"]
        seen.add(entry["urn"])


def test_deployment_has_ids_and_outputs_of_the_provider(tmp_path: Path) -> None:
    domain = exported(tmp_path)["libvirt:index/domain:Domain::worker1"]
    assert (domain["id"], domain["custom"], domain["outputs"]["running"]) == ("uuid-1", True, True)
    assert domain["outputs"]["consoles"] == [{"type": "file", "sourceHost": "127.0.0.1", "sourceService": "0"}]
    assert domain["outputs"]["graphics"] == {"type": "vnc", "listenAddress": "127.0.0.1", "websocket": 0}
    assert domain["inputs"] == {"name": "w1", "consoles": [{"type": "file"}], "graphics": {"type": "vnc"}}
    assert domain["provider"] == f"{URN}pulumi:providers:libvirt::libvirt::p-1"


def test_deployment_marks_secrets(tmp_path: Path) -> None:
    entries = exported(tmp_path)
    secret = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
    seed = entries["libvirt:index/cloudInitDisk:CloudInitDisk::worker1-seed"]
    assert seed["inputs"]["userData"] == seed["outputs"]["userData"] == {**secret, "plaintext": '"a host key"'}
    stack = entries["pulumi:pulumi:Stack::hoplab-dev"]["outputs"]
    assert stack == {
        "uri": "qemu:///system",
        "sshKey": {**secret, "plaintext": '"private"'},
        "kubeconfig": {**secret, "plaintext": '"the administrator\'s"'},
    }


def test_deployment_gives_the_cluster_pulumis_python_provider(tmp_path: Path) -> None:
    entries = exported(tmp_path)
    runner = entries["pulumi:providers:pulumi-python::default"]
    for name in ("Cluster::dev", "Member::worker1-member"):
        assert entries[f"pulumi-python:dynamic/hoplab:{name}"]["provider"] == f"{runner['urn']}::{runner['id']}"


def test_exported_refuses_a_lab_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="the embedded engine has no lab 'dev'"):
        EmbeddedEngine(LabPaths("dev", tmp_path)).exported()


def test_adopt_needs_the_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(EngineError, match="there is no `pulumi` on PATH"):
        cli_engine(LabPaths("dev", tmp_path))
