"""From nothing to a lab in use, through every interruption."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from hoplab.core.paths import LabPaths
from hoplab.lab.checkpoint.store import Store, is_kept
from tests.system.conftest import LabCommand, assert_nothing_left, domains, recorded

pytestmark = pytest.mark.timeout(0)  # every command that is run has a bound of its own


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
    assert [name for name in Store(paths).names() if is_kept(name)], ran.out  # by the `up` that completed it


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


def test_kubectl_of_the_host_reaches_the_lab(paths: LabPaths) -> None:
    """From the host's own namespace, by the context that `up` added; a proxy that is dead is not asked."""
    built = json.loads(paths.state.read_text())
    kubectl = [f"{built['image_bin']}/kubectl", "--kubeconfig", built["kubeconfig"], "--context", built["context"]]
    environment = {**os.environ, "HTTPS_PROXY": "http://127.0.0.1:9"}
    ran = subprocess.run([*kubectl, "get", "nodes"], env=environment, capture_output=True, text=True, check=False)
    assert "worker2" in ran.stdout, ran.stderr


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
        "import sys; from hoplab.core.lock import locked; from hoplab.core.paths import LabPaths, cache_dir\n"
        "with locked(LabPaths('test').lock, 'lab up --lab test'): print('held', flush=True); sys.stdin.read()"
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
