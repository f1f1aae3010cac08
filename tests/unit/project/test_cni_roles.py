"""Manifests of flannel and Calico, as their roles write them."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from hoplab.core.paths import PROJECT
from hoplab.expectations import cni
from tests.support.roles import defaults, documents, load, render


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_flannel_manifest(backend: str) -> None:
    inputs = defaults("cni_flannel") | {"cni_flannel_api_address": "192.168.77.1", "cni_flannel_backend": backend}
    seen = documents(render("roles/cni_flannel/templates/flannel.yml.j2", **inputs))
    network = yaml.safe_load(seen["ConfigMap"]["data"]["net-conf.json"])
    assert network["Network"] == "10.244.0.0/16"
    assert network["Backend"] == {"Type": backend}
    pod = seen["DaemonSet"]["spec"]["template"]["spec"]
    (flanneld,) = pod["containers"]
    assert {"name": "KUBERNETES_SERVICE_HOST", "value": "192.168.77.1"} in flanneld["env"]
    assert {mount["name"] for mount in flanneld["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_flannels_plugin_is_configured_when_it_has_what_it_reads(tmp_path: Path) -> None:
    """Not before: pods would be tried in vain until flanneld has written subnet.env."""
    inputs = defaults("cni_flannel") | {"cni_flannel_api_address": "192.168.77.1"}
    pod = documents(render("roles/cni_flannel/templates/flannel.yml.j2", **inputs))["DaemonSet"]["spec"]["template"]
    assert "initContainers" not in pod["spec"]
    command = pod["spec"]["containers"][0]["lifecycle"]["postStart"]["exec"]["command"]
    folders = {"/run/flannel": "run", "/etc/kube-flannel": "config", "/etc/cni/net.d": "net.d"}
    for place, folder in folders.items():
        (tmp_path / folder).mkdir()
        command = [word.replace(place, str(tmp_path / folder)) for word in command]
    (tmp_path / "config/cni-conf.json").write_text("the configuration")
    subnet, written = tmp_path / "run/subnet.env", tmp_path / "net.d/10-flannel.conflist"
    os.mkfifo(tmp_path / "waits")
    command = [word.replace("sleep 1", f"read -r _ <{tmp_path / 'waits'}") for word in command]
    with subprocess.Popen(command) as hook:
        with (tmp_path / "waits").open("w") as waits:  # opened by both: it has looked, and waits
            assert not written.exists()
            subnet.write_text("FLANNEL_SUBNET=10.244.1.1/24")
            waits.write("\n")
        assert hook.wait(60) == 0
    assert written.read_text() == "the configuration"


def calico(template: str, **values: Any) -> list[dict[str, Any]]:
    inputs = defaults("cni_calico") | load(PROJECT / "roles/cni_calico/vars/main.yml")
    given = {f"cni_calico_{name}": value for name, value in ({"api_address": "192.168.77.1"} | values).items()}
    text = render(f"roles/cni_calico/templates/{template}.yml.j2", **inputs | given)
    return [document for document in yaml.safe_load_all(text) if document]


def calico_node(**values: Any) -> dict[str, Any]:
    found: dict[str, Any] = next(document for document in calico("calico", **values) if document["kind"] == "DaemonSet")
    pod: dict[str, Any] = found["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize(
    ("backend", "wanted"),
    [
        ("bgp", {"CALICO_NETWORKING_BACKEND": "bird", "CALICO_IPV4POOL_IPIP": "Never"}),
        ("ipip", {"CALICO_NETWORKING_BACKEND": "bird", "CALICO_IPV4POOL_IPIP": "Always"}),
        ("vxlan", {"CALICO_NETWORKING_BACKEND": "vxlan", "CALICO_IPV4POOL_VXLAN": "Always"}),
    ],
)
def test_calico_manifest(backend: str, wanted: dict[str, str]) -> None:
    pod = calico_node(backend=backend, block_size=28, environment={"GOGC": 400})
    (node,) = pod["containers"]
    env = {variable["name"]: variable.get("value") for variable in node["env"]}
    wanted = wanted | {"CALICO_IPV4POOL_CIDR": "10.244.0.0/16", "CALICO_IPV4POOL_BLOCK_SIZE": "28", "GOGC": "400"}
    assert {name: env[name] for name in wanted} == wanted
    for container in (node, *pod["initContainers"]):
        assert {"name": "KUBERNETES_SERVICE_HOST", "value": "192.168.77.1"} in container["env"]
    mounted = {mount["name"] for container in (node, *pod["initContainers"]) for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert ("-bird-live" in node["livenessProbe"]["exec"]["command"]) == (backend != "vxlan")


def test_calico_is_asked_by_http_on_an_emulated_machine() -> None:
    (node,) = calico_node(probes="http")["containers"]
    assert "livenessProbe" not in node and node["readinessProbe"]["httpGet"]["port"] == 9099
    controllers = next(document for document in calico("calico", probes="http") if document["kind"] == "Deployment")
    (container,) = controllers["spec"]["template"]["spec"]["containers"]
    assert not {"livenessProbe", "readinessProbe"} & set(container)


def test_calicos_plugins_are_the_expected_ones() -> None:
    config = next(document["data"] for document in calico("calico") if document["kind"] == "ConfigMap")
    plugins = yaml.safe_load(config["cni_network_config"].replace("__CNI_MTU__", "0"))["plugins"]
    assert tuple(plugin["type"] for plugin in plugins) == cni.get_cni("calico").PLUGINS
    # without it a pod that is made before Felix has looked gets the MTU 1500, whatever wraps its packets
    assert (plugins[0]["mtu"], plugins[0]["require_mtu_file"]) == (0, True)
    (installer,) = calico_node()["initContainers"]
    assert {"name": "CNI_CONF_NAME", "value": cni.get_cni("calico").CONFIG_FILE} in installer["env"]


def test_calicos_kinds_have_a_place_in_the_api() -> None:
    kinds = {document["metadata"]["name"]: document["spec"] for document in calico("kinds")}
    assert kinds["ipamblocks.crd.projectcalico.org"]["scope"] == "Cluster"
    assert kinds["networkpolicies.crd.projectcalico.org"]["scope"] == "Namespaced"
    for name, spec in kinds.items():
        assert name == f"{spec['names']['plural']}.{spec['group']}"
        (version,) = spec["versions"]
        assert ("subresources" in version) == (spec["names"]["kind"] == "KubeControllersConfiguration")


def test_calicos_accounts_have_rights() -> None:
    found = calico("rights")
    for kind in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding"):
        names = {document["metadata"]["name"] for document in found if document["kind"] == kind}
        assert names == {"calico-node", "calico-cni-plugin", "calico-kube-controllers"}


def test_flannel_is_the_one_that_is_in_the_image() -> None:
    table = tomllib.loads((PROJECT / "hoplab/image/components.toml").read_text())
    name, _, version = defaults("cni_flannel")["cni_flannel_image"].rpartition(":v")
    assert version == table["go"]["flannel"]["version"]
    image = next(image for image in table["image"] if image["name"].startswith(f"{name}:"))
    assert "opt/bin/flanneld" in image["files"]
