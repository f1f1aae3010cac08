"""The files of one lab from a checkpoint of another of its family, and what is refused before anything changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hoplab.cluster.inventory import inputs_digests
from hoplab.core.paths import LabPaths
from hoplab.engine import schema
from hoplab.host.save_image import HEADER, MAGIC
from hoplab.infra.cloudinit import render
from hoplab.lab import rekey, state
from hoplab.lab.checkpoint import fork, manifest
from hoplab.lab.checkpoint.fork import Names
from hoplab.lab.checkpoint.manifest import CheckpointError, Manifest
from hoplab.lab.spec_file import plan_lab
from hoplab.pki.keys import ensure_keys, keys_in
from hoplab.spec.model import LabSpec
from hoplab.spec.plan import LabPlan, bridge_name
from tests.support.checkpoint_lab import HERE
from tests.support.labs import MADE


class Prepared:
    """The copy of a checkpoint of "course-s1" that is to become "course-s2"."""

    def __init__(self, folder: Path) -> None:
        project = folder / "course-s1-project"  # a path with the origin's name in it
        self.origin, self.fork = LabPaths("course-s1", project), LabPaths("course-s2", project)
        self.place = folder / "place"
        self.new = self.place / "lab"
        origin, root = self.origin, self.origin.root
        self.plan = self._plan(origin)
        self.keys = keys_in(self.new / "keys", origin.id, ["worker1"])
        network = f"hoplab-{origin.id}"
        self.write("libvirt/etc/qemu/networks/" + network + ".xml", f"<name>{network}</name>{bridge_name(origin.id)}")
        self.link(f"libvirt/etc/qemu/networks/autostart/{network}.xml", f"/etc/libvirt/qemu/networks/{network}.xml")
        self.write("control-plane/applied", rekey_stamp(self.inventory(origin), project))
        self.write("control-plane/var/lib/etcd/member", f"{origin.id} in a database")
        (self.new / "pool").mkdir()
        self.write("pool/worker1-seed.iso", "old")
        lab = replace(MADE, lab=origin.lab, id=origin.id, netns=origin.netns, api_port=1, kubeconfig="/k", context="c")
        self.write("state.json", "")
        saved = LabPaths(origin.lab, folder / "saved")
        state.save(lab, saved)
        self.write("state.json", saved.state.read_text())
        seed = {"name": "worker1-seed.iso", "pool": network, **self.seed(self.plan, self.keys)}
        resources = [
            {"type": schema.SEED, "name": "worker1-seed", "inputs": seed},
            {"type": schema.POOL, "name": "store", "inputs": {"target": {"path": str(root / "pool")}}},
        ]
        self.write("engine.json", json.dumps({"lab": origin.id, "resources": resources}))
        self.write("engine.json.previous", "{}")
        self.write("logo.png", b"\x89PNG\xff" + origin.id.encode())
        self.found = Manifest(
            format=manifest.FORMAT, name="up-0123456789ab", made=manifest.utc_now(), lab=origin.lab, id=origin.id,
            image="i", spec="", roles="", hypervisor=HERE, machines={"worker1": f"hoplab-{origin.id}-worker1"},
            memory_mib=1, files=(),
        )  # fmt: skip

    @staticmethod
    def _plan(paths: LabPaths) -> LabPlan:
        return plan_lab(LabSpec(paths.lab, workers=1, family="course"), lab_id=paths.id, accel="tcg")

    @staticmethod
    def seed(plan: LabPlan, keys: Any) -> dict[str, str]:
        host = keys.host["worker1"]
        made = render(
            plan.workers[0],
            plan.network,
            user_public=keys.user_public,
            host_private=host.private,
            host_public=host.public,
        )
        return {"userData": made.user_data, "metaData": made.meta_data, "networkConfig": made.network_config}

    def inventory(self, paths: LabPaths) -> Path:
        file = self.place / "inventory/inventory.yml"
        file.parent.mkdir(parents=True, exist_ok=True)
        facts = {"name": paths.lab, "netns": paths.netns, "project": str(paths.project), "nodes": ["worker1"]}
        file.write_text(yaml.safe_dump({"all": {"vars": {"lab": facts}}}))
        return file

    def write(self, name: str, content: str | bytes) -> None:
        file = self.new / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    def link(self, name: str, target: str) -> None:
        (self.new / name).parent.mkdir(parents=True, exist_ok=True)
        (self.new / name).symlink_to(target)

    def adapt(self) -> None:
        fork.adapt(self.place, self.found, self.fork)

    def engine(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((self.new / "engine.json").read_text())["resources"]
        return found


def rekey_stamp(inventory: Path, project: Path) -> str:
    return inputs_digests(inventory, project)[0] + "\n"


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    if shutil.which("mkisofs") is None:
        pytest.skip("needs mkisofs")
    return Prepared(tmp_path)


def test_names_change_in_files_links_and_their_names(prepared: Prepared) -> None:
    prepared.adapt()
    networks = prepared.new / "libvirt/etc/qemu/networks"
    name = f"hoplab-{prepared.fork.id}"
    assert (networks / f"{name}.xml").read_text() == f"<name>{name}</name>{bridge_name(prepared.fork.id)}"
    assert os.readlink(networks / "autostart" / f"{name}.xml") == f"/etc/libvirt/qemu/networks/{name}.xml"
    assert sorted(path.name for path in networks.iterdir()) == ["autostart", f"{name}.xml"]
    assert prepared.engine()[1]["inputs"]["target"]["path"] == str(prepared.fork.pool), "the project's path was renamed"
    assert json.loads((prepared.new / "engine.json").read_text())["lab"] == prepared.fork.id
    etcd = (prepared.new / "control-plane/var/lib/etcd/member").read_text()
    assert etcd == f"{prepared.origin.id} in a database", "the names of a database were changed"
    assert prepared.origin.id.encode() in (prepared.new / "logo.png").read_bytes()


def test_the_state_is_of_the_fork_and_of_no_port(prepared: Prepared) -> None:
    prepared.adapt()
    built = json.loads((prepared.new / "state.json").read_text())
    assert (built["lab"], built["id"], built["netns"]) == ("course-s2", prepared.fork.id, prepared.fork.netns)
    assert (built["api_port"], built["kubeconfig"], built["context"]) == (0, "", "")


def test_keys_and_seeds_are_those_that_up_would_write(prepared: Prepared) -> None:
    prepared.adapt()
    made = keys_in(prepared.new / "keys", prepared.fork.id, ["worker1"])
    assert made.user_public != prepared.keys.user_public and made.host != prepared.keys.host
    assert made.user_public.endswith(f"lab@{prepared.fork.id}")
    expected = prepared.seed(prepared._plan(prepared.fork), made)
    seed = prepared.engine()[0]["inputs"]
    assert {name: seed[name] for name in expected} == expected, "the next `up` would replace the machine"
    iso = (prepared.new / "pool/worker1-seed.iso").read_bytes()
    assert made.user_public.encode() in iso and prepared.keys.user_public.encode() not in iso
    assert not (prepared.new / "engine.json.previous").exists()


def test_stamps_become_those_of_the_fork(prepared: Prepared) -> None:
    prepared.adapt()
    inventory = prepared.place / "inventory/inventory.yml"
    host, worker = inputs_digests(inventory, prepared.fork.project)
    assert (prepared.new / "control-plane/applied").read_text() == f"{host}\n"
    planned = json.loads((prepared.new / rekey.FILE).read_text())
    assert list(planned["stamps"].values()) == [host, worker]
    assert planned["user"] == prepared.keys.user_public


def test_a_disk_rests_on_the_forks_own_image(prepared: Prepared) -> None:
    if shutil.which("qemu-img") is None:
        pytest.skip("needs qemu-img")
    disk = prepared.new / "pool/worker1.qcow2"
    make = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", str(prepared.origin.pool / "disk-1")]
    subprocess.run([*make, str(disk), "1M"], check=True)
    prepared.adapt()
    shown = subprocess.run(["qemu-img", "info", "--output=json", disk], capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout)["backing-filename"] == str(prepared.fork.pool / "disk-1")


def test_a_disk_that_is_none(prepared: Prepared) -> None:
    prepared.write("pool/worker1.qcow2", "")
    (prepared.new / "pool/worker1.qcow2").unlink()
    (prepared.new / "pool/worker1.qcow2").symlink_to("/nowhere")
    with pytest.raises(CheckpointError, match=r"`qemu-img info` of .*worker1\.qcow2 failed: ") as refused:
        prepared.adapt()
    assert refused.value.remedy.endswith("./lab up --fresh")


@pytest.mark.parametrize("broken", ["engine.json", "state.json", "keys/id_ed25519.pub"])
def test_files_that_are_not_what_they_should_be(prepared: Prepared, broken: str) -> None:
    (prepared.new / broken).unlink() if broken.startswith("keys") else (prepared.new / broken).write_text("{")
    with pytest.raises(CheckpointError, match="checkpoint up-0123456789ab of course-s1 can't become course-s2: ") as no:
        prepared.adapt()
    assert no.value.remedy.startswith("nothing was changed")


def test_saved_memory_is_of_the_forks_machine(prepared: Prepared, tmp_path: Path) -> None:
    source = tmp_path / "memory.save"
    xml = f"<name>hoplab-{prepared.origin.id}-worker1</name>\0".encode()
    source.write_bytes(HEADER.pack(MAGIC, 2, len(xml), 1, 0, 0) + xml + b"stream")
    fork.place_memory(source, tmp_path / "libvirt", prepared.found, "worker1", prepared.fork)
    name = f"hoplab-{prepared.fork.id}-worker1"
    target = tmp_path / "libvirt/lib/qemu/save" / f"{name}.save"
    assert f"<name>{name}</name>".encode() in target.read_bytes() and target.read_bytes().endswith(b"stream")


def test_memory_in_another_format_makes_no_fork(prepared: Prepared, tmp_path: Path) -> None:
    (tmp_path / "memory.save").write_text("other")
    with pytest.raises(CheckpointError, match="is not a saved machine in the format 2"):
        fork.place_memory(tmp_path / "memory.save", tmp_path / "libvirt", prepared.found, "worker1", prepared.fork)


def test_a_lab_of_the_cli_has_no_forks(prepared: Prepared) -> None:
    with pytest.raises(CheckpointError, match="is of a lab of the Pulumi CLI") as refused:
        fork.refuse_other_engine(prepared.found)
    assert refused.value.remedy == "restore it where it was made, as lab course-s1"
    stored = manifest.StoredFile("lab/engine.json", 1, "")
    fork.refuse_other_engine(replace(prepared.found, files=(stored,)))


def test_keys_of_a_lab_are_those_in_its_folder(tmp_path: Path) -> None:
    paths = LabPaths("course-s1", tmp_path)
    assert ensure_keys(paths, ["worker1"]) == keys_in(paths.keys, paths.id, ["worker1"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("course-s1", "course-s2"),
        ("course-s10 and course-s1.hoplab", "course-s10 and course-s2.hoplab"),
        ("hoplab-course-s1-abc", "hoplab-course-s2-abc"),
        ("my-course-s1", "my-course-s1"),
        ("xcourse-s1", "xcourse-s1"),
    ],
)
def test_only_the_name_itself_changes(text: str, expected: str) -> None:
    project = Path("/srv")
    assert Names(LabPaths("course-s1", project), LabPaths("course-s2", project))(text) == expected
