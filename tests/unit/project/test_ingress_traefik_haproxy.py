"""Manifests of Traefik and of HAProxy's controller, as their roles write them."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from hoplab.core.paths import PROJECT
from hoplab.expectations.ingress import Access, Controller, get_controller, haproxy, traefik
from hoplab.verify import workload
from tests.support.controller_manifests import controller_container
from tests.support.roles import defaults, documents, render


def of_role(role: str, **values: Any) -> dict[str, dict[str, Any]]:
    """The manifest of an ingress controller on two nodes, by kind."""
    addresses = {f"ingress_{role}_addresses": ["192.168.77.20", "192.168.77.21"]}
    given = {f"ingress_{role}_{name}": value for name, value in values.items()}
    path = f"roles/ingress_{role}/templates/controller.yml.j2"
    return documents(render(path, **defaults(f"ingress_{role}") | addresses | given))


@pytest.mark.parametrize(("role", "module"), [("traefik", traefik), ("haproxy", haproxy)])
def test_a_controller_is_what_its_module_says(role: str, module: Controller) -> None:
    seen = of_role(role)
    container = controller_container(seen, module)
    ports = {port.get("hostPort"): port["containerPort"] for port in container["ports"]}
    assert (ports[80], ports[443]) != (80, 443), "it may listen there without being root"
    assert {80, 443, None} == ports.keys()
    assert container["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    bound = {found["kind"]: found["roleRef"]["name"] for found in seen.values() if "roleRef" in found}
    assert bound == {"ClusterRoleBinding": seen["ClusterRole"]["metadata"]["name"]}
    assert container["image"] in {image["name"] for image in archived()}


def archived() -> list[dict[str, str]]:
    found: list[dict[str, str]] = tomllib.loads((PROJECT / "hoplab/image/components.toml").read_text())["archive"]
    return found


@pytest.mark.parametrize(("role", "writes"), [("traefik", ["update"]), ("haproxy", ["update"])])
def test_a_controller_may_write_the_status_of_ingresses_only(role: str, writes: list[str]) -> None:
    rules = of_role(role)["ClusterRole"]["rules"]
    found = [(rule["resources"], sorted(set(rule["verbs"]) - {"get", "list", "watch"})) for rule in rules]
    assert [entry for entry in found if entry[1]] == [(["ingresses/status"], writes)]
    assert not get_controller(role).EVENTS


def test_traefik_is_told_what_the_lessons_rest_on() -> None:
    seen = of_role("traefik")
    (container,) = seen["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    args = dict(arg.removeprefix("--").split("=", 1) for arg in container["args"])
    ports = {port["name"]: f":{port['containerPort']}" for port in container["ports"]}
    points = [f"entryPoints.{name}.address" for name in ("web", "websecure", "health")]
    assert [args[point] for point in points] == [ports["http"], ports["https"], ports["health"]]
    api = args["entryPoints.traefik.address"]
    assert api.startswith("127.0.0.1:") and traefik.ENDPOINTS.startswith(f"http://{api}/")
    assert args["ping.entryPoint"] == "health" and container["readinessProbe"]["httpGet"]["port"] == "health"
    assert args["accessLog.format"] == "json"
    of_kubernetes = {name.rpartition(".")[2]: value for name, value in args.items() if "kubernetesIngress." in name}
    service = seen["Service"]
    assert of_kubernetes == {
        "ingressClass": workload.INGRESS_CLASS,
        "publishedService": f"{service['metadata']['namespace']}/{service['metadata']['name']}",
        "allowEmptyServices": "true",
        "strictPrefixMatching": str(traefik.BY_ELEMENTS).lower(),
    }
    assert service["spec"]["clusterIP"] == "None"  # with a ClusterIP kube-proxy would take the nodes' ports 80 and 443
    assert service["spec"]["externalIPs"] == ["192.168.77.20", "192.168.77.21"]


def test_haproxy_is_told_what_the_lessons_rest_on() -> None:
    seen = of_role("haproxy")
    (container,) = seen["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    args = dict(arg.removeprefix("--").partition("=")[::2] for arg in container["args"])
    for option, kind in (("configmap", "ConfigMap"), ("publish-service", "Service")):
        meta = seen[kind]["metadata"]
        assert args[option] == f"{meta['namespace']}/{meta['name']}"
    assert f"haproxy.org/ingress-controller/{args['ingress.class']}" == haproxy.CONTROLLER
    assert args["ingress.class"] == seen["IngressClass"]["metadata"]["name"]  # it looks at Ingresses of this name only
    assert "disable-ipv6" in args
    assert (
        "--disable-ipv6"
        not in of_role("haproxy", ipv6=True)["DaemonSet"]["spec"]["template"]["spec"]["containers"][0]["args"]
    )
    assert seen["ConfigMap"]["data"]["ssl-redirect"] == "false"
    line = seen["ConfigMap"]["data"]["log-format"]
    words = {"%ci": "192.168.77.1", "%[ssl_fc,iif(https,http)]": "http", "%[var(txn.host)]": "app1.yash.com"}
    words |= {
        "%HM": "GET",
        "%HPO": "/a",
        "%HQ": "?b=c",
        "%HV": "HTTP/1.1",
        "%ST": "200",
        "%si": "10.244.1.3",
        "%sp": "8080",
    }
    for word, value in words.items():
        line = line.replace(word, value)
    assert haproxy.access(line) == Access("192.168.77.1", "app1.yash.com", "/a?b=c", 200, "10.244.1.3:8080", line)


def test_the_service_of_haproxy_is_nobodys() -> None:
    """It has the nodes' addresses and their ports 80 and 443, which kube-proxy would take from the pods."""
    service = of_role("haproxy")["Service"]
    assert service["metadata"]["labels"] == {"service.kubernetes.io/service-proxy-name": "nobody"}
    assert service["spec"]["loadBalancerClass"] != workload.BALANCER_CLASS
    assert service["spec"]["allocateLoadBalancerNodePorts"] is False
    assert service["spec"]["externalIPs"] == ["192.168.77.20", "192.168.77.21"]
