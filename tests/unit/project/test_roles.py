"""Roles: their interface is what argument_specs says; what kubeadm reads, and what a look at a machine finds."""

from __future__ import annotations

import hashlib
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from hoplab.core.paths import PROJECT
from hoplab.expectations.ingress import get_controller
from hoplab.expectations.parts import known_parts
from hoplab.spec.parts import usable
from tests.support.roles import defaults, documents, load, render

ROLES = sorted(path.name for path in (PROJECT / "roles").iterdir() if path.is_dir())


@pytest.mark.parametrize("role", ROLES)
def test_argument_specs_equal_defaults(role: str) -> None:
    options = load(PROJECT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    optional = {name: option for name, option in options.items() if not option.get("required")}
    assert {name: option.get("default") for name, option in optional.items()} == defaults(role)
    for option in options.values():
        assert ("default" in option) != bool(option.get("required")), "an input has a default, or it is required"


@pytest.mark.parametrize("role", ROLES)
def test_every_input_is_described_and_carries_the_roles_name(role: str) -> None:
    options = load(PROJECT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    for name, option in options.items():
        assert name.startswith(f"{role}_")
        assert option["description"]


@pytest.mark.parametrize("role", ROLES)
def test_checks_its_inputs_first(role: str) -> None:
    first = load(PROJECT / "roles" / role / "tasks/main.yml")[0]
    assert "ansible.builtin.assert" in first or "preflight.yml" in str(first)


def inputs_of(role: str) -> dict[str, Any]:
    specs = load(PROJECT / "roles" / role / "meta/argument_specs.yml")
    options: dict[str, Any] = specs["argument_specs"]["main"]["options"]
    return options


def test_the_map_of_inputs_names_inputs_that_exist() -> None:
    known = {name for role in ROLES for name in inputs_of(role)}
    mapped = {name for name in load(PROJECT / "inventory/group_vars/all.yml") if name.startswith(tuple(ROLES))}
    assert mapped - known == set()
    assert mapped, "the map is empty"


def test_the_map_of_inputs_has_those_that_are_required() -> None:
    required = {name for role in ROLES for name, option in inputs_of(role).items() if option.get("required")}
    assert required - set(load(PROJECT / "inventory/group_vars/all.yml")) == set()
    assert "cni_flannel_kubeconfig" in required


def kubeadm(**values: Any) -> dict[str, dict[str, Any]]:
    inputs = defaults("kubeadm_control_plane") | {
        "kubeadm_control_plane_node_name": "cp1",
        "kubeadm_control_plane_advertise_address": "192.168.77.10",
    }
    given = {f"kubeadm_control_plane_{name}": value for name, value in values.items()}
    return documents(render("roles/kubeadm_control_plane/templates/kubeadm.yml.j2", **inputs | given))


def test_kubeadm_configuration() -> None:
    seen = kubeadm()
    assert seen["InitConfiguration"]["localAPIEndpoint"] == {"advertiseAddress": "192.168.77.10", "bindPort": 6443}
    assert seen["InitConfiguration"]["bootstrapTokens"] == [{"ttl": "1h0m0s"}]
    assert "patches" not in seen["InitConfiguration"]
    assert seen["ClusterConfiguration"]["encryptionAlgorithm"] == "ECDSA-P256"
    assert seen["ClusterConfiguration"]["networking"] == {"podSubnet": "10.244.0.0/16", "serviceSubnet": "10.96.0.0/12"}
    assert seen["KubeProxyConfiguration"]["mode"] == "iptables"
    assert set(seen["KubeletConfiguration"]) == {"apiVersion", "kind"}


def test_kubeadm_configuration_with_a_profile() -> None:
    seen = kubeadm(
        controller_manager_args={"leader-elect": "false"},
        kubelet_config={"syncFrequency": "5m", "featureGates": {"EventedPLEG": True}},
        static_pod_patches={"etcd": {}},
        slowness=2.5,
    )
    extra = [{"name": "leader-elect", "value": "false"}]
    assert seen["ClusterConfiguration"]["controllerManager"] == {"extraArgs": extra}
    assert seen["KubeletConfiguration"]["featureGates"] == {"EventedPLEG": True}
    assert seen["InitConfiguration"]["patches"] == {"directory": "/etc/kubernetes/patches"}
    assert seen["InitConfiguration"]["timeouts"]["kubeletHealthCheck"] == "600s"


def test_a_cluster_without_kube_proxy() -> None:
    seen = kubeadm(proxy_mode="none")
    assert seen["ClusterConfiguration"]["proxy"] == {"disabled": True}
    assert "KubeProxyConfiguration" not in seen and "proxy" not in kubeadm()["ClusterConfiguration"]


@pytest.mark.parametrize(("mode", "addons"), [("none", "coredns"), ("iptables", "all"), ("nftables", "all")])
def test_the_phase_of_the_addons_installs_no_kube_proxy_that_is_disabled(mode: str, addons: str) -> None:
    """kubeadm's phase looks at no configuration: only ``kubeadm init`` as a whole leaves kube-proxy out."""
    wanted = load(PROJECT / "roles/kubeadm_control_plane/vars/main.yml")["kubeadm_control_plane_addons"]
    assert jinja2.Template(wanted).render(kubeadm_control_plane_proxy_mode=mode) == addons
    for tasks in ("init", "hosted"):
        text = (PROJECT / f"roles/kubeadm_control_plane/tasks/{tasks}.yml").read_text()
        assert "kubeadm_control_plane_addons" in text and "addon, all" not in text and "'addon', 'all'" not in text


def test_join_configuration() -> None:
    inputs = defaults("kubeadm_worker") | {
        "kubeadm_worker_node_name": "worker1",
        "kubeadm_worker_api_endpoint": "192.168.77.1:6443",
        "kubeadm_worker_token": "abcdef.0123456789abcdef",
        "kubeadm_worker_ca_hash": "sha256:00",
    }
    join = documents(render("roles/kubeadm_worker/templates/join.yml.j2", **inputs))["JoinConfiguration"]
    assert join["discovery"]["bootstrapToken"] == {
        "apiServerEndpoint": "192.168.77.1:6443",
        "token": "abcdef.0123456789abcdef",
        "caCertHashes": ["sha256:00"],
    }
    assert join["nodeRegistration"]["imagePullPolicy"] == "Never"


def test_images_that_are_brought_are_those_that_roles_name() -> None:
    table = tomllib.loads((PROJECT / "hoplab/image/components.toml").read_text())
    named = {role: str(defaults(role)) for role in ROLES}
    for entry in table["archive"]:
        if entry["component"] in named:  # not every one has a role yet
            assert entry["name"] in named[entry["component"]]


def test_a_lab_waits_for_its_ingress_controllers() -> None:
    """`lab up` and `start` wait for what is critical to every node (hoplab/cluster/readiness.py)."""
    for role in ROLES:
        if role.startswith("ingress_"):
            text = "".join(file.read_text() for file in (PROJECT / "roles" / role / "templates").iterdir())
            assert "priorityClassName: system-node-critical" in text


def test_every_ingress_controller_has_a_role_and_a_module() -> None:
    roles = {role.removeprefix("ingress_") for role in ROLES if role.startswith("ingress_")}
    controllers = usable(known_parts().ingress)
    assert roles == {name.replace("-", "_") for name in controllers}
    assert all(get_controller(name).NAMESPACE for name in controllers)


def test_no_log_where_a_token_is() -> None:
    folder = PROJECT / "roles/kubeadm_worker/tasks"
    tasks = [*load(folder / "invite.yml"), *load(folder / "join.yml")]
    secret = [task for task in tasks if "kubeadm_worker_token" in str(task) or "--print-join-command" in str(task)]
    assert [task["name"] for task in secret if not task.get("no_log")] == []
    assert len(secret) == 2


def look(tmp_path: Path, machine_forced: bool = False) -> dict[str, Any]:
    """What playbooks/files/look.sh.j2 prints, run in a folder that stands for the machine's files."""
    text = render(
        "playbooks/files/look.sh.j2",
        machine_is_host=True,
        stamp_file=tmp_path / "applied",
        stamp="89ab",
        machine_forced=machine_forced,
    )
    script = text.replace("/etc/hoplab/image.json", str(tmp_path / "image.json"))
    script = script.replace("/etc/hoplab/policy", str(tmp_path / "policy"))
    ran = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    found: dict[str, Any] = yaml.safe_load(ran.stdout)
    return found


def test_looking_at_a_fresh_machine(tmp_path: Path) -> None:
    seen = look(tmp_path)
    assert seen.pop("loop_ms") >= 0
    assert seen == {"applied": "", "image": "", "policy": "", "ca": "", "kubelet_conf": False, "traces": False}


def test_looking_at_a_machine_that_joined(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki/ca.crt").write_text("a certificate")
    (tmp_path / "kubelet.conf").write_text("a kubeconfig")
    (tmp_path / "applied").write_text("0123-4567\n")
    (tmp_path / "policy").write_text("containers-policy_x-0123\n")
    (tmp_path / "image.json").write_text('{\n    "accel": "tcg",\n    "digest": "beef"\n}\n')
    seen = look(tmp_path)
    assert (seen["applied"], seen["image"], seen["kubelet_conf"], seen["traces"]) == ("0123-4567", "beef", True, True)
    assert seen["policy"] == "containers-policy_x-0123"
    assert seen["ca"] == hashlib.sha256(b"a certificate").hexdigest()


def test_looking_at_a_machine_where_nothing_is_left_to_do(tmp_path: Path) -> None:
    (tmp_path / "applied").write_text("89ab\n")
    assert look(tmp_path) == {"applied": "89ab"}
    assert "loop_ms" in look(tmp_path, machine_forced=True)


def test_looking_at_a_machine_where_a_join_was_interrupted(tmp_path: Path) -> None:
    (tmp_path / "bootstrap-kubelet.conf").write_text("a token")
    seen = look(tmp_path)
    assert (seen["kubelet_conf"], seen["traces"]) == (False, True)
