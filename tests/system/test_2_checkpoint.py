"""A lab returns to what it was: over itself, and from nothing."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from hoplab.core.paths import LabPaths
from hoplab.host import agent, machines
from hoplab.lab import state
from hoplab.lab.checkpoint.store import Store
from tests.system.conftest import LabCommand, assert_nothing_left, domains, virsh

NAME = "system-test"
MARK = "checkpoint-test"  # a namespace, and a file on a node
MARK_FILE = f"/etc/{MARK}"

pytestmark = pytest.mark.timeout(0)  # every command that is run has a bound of its own


def identities(paths: LabPaths) -> set[str]:
    """What libvirt identifies the lab's machines and its network by; the engine's state has the same."""
    found = {virsh(paths, "domuuid", name).strip() for name in domains(paths)}
    return found | {virsh(paths, "net-uuid", f"hoplab-{paths.id}").strip()}


def containers_restarted(lab: LabCommand) -> int:
    column = "{.items[*].status.containerStatuses[*].restartCount}"
    return sum(map(int, lab("kubectl", "get", "pods", "-A", "-o", f"jsonpath={column}").out.split()))


def assert_as_it_was(lab: LabCommand) -> None:
    """The change is gone, the lab is healthy, and it is what the engine's state says."""
    assert MARK not in lab("kubectl", "get", "namespaces", "-o", "name").out
    for node in ("worker1", "worker2"):
        assert lab("ssh", node, "test", "!", "-e", MARK_FILE).code == 0
        ahead = lab("ssh", node, "date", "+%s").out
        assert abs(int(ahead.strip().splitlines()[-1]) - time.time()) < 30, "its clock is behind"
    assert lab("status", "--json").json()["healthy"] is True
    assert re.search(r"changed\s+0 resources, 0 tasks", lab("up").out)


def change(lab: LabCommand) -> None:
    lab("kubectl", "create", "namespace", MARK)
    lab("ssh", "worker1", "sudo", "touch", MARK_FILE)


def test_create_leaves_the_lab_running(lab: LabCommand, paths: LabPaths) -> None:
    if NAME in Store(paths).names():  # of a test that was killed
        lab("checkpoint", "delete", NAME)
    before = identities(paths), containers_restarted(lab)
    ran = lab("checkpoint", "create", NAME)
    assert f"checkpoint {NAME}: " in ran.out
    assert lab("status", "--json").json()["healthy"] is True
    assert (identities(paths), containers_restarted(lab)) == before
    (made,) = [one for one in lab("checkpoint", "list", "--json").json()["checkpoints"] if one["name"] == NAME]
    assert made["size"] > 100 * 2**20 and made["expires"]


def test_a_name_that_is_taken(lab: LabCommand) -> None:
    assert "already" in lab("checkpoint", "create", NAME, expect=1).out


def test_restore_over_the_running_lab(lab: LabCommand, paths: LabPaths) -> None:
    before = identities(paths), containers_restarted(lab)
    change(lab)
    refused = lab("checkpoint", "restore", NAME, expect=1)
    assert "its present state would be lost" in refused.out
    assert MARK in lab("kubectl", "get", "namespaces", "-o", "name").out
    lab("checkpoint", "restore", NAME, "--yes")
    assert_as_it_was(lab)
    assert (identities(paths), containers_restarted(lab)) == before


def test_a_flipped_byte_is_refused(lab: LabCommand, paths: LabPaths) -> None:
    memory = next((Store(paths).find(NAME) / "memory").iterdir())
    at = memory.stat().st_size // 2
    flip(memory, at)
    try:
        ran = lab("checkpoint", "restore", NAME, "--yes", expect=1)
    finally:
        flip(memory, at)
    assert "is damaged" in ran.out and memory.name in ran.out
    assert lab("status", "--json").json()["healthy"] is True


def flip(file: Path, at: int) -> None:
    """Change one bit of a file; the same again changes it back."""
    with file.open("r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)
        opened.seek(at)
        opened.write(bytes([byte[0] ^ 1]))


@pytest.mark.on_request
@pytest.mark.parametrize("hours", [1, 25, 40 * 24])
def test_restored_after_a_long_time(lab: LabCommand, paths: LabPaths, hours: int) -> None:
    """Machines are saved while their clocks are behind by that much, as if all of it passed before the restore."""
    built = state.load(paths)
    name = f"late-{hours}"
    for node in built.nodes:
        with agent.opened(built.libvirt_uri, machines.domain_name(built.id, node.name)) as guest:
            assert guest.run(f"date -s '-{hours} hours'").code == 0
    lab("checkpoint", "create", name)
    try:
        ran = lab("checkpoint", "restore", name, "--yes")
        behind = [int(seconds) for seconds in re.findall(r"the clock of \w+ was (\d+) s behind: set", ran.out)]
        assert len(behind) == len(built.nodes) and min(behind) > hours * 3600 - 60
        assert_as_it_was(lab)
    finally:
        lab("checkpoint", "delete", name)


@pytest.mark.on_request
def test_killed_while_the_machines_are_saved(lab: LabCommand, paths: LabPaths) -> None:
    """The machines go on where they were, no container starts anew, and there is no half of a checkpoint."""
    before = containers_restarted(lab)
    saved = Store(paths).folder
    lab.killed_when(lambda: any(saved.glob(".killed.*/memory/*.save")), "checkpoint", "create", "killed")
    lab("start")
    assert NAME in Store(paths).names() and "killed" not in Store(paths).names()
    assert lab("status", "--json").json()["healthy"] is True
    assert containers_restarted(lab) == before


@pytest.mark.on_request
def test_killed_after_the_point_of_no_return(lab: LabCommand, paths: LabPaths) -> None:
    journal = paths.project / ".lab" / f".{paths.lab}.restore" / "journal.json"
    change(lab)
    lab.killed_when(journal.exists, "checkpoint", "restore", NAME, "--yes")
    lab("start")
    assert_as_it_was(lab)
    assert not journal.parent.exists()


@pytest.mark.on_request
def test_restore_from_nothing(lab: LabCommand, paths: LabPaths) -> None:
    before = identities(paths)
    ran = lab("destroy")
    assert f"kept      checkpoints {NAME}, up-" in ran.out
    assert_nothing_left(paths)
    lab("checkpoint", "restore", NAME)
    assert_as_it_was(lab)
    assert identities(paths) == before


@pytest.mark.on_request
def test_verify_is_green_after_it(lab: LabCommand) -> None:
    report = lab("verify", "--json").json()
    assert report["failed"] == 0 and report["passed"] >= 5


def test_delete(lab: LabCommand, paths: LabPaths) -> None:
    lab("checkpoint", "delete", NAME)
    assert NAME not in Store(paths).names()
