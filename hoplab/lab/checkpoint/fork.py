"""Make the files of one lab from a checkpoint of another lab of its family.

Labs of a family are alike inside: their machines have the same names, addresses and MACs. What differs is outside of
the machines and is written here, before the new lab is the lab:

    names and paths        in libvirt's definitions, the engine's state, inventory, kubeconfig: text files
    the image below disks  in the header of each overlay
    names and paths        in the XML of each saved machine
    keys                   new ones, in files and seeds; ``hoplab.lab.rekey`` brings them to the running machines
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoplab.cluster.inventory import inputs_digests
from hoplab.core import fs
from hoplab.core.errors import EngineError
from hoplab.core.paths import LabPaths
from hoplab.core.serialization import from_json, to_json
from hoplab.engine import schema
from hoplab.engine.libvirt_objects import make_iso
from hoplab.host import machines, save_image
from hoplab.host.freeze import saved_memory
from hoplab.infra.cloudinit import CloudInit, rekeyed
from hoplab.lab import rekey
from hoplab.lab.checkpoint import copying
from hoplab.lab.checkpoint.manifest import CheckpointError, Manifest
from hoplab.lab.state import LabState
from hoplab.pki.keys import LabKeys, keys_in
from hoplab.spec.plan import bridge_name

TEXT = 4 * 2**20  # bytes; a larger file is no text of ours
NO_TEXTS = ("pool", "control-plane/var")  # below the lab's folder


@dataclass(frozen=True)
class Names:
    """What a fork is called otherwise than its origin, on this host."""

    origin: LabPaths
    fork: LabPaths

    def __call__(self, text: str) -> str:
        """Return a text with the fork's names in place of the origin's; the project's own path stays.

        >>> names = Names(LabPaths("a-s1", Path("/a-s1/p")), LabPaths("a-s2", Path("/a-s1/p")))
        >>> names("/a-s1/p/.lab/a-s1/pool, a-s10, urn:pulumi:a-s1::x, hoplab-a-s1-0f")
        '/a-s1/p/.lab/a-s2/pool, a-s10, urn:pulumi:a-s2::x, hoplab-a-s2-0f'
        """
        project = rf"({re.escape(str(self.fork.project))}(?![\w.-]))"
        name = rf"(?<![a-z0-9])((?<=hoplab-)|(?<![a-z0-9]-)){re.escape(self.origin.lab)}(?![a-z0-9])"
        bridge, new_bridge = bridge_name(self.origin.id), bridge_name(self.fork.id)
        parts = re.split(project, text)  # the path itself is each second one
        parts[::2] = [re.sub(name, self.fork.lab, part).replace(bridge, new_bridge) for part in parts[::2]]
        return "".join(parts)


def refuse_other_engine(found: Manifest) -> None:
    """Raise CheckpointError for a lab whose machines another engine than the embedded one made."""
    if not any(file.path == "lab/engine.json" for file in found.files):
        raise CheckpointError(
            f"checkpoint {found.name} is of a lab of the Pulumi CLI, whose state has its names and keys encrypted",
            remedy=f"restore it where it was made, as lab {found.lab}",
        )


def adapt(place: Path, found: Manifest, paths: LabPaths) -> None:
    """Turn the prepared copy of the origin, in ``lab`` and ``inventory`` below a folder, into the fork.

    Raise CheckpointError where that can't be done; there is no fork then.
    """
    try:
        _adapt(place, found, paths)
    except (OSError, ValueError, LookupError, TypeError, EngineError) as error:
        raise CheckpointError(
            f"checkpoint {found.name} of {found.lab} can't become {paths.lab}: {error}",
            remedy="nothing was changed; make the lab without another's checkpoint: ./lab up --fresh",
        ) from None


def _adapt(place: Path, found: Manifest, paths: LabPaths) -> None:
    new, inventory = place / "lab", place / "inventory" / "inventory.yml"
    names = Names(LabPaths(found.lab, paths.project), paths)
    before = inputs_digests(inventory, paths.project)
    user_before = (new / "keys" / "id_ed25519.pub").read_text().strip()
    rename(new, names)
    rename(place / "inventory", names)
    stamps = dict(zip(before, inputs_digests(inventory, paths.project), strict=True))
    _forget_the_host(new / paths.state.relative_to(paths.root))
    keys = _new_keys(new, paths, list(found.machines))
    _write_seeds(new, keys)
    rebase(new / "pool", names)
    rekey.plan(new, rekey.Rekeying(user_before, stamps))


def place_memory(source: Path, libvirt: Path, found: Manifest, node: str, paths: LabPaths) -> None:
    """Put the saved memory of the origin's machine where the fork's libvirt looks for that of its own."""
    target = saved_memory(libvirt, machines.domain_name(paths.id, node))
    target.parent.mkdir(parents=True, exist_ok=True)
    with copying.copy_errors(target):
        try:
            save_image.copy_renamed(source, target, Names(LabPaths(found.lab, paths.project), paths))
        except EngineError as error:
            raise CheckpointError(error.message, remedy=error.remedy) from None


def rename(folder: Path, names: Names) -> None:
    """Change names in all text files below a folder, in the targets of links, and in the names of both."""
    for path in list(_deepest_first(folder, {folder / name for name in NO_TEXTS})):
        if path.is_symlink():
            target = os.readlink(path)
            if names(target) != target:
                path.unlink()
                path.symlink_to(names(target))
        elif path.is_file() and path.stat().st_size <= TEXT:
            _rewrite(path, names)
        if names(path.name) != path.name:
            path.rename(path.with_name(names(path.name)))


def _deepest_first(folder: Path, without: set[Path]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path in without:
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _deepest_first(path, without)
        yield path


def _rewrite(path: Path, names: Names) -> None:
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        return
    if (changed := names(text)) != text:
        fs.write(path, changed, mode=path.stat().st_mode & 0o777)


def rebase(pool: Path, names: Names) -> None:
    """Let overlays name the fork's copy of the image; raise CheckpointError where qemu-img can't."""
    for disk in sorted(pool.glob("*.qcow2")):
        backing = json.loads(_qemu_img("info", "-U", "--output=json", str(disk))).get("backing-filename", "")
        if backing and names(backing) != backing:
            _qemu_img("rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", names(backing), str(disk))


def _qemu_img(*words: str) -> str:
    done = subprocess.run(["qemu-img", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CheckpointError(
            f"`qemu-img {words[0]}` of {words[-1]} failed: {done.stderr.strip()}",
            remedy="nothing was changed; make the lab without another's checkpoint: ./lab up --fresh",
        )
    return done.stdout


def _forget_the_host(file: Path) -> None:
    """Remove from the lab's state what the origin has of this host: its port and its context of kubectl."""
    built = from_json(LabState, json.loads(file.read_text()))
    document = to_json(built) | {"api_port": 0, "kubeconfig": "", "context": ""}
    fs.write(file, json.dumps(document, indent=2))


def _new_keys(new: Path, paths: LabPaths, nodes: list[str]) -> LabKeys:
    for old in ("id_ed25519", "id_ed25519.pub", "known_hosts"):
        (new / "keys" / old).unlink(missing_ok=True)
    shutil.rmtree(new / "keys" / "host", ignore_errors=True)
    return keys_in(new / "keys", paths.id, nodes)


def _write_seeds(new: Path, keys: LabKeys) -> None:
    """Write seeds with the new keys, on the disk and in the engine's state: as the next ``up`` would."""
    file = new / "engine.json"
    document: dict[str, Any] = json.loads(file.read_text())
    for resource in document["resources"]:
        if resource["type"] != schema.SEED:
            continue
        inputs = resource["inputs"]
        node = str(inputs["name"]).removesuffix("-seed.iso")
        seed = rekeyed(
            CloudInit(inputs["userData"], inputs["metaData"], inputs["networkConfig"]),
            node,
            user_public=keys.user_public,
            host_private=keys.host[node].private,
            host_public=keys.host[node].public,
        )
        inputs |= {"userData": seed.user_data, "metaData": seed.meta_data, "networkConfig": seed.network_config}
        with tempfile.TemporaryDirectory(prefix="hoplab-seed-") as folder:
            shutil.copyfile(make_iso(Path(folder), inputs), new / "pool" / inputs["name"])
    fs.write(file, json.dumps(document, indent=1) + "\n", mode=0o600)
    file.with_name(f"{file.name}.previous").unlink(missing_ok=True)
