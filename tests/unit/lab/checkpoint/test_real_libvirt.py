"""Network, pool, disk and machine of a real private libvirt come back as what the engine has recorded.

The machine has no system: what is reached over SSH or by the Kubernetes API is played.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hoplab.core.console import PlainProgress
from hoplab.host import machines
from hoplab.host.libvirtd import PrivateLibvirt
from hoplab.lab import lifecycle, power
from hoplab.lab.checkpoint import create, restore
from hoplab.lab.checkpoint.store import Store
from tests.support.private_lab import PRIVATE, World, played

pytestmark = PRIVATE


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with played(tmp_path, monkeypatch, (power, "wait_until_booted")) as world:
        yield world


def test_a_restored_lab_is_what_the_engine_recorded(world: World) -> None:
    progress = PlainProgress()
    assert world.drift() == {}
    create.create(world.paths, "one", progress)
    uri = PrivateLibvirt(world.paths).uri
    assert machines.domain_states(uri) == {world.domain: "running"}
    assert world.drift() == {}

    (world.paths.pool / "worker1.qcow2").write_bytes(b"written since")
    restore.restore(world.paths, "one", progress, yes=True)
    assert machines.domain_states(uri) == {world.domain: "running"}
    assert world.drift() == {}

    lifecycle.leave_host(world.paths)
    assert not world.paths.root.exists() and not PrivateLibvirt(world.paths).running()
    restore.restore(world.paths, "one", progress)
    assert machines.domain_states(uri) == {world.domain: "running"}
    assert world.drift() == {}
    assert Store(world.paths).names() == ["one"]
    said = (world.paths.libvirt / f"log/qemu/{world.domain}.log").read_text()
    assert "-incoming" in said, "the machine was booted, not resumed"
