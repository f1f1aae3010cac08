"""What happens to labs: the host rebooted, state corrupted, builds killed; and the end, with nothing left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess

import pytest

from hoplab.core import fs
from hoplab.core.paths import LabPaths, cache_dir
from hoplab.lab.checkpoint.store import Store, is_kept
from hoplab.verify.session import opened
from tests.support.lesson_functions import read_only
from tests.system.announcers import announcer, settled
from tests.system.conftest import LabCommand, assert_nothing_left, domains, processes_of, recorded, virsh
from tests.system.faults import wait

# Every lesson that only looks, and packets from pod to pod, by a service and from outside.
AFTER_A_REBOOT = " or ".join(
    (*read_only(), "between_nodes_a_packet", "a_cluster_ip_is", "an_announced_address_reaches")
)

pytestmark = pytest.mark.timeout(0)  # every command that is run has a bound of its own


def test_a_machine_is_switched_off(lab: LabCommand, paths: LabPaths) -> None:
    """`status` names it, and another node has the load balancer's address; the next test's `start` starts it too."""
    with opened(paths) as session:
        before = settled(session)
        virsh(paths, "destroy", next(name for name in domains(paths) if name.endswith(f"-{before.name}")))
        wait(lambda: announcer(session) not in (before, None))
    seen = lab("status", "--json", expect=1).json()
    assert {row["name"]: row["machine"] for row in seen["nodes"]}[before.name] == "shut off"


def test_the_host_reboots(lab: LabCommand, paths: LabPaths) -> None:
    """Every process of the lab, its namespace and its sockets are gone, as after a power cut; `start` is enough."""
    for pid in processes_of(paths):
        os.kill(pid, signal.SIGKILL)
    subprocess.run(["ip", "netns", "delete", paths.netns], check=True)
    fs.remove_folder(paths.run)
    lab("status", expect=1)
    lab("start")
    assert lab("status", "--json").json()["healthy"] is True
    report = lab("verify", "--json", "-k", AFTER_A_REBOOT).json()
    assert report["failed"] == 0 and report["passed"] > 30
    with opened(paths) as session:
        settled(session)  # the address is back where it was before a machine was switched off


def test_stop_frees_the_host(lab: LabCommand, paths: LabPaths) -> None:
    lab("stop")
    assert processes_of(paths) == []
    assert not paths.run.exists()
    assert lab("status", "--json", expect=1).json()["libvirt"] == "stopped"


def test_a_corrupt_state_file_is_refused(lab: LabCommand, paths: LabPaths) -> None:
    good = paths.engine_state.read_text()
    paths.engine_state.write_text(good[: len(good) // 2])
    ran = lab("up", expect=1)
    assert str(paths.engine_state) in ran.out and ".previous" in ran.out
    previous = paths.engine_state.with_name(paths.engine_state.name + ".previous")
    assert json.loads(previous.read_text())["resources"], "the previous version is kept beside it"


def test_destroy_cleans_the_corrupted_lab(lab: LabCommand, paths: LabPaths) -> None:
    ran = lab("destroy")
    assert "removed" in ran.out
    assert_nothing_left(paths)
    assert "nothing to remove" in lab("destroy").out


def test_destroy_cleans_a_half_made_lab(lab: LabCommand, paths: LabPaths) -> None:
    lab.killed_when(lambda: recorded(paths, "domain:domain") >= 1, "up", "--fresh")
    lab("destroy")
    assert_nothing_left(paths)


def test_up_from_nothing_starts_from_what_was_kept(lab: LabCommand, paths: LabPaths) -> None:
    """The checkpoint is of the first `up` of these tests; everything that they did to the lab is gone."""
    (name,) = filter(is_kept, Store(paths).names())
    ran = lab("up")
    assert re.search(r"^from checkpoint of \d+ \w+, ", ran.out, re.MULTILINE), ran.out
    assert lab("status", "--json").json()["healthy"] is True
    assert re.search(r"changed\s+0 resources, 0 tasks", lab("up").out)
    report = lab("verify", "--json", "-k", "between_nodes_a_packet or a_cluster_ip_is").json()
    assert report["failed"] == 0 and report["passed"] >= 2, report
    assert "starts from the last one" in lab("destroy").out
    assert_nothing_left(paths)
    lab("checkpoint", "delete", name)


@pytest.mark.on_request
def test_killed_in_the_image_build(lab: LabCommand) -> None:
    """In a cache that has every stage but the last; what the killed build left is gone after the next one."""
    real = cache_dir() / "image"
    other = cache_dir().parent / "hoplab-system-test"  # on the same file system, for hard links
    own = other / "hoplab" / "image"
    own.mkdir(parents=True)
    try:
        subprocess.run(["cp", "-al", real / "stages", own], check=True)
        for stage in (own / "stages").glob("node-*"):
            shutil.rmtree(stage)
        env = {"XDG_CACHE_HOME": str(other)}
        lab.killed_when(lambda: any((own / "work").glob("*-node/root/etc/hoplab")), "image", "build", env=env)
        assert not list((own / "stages").glob("node-*")), "an image appears when it is complete, not before"
        lab("image", "build", env=env)
        assert len(list((own / "stages").glob("node-*"))) == 1
        assert list((own / "work").iterdir()) == []
    finally:
        shutil.rmtree(other, ignore_errors=True)
