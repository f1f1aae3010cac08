"""Manifests of Cilium, as its role writes them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from hoplab.expectations import cni
from tests.support.roles import defaults, documents, render

GIVEN = {"cni_cilium_api_address": "192.168.77.1"}


def rendered(template: str, **values: Any) -> str:
    given = {f"cni_cilium_{name}": value for name, value in values.items()}
    return render(f"roles/cni_cilium/templates/{template}.yml.j2", **defaults("cni_cilium") | GIVEN | given)


def settings(**values: Any) -> dict[str, str]:
    found: dict[str, str] = yaml.safe_load(rendered("config", **values))["data"]
    return found


def pod(template: str, **values: Any) -> dict[str, Any]:
    (found,) = documents(rendered(template, **values)).values()
    spec: dict[str, Any] = found["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize(
    ("values", "wanted", "without"),
    [
        ({}, {"routing-mode": "tunnel", "tunnel-protocol": "vxlan"}, {"auto-direct-node-routes"}),
        (
            {"backend": "native", "pod_cidr": "10.1.0.0/16"},
            {"routing-mode": "native", "auto-direct-node-routes": "true", "ipv4-native-routing-cidr": "10.1.0.0/16"},
            {"tunnel-protocol", "ipv6-native-routing-cidr"},
        ),
        ({"pod_cidr6": "fd00::/48"}, {"enable-ipv6": "true"}, {"ipv6-native-routing-cidr"}),
        (
            {"pod_cidr6": "fd00::/48", "backend": "native"},
            {"enable-ipv6": "true", "ipv6-native-routing-cidr": "fd00::/48"},
            set(),
        ),
        ({"settings": {"bpf-lb-algorithm": "maglev"}}, {"bpf-lb-algorithm": "maglev", "enable-ipv6": "false"}, set()),
        ({}, {"policy-cidr-match-mode": "pods"}, set()),
        ({"settings": {"policy-cidr-match-mode": ""}}, {"policy-cidr-match-mode": ""}, set()),
        ({}, {"kube-proxy-replacement": "false", "cni-chaining-mode": "portmap"}, set()),
        ({"replaces_kube_proxy": True}, {"kube-proxy-replacement": "true", "cni-chaining-mode": "portmap"}, set()),
    ],
)
def test_settings(values: dict[str, Any], wanted: dict[str, str], without: set[str]) -> None:
    found = settings(**values)
    assert {name: found.get(name) for name in wanted} == wanted
    assert not without & set(found)
    assert all(isinstance(value, str) for value in found.values()), "a ConfigMap has texts only"


def test_the_agent_writes_the_file_that_is_expected() -> None:
    folder, _, name = settings()["write-cni-conf-when-ready"].rpartition("/")
    assert name == cni.get_cni("cilium").CONFIG_FILE
    mounts = {mount["mountPath"]: mount["name"] for mount in pod("agent")["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod("agent")["volumes"]}
    assert volumes[mounts[folder]]["hostPath"]["path"] == "/etc/cni/net.d"


def test_hubble_finds_the_agent_that_serves_it() -> None:
    (container,) = pod("agent")["containers"]
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    scheme, _, socket = env["HUBBLE_SERVER"].partition("://")
    assert (scheme, socket) == ("unix", "/var/run/cilium/hubble.sock")  # where the agent's default is
    assert settings()["enable-hubble"] == "true"
    assert socket.rpartition("/")[0] in {mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("template", ["agent", "operator"])
@pytest.mark.parametrize("probes", [True, False])
def test_daemons(template: str, probes: bool) -> None:
    spec = pod(template, probes=probes, env=[{"name": "GOGC", "value": "400"}])
    (container,) = spec["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    env = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert (env["KUBERNETES_SERVICE_HOST"], env["GOGC"]) == ("192.168.77.1", "400")
    assert ("livenessProbe" in container) == probes and "readinessProbe" in container
    assert spec["hostNetwork"] and container["imagePullPolicy"] == "Never"


def test_every_account_has_rights() -> None:
    found = [document for document in yaml.safe_load_all(rendered("rights")) if document]
    for kind in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding"):
        names = {document["metadata"]["name"] for document in found if document["kind"] == kind}
        assert names == {"cilium", "cilium-operator"}
    assert {pod(template)["serviceAccountName"] for template in ("agent", "operator")} == names
