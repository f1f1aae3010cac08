"""The components, run by the SDK against a monitor that only records: what they register, with which properties."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pulumi
import pytest
import yaml

from hoplab.core.errors import SpecError
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.engine import schema
from hoplab.engine.monitor import PROJECT_NAME, Registration, run_program
from hoplab.image import NodeImage
from hoplab.infra import context as context_module
from hoplab.infra.components import Lab, LabArgs
from hoplab.infra.context import LabContext, _check_disks
from hoplab.infra.libvirt import kernel_arguments
from hoplab.lab.spec_file import plan_lab
from hoplab.spec.model import LabSpec
from hoplab.spec.parts import Parts
from tests.support.labs import lab_context
from tests.support.monitor import Recorder


def registered(
    accel: str, folder: Path, *, dry_run: bool = False, protect: bool = False, netns: str = "lab-ns"
) -> Recorder:
    """Everything a lab registers."""
    recorder = Recorder()
    paths = LabPaths("dev", folder)

    def program() -> None:
        lab = Lab("dev", LabArgs.of(lab_context(accel, paths, protect=protect, netns=netns), paths))
        pulumi.export("nodes", lab.nodes)

    run_program(program, "dev", recorder, recorder, dry_run=dry_run)
    return recorder


def by_name(recorder: Recorder) -> dict[str, Registration]:
    """The libvirt objects, and their provider."""
    return {wanted.name: wanted for wanted in recorder.seen.values() if wanted.custom}


@pytest.mark.parametrize("accel", ["tcg", "kvm"])
def test_what_a_lab_registers(accel: str, tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    seen = registered(accel, tmp_path).seen
    inputs = {urn.partition("hoplab::")[2]: seen[urn].inputs for urn in sorted(seen)}
    text = json.dumps(inputs, indent=1, sort_keys=True) + "\n"
    golden(f"infra_{accel}.json", text.replace(str(tmp_path), "<project>"))


def test_the_embedded_engine_knows_all_of_it(tmp_path: Path) -> None:
    for accel in ("tcg", "kvm"):
        for wanted in by_name(registered(accel, tmp_path)).values():
            schema.check(wanted.type, wanted.name, wanted.inputs)


def test_everything_uses_the_labs_provider(tmp_path: Path) -> None:
    seen = by_name(registered("tcg", tmp_path))
    provider = f"{seen['libvirt'].urn}::id-of-libvirt"
    assert {wanted.provider for wanted in seen.values() if wanted.type.startswith("libvirt:")} == {provider}


def test_what_is_built_on_what(tmp_path: Path) -> None:
    seen = by_name(registered("tcg", tmp_path))
    names = {wanted.urn: wanted.name for wanted in seen.values()}

    def needs(name: str) -> set[str]:
        return {names[urn] for urns in seen[name].property_dependencies.values() for urn in urns}

    assert needs("worker1") == {"worker1-disk", "worker1-seed", "image-kernel", "image-initrd", "network"}
    assert needs("worker1-disk") == {"image-disk", "store"}
    assert needs("worker1-seed") == needs("image-disk") == {"store"}
    assert needs("network") == needs("store") == set()


def test_whose_parent_is_who(tmp_path: Path) -> None:
    recorder = registered("tcg", tmp_path)
    parents = {wanted.name: wanted.parent.rpartition("::")[2] for wanted in recorder.seen.values() if wanted.custom}
    assert parents == {
        "libvirt": "dev",
        "store": "store",
        "network": "network",
        **dict.fromkeys(("image-disk", "image-kernel", "image-initrd"), "image"),
        **{f"{node}{part}": node for node in ("worker1", "worker2") for part in ("", "-disk", "-seed")},
    }


@pytest.mark.parametrize(("accel", "kept"), [("tcg", {"store"}), ("kvm", {"store", "cp1", "cp1-disk", "cp1-seed"})])
def test_what_is_protected(tmp_path: Path, accel: str, kept: set[str]) -> None:
    def protected(protect: bool) -> set[str]:
        seen = by_name(registered(accel, tmp_path, protect=protect))
        return {name for name, wanted in seen.items() if wanted.protect}

    assert protected(True) == kept
    assert protected(False) == set()


def test_host_keys_are_secrets(tmp_path: Path) -> None:
    assert by_name(registered("tcg", tmp_path))["worker1-seed"].secrets == ("userData",)


def test_a_preview_touches_nothing(tmp_path: Path) -> None:
    registered("tcg", tmp_path, dry_run=True)
    assert list(tmp_path.iterdir()) == []


def test_exports(tmp_path: Path) -> None:
    nodes = registered("tcg", tmp_path).outputs["nodes"]
    assert nodes["worker2"] == {"address": "192.168.77.21", "mac": nodes["worker2"]["mac"], "domain": "id-of-worker2"}


def test_consoles_exist_before_their_machines(tmp_path: Path) -> None:
    registered("tcg", tmp_path)
    assert sorted(file.name for file in LabPaths("dev", tmp_path).console.iterdir()) == ["worker1.log", "worker2.log"]


def test_volumes_of_another_libvirt_are_where_its_qemu_may_read(tmp_path: Path) -> None:
    """Also the console's log: QEMU may not write below a home, and the user may not read what QEMU writes."""
    found = by_name(registered("tcg", tmp_path, netns=""))
    assert found["store"].inputs["target"] == {"path": "/var/lib/libvirt/images/hoplab-dev-1a2b3c"}
    console = found["worker1-console"]
    assert (console.inputs["name"], console.inputs["format"]) == ("worker1.console", "raw")
    assert Path(console.inputs["source"]).read_bytes() == b""
    (log,) = found["worker1"].inputs["consoles"]
    assert log["sourcePath"] == "id-of-worker1-console"
    assert not any(str(tmp_path) in str(inputs) for inputs in (found["worker1"].inputs, found["store"].inputs))


def test_kernel_arguments_that_repeat_start_a_new_group() -> None:
    assert kernel_arguments("a=1 console=tty0 console=ttyS0 rw") == [
        {"a": "1", "console": "tty0"},
        {"console": "ttyS0"},
        {"_": "rw"},
    ]
    assert kernel_arguments("") == []


def test_a_disk_smaller_than_the_image_is_a_mistake_of_the_spec(tmp_path: Path) -> None:
    plan = plan_lab(LabSpec("dev"), lab_id="dev-1a2b3c", accel="tcg")
    image = NodeImage("c", Path(), Path(), Path(), Path(), Path(), 30, {})
    with pytest.raises(SpecError) as caught:
        _check_disks(plan, image, LabPaths("dev", tmp_path))
    assert [str(issue) for issue in caught.value.issues] == [
        "nodes.worker.disk: is 20 GiB; at least 30 GiB, the size of the node image"
    ]


def test_the_context_is_made_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def resolve(spec: LabSpec, parts: Parts, paths: LabPaths, progress: object, *, first: bool) -> LabContext:
        assert not first
        made.append(spec)
        return lab_context("tcg", paths)

    monkeypatch.setattr(context_module, "_resolve", resolve)
    monkeypatch.setattr(context_module, "_resolved", {})
    spec, paths = LabSpec("dev"), LabPaths("dev", tmp_path)
    progress = context_module.PulumiProgress()
    first = context_module.resolve(spec, Parts(), paths, progress)
    assert context_module.resolve(spec, Parts(), paths, progress) is first
    context_module.resolve(LabSpec("dev", workers=3), Parts(), paths, progress)
    assert len(made) == 2


def test_the_engine_and_pulumi_use_one_project_name() -> None:
    assert yaml.safe_load((PROJECT / "Pulumi.yaml").read_text())["name"] == PROJECT_NAME
