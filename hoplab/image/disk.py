"""The node's disk: Debian's root file system, made a node by the project's roles, with its container images in it."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoplab.core.paths import PROJECT, rootless
from hoplab.core.progress import Progress
from hoplab.image import containers, gobuild
from hoplab.image.archives import Kept
from hoplab.image.commands import isolated, run
from hoplab.image.debian import KERNEL, ROOT_TAR
from hoplab.image.initrd import INITRD
from hoplab.image.store import Stage, Store, digest, remove_tree, tree_digest

SPACE_GIB = 6.0
SIZE_GIB = 20  # virtual; on disk only what is used
DISK = "disk.qcow2"
BIN = "bin"
RECIPE = "d74e2c22e7c5e5e5688b9b050cae9069b7662a909b6f90f297c9abcfc3d57994"  # see image.store.digest
SHARE = "share"  # manifests that come with a program
ROLES = ("node_base", "container_runtime", "kubernetes")
PLAYBOOK = PROJECT / "playbooks" / "image.yml"
PROFILES = PROJECT / "playbooks" / "profiles"
CNI = ("cni-plugins", "flannel-cni", "cilium-cni")  # components whose programs go to the nodes' /opt/cni/bin
# No lazy initialisation: the first boot must not spend an emulated CPU on zeroing inode tables. The journal and the
# number of inodes are those of a small disk.
MKE2FS = ["mke2fs", "-q", "-t", "ext4", "-L", "root", "-i", "32768", "-J", "size=64", "-m", "1"]
MKE2FS += ["-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"]
TASK = re.compile(r"^TASK \[(?P<name>.+)\]")


def key(accel: str, stages: Mapping[str, Stage], archives: Sequence[Kept] = ()) -> str:
    """Digest of all that is in the disk: stages' contents, archived images, roles, playbook, profiles, this code."""
    sources = [PLAYBOOK, PROFILES, *(PROJECT / "roles" / role for role in ROLES)]
    code = [RECIPE, containers.RECIPE]
    contents = {name: stage.content for name, stage in sorted(stages.items())}
    brought = {kept.name: kept.digest for kept in archives}
    return digest(accel, contents, tree_digest(sources, PROJECT), code, *([brought] if brought else []))


@dataclass(frozen=True)
class Order:
    """What is to be built."""

    accel: str
    key: str
    stages: Mapping[str, Stage]
    versions: dict[str, str]
    archives: Sequence[Kept] = ()


def build(order: Order, store: Store, progress: Progress) -> Stage:
    """The finished image: disk, kernel, initrd, and the folder with the programs, made now or earlier."""

    def make(output: Path) -> dict[str, Any]:
        log = store.log(f"node-{order.accel}")
        log.unlink(missing_ok=True)
        root = output.parent / "root"
        _link_programs(order.stages, output / BIN)
        _link_files(order.stages, output / SHARE)
        for file in (KERNEL, INITRD):
            os.link(order.stages["boot"].directory / file, output / file)
        progress.task("unpacking the root file system")
        _unpack(system(order.stages).directory / ROOT_TAR, root, log)
        _play(root, _variables(order, output / BIN), log, progress)
        progress.task("importing container images into the node's containerd")
        built = [stage.directory for name, stage in sorted(order.stages.items()) if name.startswith("containers")]
        archives = [*(folder / containers.ARCHIVE for folder in built), *(kept.file for kept in order.archives)]
        containers.bake(archives, output / BIN, root, output.parent / "containerd", log)
        progress.task("making the disk")
        _write_disk(root, output.parent / "disk.raw", output / DISK, log)
        return {
            "accel": order.accel,
            "size_gib": SIZE_GIB,
            "versions": order.versions,
            "archives": {kept.name: kept.digest for kept in order.archives},
            "stages": sorted(stage.name for stage in order.stages.values()),
        }

    return store.make("node", order.key, make, space_gib=SPACE_GIB)


def system(stages: Mapping[str, Stage]) -> Stage:
    """Return the stage with the root file system: the node's, or the one with tools in it."""
    return stages.get("debian.node-tools", stages["debian.node"])


def _link_programs(stages: Mapping[str, Stage], target: Path) -> None:
    """Link all programs into one folder, CNI plugins in its folder cni: for roles and a hosted control plane."""
    (target / "cni").mkdir(parents=True)
    for name, stage in stages.items():
        if not name.startswith("go.") or name == "go.initrd":
            continue
        folder = target / "cni" if name.removeprefix("go.") in CNI else target
        for program in stage.directory.iterdir():
            if program.is_file() and os.access(program, os.X_OK):
                os.link(program, folder / program.name)


def _link_files(stages: Mapping[str, Stage], target: Path) -> None:
    """Link the files that Go components have beside their programs into one folder: for the roles, on this host."""
    target.mkdir()
    for name, stage in stages.items():
        if name.startswith("go."):
            for file in (stage.directory / gobuild.SHARE).glob("*"):
                if file.is_file():  # a folder is for a container image
                    os.link(file, target / file.name)


def _unpack(tar: Path, root: Path, log: Path) -> None:
    """Unpack the root file system without the kernel: the machine boots the kernel beside its disk."""
    root.mkdir()
    options = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--exclude=./boot/vmlinuz-*"]
    if rootless():  # no device can be made, and the kernel mounts a /dev with all of them
        options.append("--exclude=./dev/*")
    argv = ["tar", "--extract", "--preserve-permissions", f"--file={tar}", f"--directory={root}", *options]
    run(argv, "unpacking the root file system", log)


def _variables(order: Order, programs: Path) -> dict[str, Any]:
    """Return the variables that playbooks/image.yml and the profiles read."""
    return {
        "accel": order.accel,
        "image_digest": order.key,
        "image_programs": str(programs),
        "image_versions": order.versions,
    }


def _play(root: Path, variables: Mapping[str, Any], log: Path, progress: Progress) -> None:
    """Run the playbook on the root file system, over Ansible's chroot connection."""
    environment = {
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),  # not the user's own
        "ANSIBLE_LOCAL_TEMP": str(root.parent / "ansible"),
        "ANSIBLE_REMOTE_TEMP": "/tmp/ansible",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_RETRY_FILES_ENABLED": "0",
        "PYTHONWARNINGS": "ignore",
        "LC_ALL": "C.UTF-8",
    }

    def on_line(line: str) -> None:
        if match := TASK.match(line):
            progress.task(match["name"])

    (root / "proc").mkdir(exist_ok=True)
    argv = [str(Path(sys.executable).parent / "ansible-playbook"), "--inventory", f"{root},", str(PLAYBOOK)]
    argv += ["--extra-vars", json.dumps(variables)]
    run(isolated(argv, proc=root / "proc"), "the image's playbook", log, env=environment, on_line=on_line)
    remove_tree(root / "tmp" / "ansible")


def _write_disk(root: Path, raw: Path, disk: Path, log: Path) -> None:
    """Write an ext4 file system on the whole disk, straight from the folder: no partition, no loop device, no mount."""
    with raw.open("wb") as file:
        file.truncate(SIZE_GIB * 2**30)
    run([*MKE2FS, "-d", str(root), str(raw)], "making the file system", log)
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(disk)], "converting the disk", log)
