"""One lab from nothing to nothing, on real machines: bring-up through every interruption, faults, destroy."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from hoplab.paths import LabPaths, cache_dir
from tests.system.conftest import LabCommand, processes_of, virsh

pytestmark = pytest.mark.timeout(0)  # every command that is run has a bound of its own


def recorded(paths: LabPaths, kind: str) -> int:
    """How many resources of a kind the engine's state holds as made."""
    try:
        resources = json.loads(paths.engine_state.read_text())["resources"]
    except (FileNotFoundError, ValueError):
        return 0
    return sum(kind in resource["type"].lower() and not resource.get("pending") for resource in resources)


def domains(paths: LabPaths) -> list[str]:
    return sorted(virsh(paths, "list", "--all", "--name").split())


def test_a_wrong_spec_makes_nothing(lab: LabCommand, paths: LabPaths) -> None:
    good = paths.spec.read_text()
    try:
        paths.spec.write_text("config:\n  lab:nodes: {worker: 0}\n  lab:podCIDR: 192.168.77.0/20\n")
        ran = lab("up", expect=2)
    finally:
        paths.spec.write_text(good)
    assert "podCIDR" in ran.out
    assert not paths.root.exists()


def test_a_full_disk(lab: LabCommand, paths: LabPaths) -> None:
    """The disks' folder is a file system that is too small: refused with the figures, and nothing half-made is left."""
    paths.pool.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", paths.pool], check=True)
    try:
        ran = lab("up", expect=1)
        left = [path.name for path in paths.pool.iterdir() if path.name.startswith("disk-")]
    finally:
        subprocess.run(["umount", paths.pool], check=True)
    assert re.search(r"MiB free", ran.out), ran.out
    assert left == []
    assert recorded(paths, "domain:domain") == 0
    lab("destroy")  # libvirtd may still see the small file system: mounts reach its namespace on systemd hosts only
    assert_nothing_left(paths)


def test_killed_after_the_network(lab: LabCommand, paths: LabPaths) -> None:
    lab.killed_when(lambda: recorded(paths, "network:network") == 1, "up")
    assert paths.engine_state.exists()


def test_killed_after_the_first_machine(lab: LabCommand, paths: LabPaths) -> None:
    lab.killed_when(lambda: recorded(paths, "domain:domain") >= 1, "up")


def test_killed_in_the_middle_of_converge(lab: LabCommand, paths: LabPaths) -> None:
    """Killed once a node has its kubelet configuration, that is inside `kubeadm join`."""

    def joining() -> bool:
        if not paths.state.exists() or not paths.ssh_config.exists():
            return False
        ssh = ["ssh", "-F", str(paths.ssh_config), "-o", "ConnectTimeout=5", "worker1"]
        look = [*ssh, "sudo ls /etc/kubernetes/pki/ca.crt"]
        return subprocess.run(look, capture_output=True, check=False, timeout=60).returncode == 0

    lab.killed_when(joining, "up")


def test_running_up_again_completes(lab: LabCommand, paths: LabPaths) -> None:
    ran = lab("up")
    assert "worker1" in ran.out and "worker2" in ran.out and "./lab ssh" in ran.out
    plan_names = [node["name"] for node in json.loads(paths.state.read_text())["nodes"]]
    assert len(domains(paths)) == len(plan_names), "a machine was made twice or is missing"
    assert lab("status", "--json").json()["healthy"] is True


def test_a_second_up_changes_nothing(lab: LabCommand) -> None:
    assert re.search(r"changed\s+0 resources, 0 tasks", lab("up").out)


def test_preview_of_an_unchanged_lab(lab: LabCommand) -> None:
    assert re.search(r"^0 would be changed", lab("preview").out, re.MULTILINE)


def test_verify_is_green(lab: LabCommand) -> None:
    report = lab("verify", "--json").json()
    assert report["failed"] == 0
    assert report["passed"] >= 5


def test_people_can_log_in_and_use_kubectl(lab: LabCommand) -> None:
    assert lab("ssh", "worker1", "hostname").out.strip().endswith("worker1")
    assert "worker2" in lab("kubectl", "get", "nodes").out


def test_ssh_verifies_the_host(paths: LabPaths) -> None:
    """With another machine's host key in known_hosts, ssh refuses to talk."""
    text = paths.ssh_config.read_text()
    assert "StrictHostKeyChecking yes" in text
    known = Path(re.findall(r"UserKnownHostsFile (\S+)", text)[0])
    good = known.read_text()
    lines = good.splitlines()
    first, second = (next(line for line in lines if name in line.split()[0]) for name in ("worker1", "worker2"))
    swapped = good.replace(first, " ".join([first.split()[0], *second.split()[1:]]))
    try:
        known.write_text(swapped)
        ran = subprocess.run(
            ["ssh", "-F", str(paths.ssh_config), "-o", "ControlPath=none", "worker1", "true"],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        known.write_text(good)
    assert ran.returncode != 0
    assert "HOST IDENTIFICATION HAS CHANGED" in ran.stderr


def test_two_ups_at_once(lab: LabCommand, paths: LabPaths) -> None:
    """While one command works on the lab, the other is refused and told who works on it."""
    code = (
        "import sys; from hoplab.host.lock import held; from hoplab.paths import LabPaths, cache_dir\n"
        "with held(LabPaths('test').lock, 'lab up --lab test'): print('held', flush=True); sys.stdin.read()"
    )
    command = [str(paths.project / ".venv/bin/python"), "-c", code]
    with subprocess.Popen(
        command, cwd=paths.project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin and holder.stdout
        assert holder.stdout.readline().strip() == "held"
        ran = lab("up", expect=1)
        holder.stdin.close()
    assert "lab up --lab test" in ran.out
    assert f"pid {holder.pid}" in ran.out


def test_a_machine_switched_off_comes_back(lab: LabCommand, paths: LabPaths) -> None:
    victim = next(name for name in domains(paths) if name.endswith("worker2"))
    virsh(paths, "destroy", victim)
    seen = lab("status", "--json", expect=1).json()
    assert {row["name"]: row["machine"] for row in seen["nodes"]}["worker2"] == "shut off"
    lab("start")
    assert lab("status", "--json").json()["healthy"] is True


def test_the_host_reboots(lab: LabCommand, paths: LabPaths) -> None:
    """Every process of the lab, its namespace and its sockets are gone, as after a power cut; `start` is enough."""
    for pid in processes_of(paths):
        os.kill(pid, signal.SIGKILL)
    subprocess.run(["ip", "netns", "delete", paths.netns], check=True)
    shutil.rmtree(paths.run)
    lab("status", expect=1)
    lab("start")
    assert lab("status", "--json").json()["healthy"] is True
    report = lab("verify", "--json").json()
    assert report["failed"] == 0


def test_stop_and_start(lab: LabCommand, paths: LabPaths) -> None:
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
    lab.killed_when(lambda: recorded(paths, "domain:domain") >= 1, "up")
    lab("destroy")
    assert_nothing_left(paths)


def assert_nothing_left(paths: LabPaths) -> None:
    assert not paths.root.exists()
    assert not paths.run.exists()
    assert not paths.inventory.exists() and not paths.ssh_config.exists()
    spaces = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True).stdout
    assert paths.netns not in spaces
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = status.read_bytes()
        except OSError:
            continue  # that process has just ended
        assert paths.id.encode() not in command, f"process {status.parent.name} is left: {command!r}"


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
