"""The generated inventory and ssh_config, as golden texts."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hoplab.cluster.inventory import inputs_digests, write_inventory
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.expectations.parts import known_parts
from hoplab.lab.spec_file import plan_lab
from hoplab.pki.keys import LabKeys
from hoplab.spec.libvirt_uri import RemoteHost
from hoplab.spec.model import LabSpec
from hoplab.spec.plan import LabPlan
from tests.support.labs import ShortRun

SSH_CONFIG = """\
# written by `lab up`

Host worker1
  HostName 192.168.77.20
  HostKeyAlias worker1

Host worker2
  HostName 192.168.77.21
  HostKeyAlias worker2

Host *
  User lab
  IdentityFile /keys/id_ed25519
  IdentitiesOnly yes
  UserKnownHostsFile /keys/known_hosts
  StrictHostKeyChecking yes
  PasswordAuthentication no
  LogLevel ERROR
  ServerAliveInterval 15
  ServerAliveCountMax 8
  KexAlgorithms curve25519-sha256
  ControlMaster auto
  ControlPersist 10m
  ControlPath {run}/ssh-%n
  ProxyCommand nsenter --net=/run/netns/lab-ns socat - TCP:%h:%p
"""

HOSTED_GROUPS: dict[str, Any] = {
    "control_plane": {
        "hosts": {
            "control-plane": {
                "ansible_connection": "local",
                "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            }
        }
    },
    "workers": {"hosts": {"worker1": {}, "worker2": {}}},
    "nodes": {"hosts": {"worker1": {}, "worker2": {}}},
}

VM_GROUPS: dict[str, Any] = {
    "control_plane": {"hosts": {"cp1": {}}},
    "workers": {"hosts": {"worker1": {}, "worker2": {}}},
    "nodes": {"hosts": {"cp1": {}, "worker1": {}, "worker2": {}}},
}

BIN, PARTS = Path("/image/bin"), known_parts()
KEYS = LabKeys(
    user_private=Path("/keys/id_ed25519"), user_public="ssh-ed25519 A", host={}, known_hosts=Path("/keys/known_hosts")
)


@pytest.fixture
def paths(tmp_path: Path) -> LabPaths:
    return ShortRun("dev", tmp_path)


def plan(placement: str = "hosted") -> LabPlan:
    return plan_lab(LabSpec("dev"), lab_id="dev-0", accel="tcg" if placement == "hosted" else "kvm")


def written(paths: LabPaths, netns: str = "lab-ns", placement: str = "hosted") -> None:
    write_inventory(
        plan(placement),
        paths,
        netns=netns,
        image_bin=BIN,
        image_digest="abc",
        keys=KEYS,
        parts=PARTS,
    )


def test_the_ssh_config_has_a_block_for_each_machine(paths: LabPaths) -> None:
    written(paths)
    assert paths.ssh_config.read_text() == SSH_CONFIG.format(run=paths.run)


def test_ssh_needs_no_proxy_outside_a_namespace(paths: LabPaths) -> None:
    written(paths, netns="")
    assert "ProxyCommand" not in paths.ssh_config.read_text()


def test_machines_of_another_host_are_reached_through_it(paths: LabPaths) -> None:
    far = RemoteHost("rack7", "ann", 2222)
    options = {"netns": "", "image_bin": BIN, "image_digest": "abc", "keys": KEYS, "parts": PARTS}
    write_inventory(plan("vm"), paths, **options, remote=far, api_url="https://127.0.0.1:23456")  # type: ignore[arg-type]
    assert "ProxyCommand ssh -o BatchMode=yes -p 2222 -l ann -W [%h]:%p -- rack7" in paths.ssh_config.read_text()
    assert yaml.safe_load(paths.inventory.read_text())["all"]["vars"]["lab"]["api_url"] == "https://127.0.0.1:23456"
    written(paths)
    assert "api_url" not in paths.inventory.read_text(), "a new fact would converge every lab again"


def test_a_checkout_with_spaces_in_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LabPaths, "run", tmp_path / "run")
    paths = LabPaths("dev", tmp_path / "my lab é")
    keys = LabKeys(paths.keys / "id", "ssh-ed25519 AAAA lab", {}, paths.keys / "known")
    plan = plan_lab(LabSpec("dev"), lab_id="dev-1", accel="tcg")
    image = Path("/image/bin")
    write_inventory(plan, paths, netns="", image_bin=image, image_digest="x", keys=keys, parts=known_parts())
    asked = ["ssh", "-G", "-F", str(paths.ssh_config), "worker1"]
    seen = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert f"identityfile {keys.user_private}" in seen and f"userknownhostsfile {keys.known_hosts}" in seen
    inventory = yaml.safe_load(paths.inventory.read_text())
    assert shlex.split(inventory["all"]["vars"]["ansible_ssh_args"]) == ["-F", str(paths.ssh_config)]


@pytest.mark.parametrize(("placement", "groups"), [("hosted", HOSTED_GROUPS), ("vm", VM_GROUPS)])
def test_the_inventory_has_its_groups(paths: LabPaths, placement: str, groups: object) -> None:
    written(paths, placement=placement)
    assert yaml.safe_load(paths.inventory.read_text())["all"]["children"] == groups


def test_the_inventory_has_the_facts_of_the_lab(paths: LabPaths) -> None:
    written(paths)
    facts = yaml.safe_load(paths.inventory.read_text())["all"]["vars"]["lab"]
    assert facts["api_address"] == "192.168.77.1"
    assert facts["placement"] == "hosted"
    assert facts["image"] == {"digest": "abc", "bin": "/image/bin"}
    assert facts["nodes"] == ["worker1", "worker2"]
    assert facts["kubeconfig"] == str(paths.kubeconfig)


def test_the_inventory_has_what_nodes_import(paths: LabPaths) -> None:
    asked = plan_lab(LabSpec("dev", network_policy="kube-network-policies"), lab_id="dev-0", accel="tcg")
    archives = {role: Path(f"/cache/{role}.tar") for role in asked.components if role.startswith("policy_")}
    written_for = {"netns": "", "image_bin": BIN, "image_digest": "abc", "keys": KEYS, "parts": PARTS}
    before = inputs_digests_of(paths, plan())
    write_inventory(asked, paths, **written_for, archives=archives)  # type: ignore[arg-type]
    facts = yaml.safe_load(paths.inventory.read_text())["all"]["vars"]["lab"]
    assert facts["network_policy"] == "kube-network-policies"
    assert facts["archives"] == {"policy_kube_network_policies": "/cache/policy_kube_network_policies.tar"}
    now = inputs_digests(paths.inventory, PROJECT)
    assert before[0] != now[0] and before[1] != now[1], "workers import it, too"


def inputs_digests_of(paths: LabPaths, plan: LabPlan) -> tuple[str, str]:
    write_inventory(plan, paths, netns="", image_bin=BIN, image_digest="abc", keys=KEYS, parts=PARTS)
    return inputs_digests(paths.inventory, PROJECT)


def test_control_sockets_have_a_private_folder(paths: LabPaths) -> None:
    written(paths)
    assert paths.run.stat().st_mode & 0o777 == 0o700


def digests(paths: LabPaths) -> tuple[str, str]:
    return inputs_digests(paths.inventory, paths.project)


def test_the_stamp_covers_facts_and_roles_but_no_documentation(paths: LabPaths) -> None:
    written(paths)
    tasks = paths.project / "roles/some/tasks/main.yml"
    tasks.parent.mkdir(parents=True)
    tasks.write_text("- one")
    before = digests(paths)[0]
    assert digests(paths)[0] == before
    (tasks.parent.parent / "README.md").write_text("words")
    assert digests(paths)[0] == before
    tasks.write_text("- two")
    changed = digests(paths)[0]
    assert changed != before
    written(paths, netns="another")
    assert digests(paths)[0] != changed


def test_a_workers_stamp_does_not_depend_on_the_other_workers(paths: LabPaths) -> None:
    written(paths)
    all_of_it, of_a_worker = digests(paths)
    more = plan_lab(LabSpec("dev", workers=3), lab_id="dev-0", accel="tcg")
    write_inventory(more, paths, netns="lab-ns", image_bin=BIN, image_digest="abc", keys=KEYS, parts=PARTS)
    assert digests(paths)[0] != all_of_it
    assert digests(paths)[1] == of_a_worker
    write_inventory(more, paths, netns="lab-ns", image_bin=BIN, image_digest="def", keys=KEYS, parts=PARTS)
    assert digests(paths)[1] != of_a_worker
