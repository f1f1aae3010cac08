"""A lab of a real private libvirt becomes another one of its family: its machine resumes under another name.

The machine has no system: what its agent and the Kubernetes API do is played.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hoplab.core.console import PlainProgress
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.host import door, machines, netns
from hoplab.host.libvirtd import PrivateLibvirt
from hoplab.lab import host_access, power, rekey, state
from hoplab.lab.checkpoint import create, restore
from hoplab.lab.checkpoint.store import Store
from hoplab.lab.state import LabState
from hoplab.pki.keys import ensure_keys
from tests.support.private_lab import PRIVATE, World, played

pytestmark = PRIVATE


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(host_access, "open_host", lambda lab, *_: lab)
    with played(tmp_path, monkeypatch) as world:
        ensure_keys(world.paths, ["worker1"])
        world.paths.engine_state.write_text(json.dumps({"format": 1, "resources": []}))
        world.paths.inventory.write_text(yaml.safe_dump({"all": {"vars": {"lab": {"name": "cpreal"}}}}))
        yield world


def logins_are_refused(namespace: str) -> bool:
    with netns.entered(namespace):
        shown = subprocess.run(["iptables", "-S", "OUTPUT"], capture_output=True, text=True, check=True).stdout
    return "--dport 22" in shown


def test_a_fork_runs_beside_its_origin(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    create.create(world.paths, "one", PlainProgress())
    fork, refused = LabPaths("cpreal-fork", world.paths.project), []

    def finish(lab: LabState, paths: LabPaths, _progress: Progress) -> None:
        refused.append(logins_are_refused(lab.netns))
        door.open(lab.netns)
        (paths.root / rekey.FILE).unlink()

    def booted(*_: object) -> None:
        pytest.fail("the machine was booted, not resumed")

    monkeypatch.setattr(rekey, "finish", finish)
    monkeypatch.setattr(power, "wait_until_booted", booted)
    try:
        restore.put_back(fork, Store(world.paths), "one", PlainProgress(), yes=False)
        private = PrivateLibvirt(fork)
        name = machines.domain_name(fork.id, "worker1")
        assert machines.domain_states(private.uri) == {name: "running"}
        assert machines.domain_states(PrivateLibvirt(world.paths).uri) == {world.domain: "running"}
        with machines.connected(private.uri) as connection:
            (domain,), (network,), (pool,) = (
                connection.listAllDomains(),
                connection.listAllNetworks(),
                connection.listAllStoragePools(),
            )
            texts = [thing.XMLDesc() for thing in (domain, network, pool)]
        assert world.paths.id not in "".join(texts) and str(world.paths.root / "pool") not in "".join(texts)
        assert re.search(rf"<source file='{fork.pool}/disk-", texts[0]), "its disk rests on the origin's image"
        assert (network.name(), network.isActive(), pool.isActive()) == (f"hoplab-{fork.id}", 1, 1)
        assert refused == [True] and not logins_are_refused(fork.netns)
        assert state.load(fork).id == fork.id
        grep = ["grep", "-rlI", world.paths.id, str(fork.root)]
        left = subprocess.run(grep, capture_output=True, text=True, check=False)
        assert left.stdout == "", "files name the origin"
        assert (fork.keys / "id_ed25519").read_text() != (world.paths.keys / "id_ed25519").read_text()
    finally:
        PrivateLibvirt(fork).stop()
