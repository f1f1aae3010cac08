"""A cluster by plain kubeadm on a lab's machines, with names and ranges that hoplab does not use, seen as any other.

The machines are a lab's, made without its cluster; from there only kubeadm, kubectl and flannel's manifest work on
them. `verify` and `record` get a kubeconfig and the ssh_config. They run in the network namespace of the lab, where
this machine has an address in the nodes' network. The login is of a user that is not root, with sudo.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any, Literal

import pytest
import yaml

from hoplab import image
from hoplab.core.console import PlainProgress
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.core.wait import NotYet, slowness, until
from hoplab.engine.embedded import EmbeddedEngine
from hoplab.host import netns
from hoplab.lab import lifecycle, power, state
from hoplab.lab.context import resolve
from hoplab.lab.spec_file import load_spec
from tests.system.conftest import LabCommand, Ran

SPEC = (
    "config:\n  lab:network: 192.168.83.0/24\n  lab:controlPlane: {placement: vm}\n"
    "  lab:nodes: {workers: 1, controlPlane: {memory: 2GiB}}\n  lab:checkpoint: off\n"
)
NODES = {"cp1": "alpha", "worker1": "beta"}  # the machine's name, and what kubeadm is told
PODS, SERVICES = "10.33.0.0/16", "172.22.0.0/16"
ECHO = "hoplab.local/echo:1"
PODS_AT_LEAST = 10  # four of the control plane, and two each of kube-proxy, flannel and CoreDNS
EMULATED_KUBELET = {  # what the lab's own kubelets have on such machines, as far as the cluster needs it
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "nodeStatusUpdateFrequency": "30s",
    "nodeLeaseDurationSeconds": 120,
    "cgroupDriver": "cgroupfs",
    "cgroupsPerQOS": False,
    "enforceNodeAllocatable": ["none"],
}
PATCHES = "/etc/kubernetes/patches"
ADMIN = "/etc/kubernetes/admin.conf"
FLANNEL = Path(__file__).with_name("foreign_flannel.yml")

pytestmark = [pytest.mark.timeout(0), pytest.mark.on_request]  # every wait has a bound of its own


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCommand]:
    """A lab of its own whose machines have a cluster by kubeadm, and of which nothing is left."""
    paths = LabPaths("foreign")
    command = LabCommand(tmp_path_factory.mktemp("foreign-logs"), paths)
    paths.spec.write_text(SPEC)
    try:
        command("destroy")
        make_machines(paths)
        make_cluster(paths)
        yield command
    finally:
        command("destroy", expect=None)
        paths.spec.unlink()


def make_machines(paths: LabPaths) -> None:
    """Make the machines of the spec and wait until they accept logins; no role of hoplab's runs on them."""
    context = resolve(load_spec(paths), paths, PlainProgress())
    EmbeddedEngine(paths).up(PlainProgress())
    power.wait_until_booted(lifecycle._record(context, paths), paths, PlainProgress())


def on(paths: LabPaths, machine: str, command: str, given: str = "") -> str:
    """Run a command as root on a machine; return what it prints."""
    done = subprocess.run(
        ["ssh", "-F", str(paths.ssh_config), machine, f"sudo sh -c {shlex.quote(command)}"],
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{machine}: {command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def answered(paths: LabPaths, machine: str, command: str, given: str = "") -> str:
    """Run a command until it succeeds: etcd and the API answer late while a node joins an emulated control plane."""

    def succeeded() -> str | NotYet:
        try:
            return on(paths, machine, command, given)
        except AssertionError as error:
            return NotYet(str(error))

    return until(succeeded, 300, poll_s=5)


def kubeadm(accel: Literal["kvm", "tcg"], kind: str, name: str, **more: Any) -> str:
    """Return a document of kubeadm's configuration; emulated machines need longer timeouts than flags can say."""
    factor = slowness(accel)
    names = ("controlPlaneComponentHealthCheck", "kubeletHealthCheck", "kubernetesAPICall", "etcdAPICall", "discovery")
    timeouts = {timeout: f"{int(240 * factor)}s" for timeout in (*names, "tlsBootstrap")}
    document = {"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": kind, "nodeRegistration": {"name": name}, **more}
    return yaml.safe_dump({**document, "timeouts": timeouts})


def write_patches(paths: LabPaths, machine: str) -> dict[str, Any]:
    """Write patches of static pods without probes, which kill what is merely slow; return the field that names them."""
    variables = yaml.safe_load((PROJECT / "inventory/group_vars/all.yml").read_text())
    for name, patch in variables["emulated_static_pods"].items():
        file = f"{PATCHES}/{name}0+strategic.json"
        on(paths, machine, f"mkdir -p {PATCHES} && cat >{file}", json.dumps(patch))
    return {"patches": {"directory": PATCHES}}


def make_cluster(paths: LabPaths) -> None:
    """kubeadm init, kubeadm join, and flannel's manifest; on emulated machines without probes and elections."""
    (first, alpha), (second, beta) = NODES.items()
    accel = state.load(paths).accel
    emulated = accel == "tcg"
    cluster: dict[str, Any] = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "kubernetesVersion": f"v{image.component_versions()['kubernetes']}",
        "networking": {"podSubnet": PODS, "serviceSubnet": SERVICES},
    }
    if emulated:
        alone = {"name": "leader-elect", "value": "false"}
        cluster["controllerManager"] = {"extraArgs": [alone, {"name": "node-monitor-grace-period", "value": "5m"}]}
        cluster["scheduler"] = {"extraArgs": [alone]}
    patches = write_patches(paths, first) if emulated else {}
    documents = [kubeadm(accel, "InitConfiguration", alpha, **patches), yaml.safe_dump(cluster)]
    documents += [yaml.safe_dump(EMULATED_KUBELET)] if emulated else []
    on(paths, first, "kubeadm init --skip-token-print --config /dev/stdin", "---\n".join(documents))
    admin = f"--kubeconfig {ADMIN}"
    invitation = answered(paths, first, f"kubeadm {admin} token create --print-join-command").split()
    endpoint, token, ca_hash = invitation[2], invitation[4], invitation[6]
    bootstrap = {"token": token, "apiServerEndpoint": endpoint, "caCertHashes": [ca_hash]}
    join = kubeadm(accel, "JoinConfiguration", beta, discovery={"bootstrapToken": bootstrap})
    on(paths, second, "kubeadm join --config /dev/stdin", join)
    flannel = yaml.safe_load((PROJECT / "roles/cni_flannel/defaults/main.yml").read_text())["cni_flannel_image"]
    manifest = Template(FLANNEL.read_text()).substitute(pods=PODS, image=flannel)
    answered(paths, first, f"kubectl {admin} apply -f -", manifest)

    def ready() -> NotYet | None:
        seen = answered(paths, first, f"kubectl {admin} get nodes,pods -A --no-headers")
        lines = [line for line in seen.splitlines() if line.strip()]
        waiting = [line for line in lines if not re.search(r" Ready | (\d+)/\1 +Running ", line)]
        if waiting or len(lines) < len(NODES) + PODS_AT_LEAST:
            return NotYet("; ".join(waiting) or "pods are missing")
        return None

    until(ready, 1200, poll_s=5)


@pytest.fixture(scope="module")
def kubeconfig(foreign: LabCommand, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("foreign") / "kubeconfig"
    file.write_text(on(foreign.paths, "cp1", f"cat {ADMIN}"))
    return file


@pytest.fixture
def options(foreign: LabCommand, kubeconfig: Path) -> tuple[str, ...]:
    return ("--kubeconfig", str(kubeconfig), "--ssh-config", str(foreign.paths.ssh_config))


def look(foreign: LabCommand, *words: str, expect: int | None = 0) -> Ran:
    """Run a verb where this machine has an address in the nodes' network."""
    with netns.entered(state.load(foreign.paths).netns):
        return foreign(*words, expect=expect)


def namespaces(foreign: LabCommand) -> str:
    return on(foreign.paths, "cp1", f"kubectl --kubeconfig {ADMIN} get namespaces -o name")


def test_it_is_found_out_and_healthy(foreign: LabCommand, options: tuple[str, ...]) -> None:
    before = namespaces(foreign)
    mode = "iptables" if ":KUBE-SERVICES" in on(foreign.paths, "worker1", "iptables-save -t nat") else "nftables"
    out = look(foreign, "verify", *options).out
    for words in (
        "node alpha      192.168.83.",
        f"pods            {PODS} (from podSubnet in kubeadm-config)",
        f"services        {SERVICES} (from serviceSubnet in kubeadm-config)",
        "CNI             flannel vxlan",
        f"kube-proxy      {mode}",
        "DNS             172.22.0.10",
    ):
        assert words in out, out
    assert " 0 fail, " in out and "sends packets: only with --traffic" in out
    assert namespaces(foreign) == before


def test_with_traffic_it_is_healthy_too_and_left_as_it_was(foreign: LabCommand, options: tuple[str, ...]) -> None:
    before = namespaces(foreign)
    report = look(foreign, "verify", *options, "--traffic", "--probe-image", ECHO, "--json").json()
    assert report["failed"] == 0, [claim for claim in report["claims"] if claim["outcome"] == "failed"]
    skipped = {claim["name"]: claim["why"] for claim in report["claims"] if claim["outcome"] == "skipped"}
    assert "test_a_node_port_answers_on_every_node" not in skipped and "test_kube_dns_answers_a_pod" not in skipped
    assert namespaces(foreign) == before


def test_an_inventory_does_as_well(foreign: LabCommand, kubeconfig: Path) -> None:
    inventory = ("--inventory", str(foreign.paths.inventory))
    assert " 0 fail, " in look(foreign, "verify", "--kubeconfig", str(kubeconfig), *inventory).out


@contextmanager
def without_route(paths: LabPaths) -> Iterator[None]:
    """beta without its route to the pods of alpha."""
    route = on(paths, "worker1", "ip route show dev flannel.1").strip()
    on(paths, "worker1", f"ip route del {route.split()[0]}")
    try:
        yield
    finally:
        on(paths, "worker1", f"ip route replace {route} dev flannel.1")


def test_what_is_broken_is_named(foreign: LabCommand, options: tuple[str, ...], tmp_path: Path) -> None:
    recording = tmp_path / "broken.json"
    with without_route(foreign.paths):
        out = look(foreign, "verify", *options, expect=1).out
        assert "beta has no route 10.33." in out and "shows: ssh beta ip route" in out, out
        look(foreign, "record", str(recording), *options)
    assert "beta has no route 10.33." in foreign("verify", "--recording", str(recording), expect=1).out
    assert " 0 fail, " in look(foreign, "verify", *options).out
