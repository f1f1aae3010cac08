"""Manifests of the ingress controllers and of MetalLB, as their roles write them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment

from hoplab.core.paths import PROJECT
from hoplab.expectations.ingress import Access, get_controller, ingress_nginx, nginx
from hoplab.expectations.ingress import readable as expectation
from hoplab.image.readable import controller
from hoplab.image.readable.addresses import Home, service_changes
from hoplab.image.readable.conf import HEALTH
from hoplab.image.readable.gateway import our_gateways
from hoplab.image.readable.objects import HTTP, HTTPS
from hoplab.verify import workload
from tests.support.controller_manifests import controller_container
from tests.support.gateway_objects import cluster, gateway
from tests.support.roles import defaults, documents, load, render


def readable() -> dict[str, Any]:
    """The manifest of the ingress controller, by kind: of Roles and bindings the last."""
    return documents(render("roles/ingress_readable/templates/controller.yml.j2", **defaults("ingress_readable")))


def test_readable_is_what_its_module_says() -> None:
    seen = readable()
    container = controller_container(seen, get_controller("readable"))
    (mounted,) = container["volumeMounts"]
    assert expectation.CONFIGURATION.startswith(f"{mounted['mountPath']}/")


def test_readable_may_do_no_more_than_it_needs() -> None:
    seen = readable()
    pod = seen["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    ports = {port["name"]: (port["containerPort"], port.get("hostPort")) for port in container["ports"]}
    assert ports == {
        "http": (HTTP, 80),
        "https": (HTTPS, 443),
        "health": (HEALTH, None),
    }
    verbs = {verb for rule in seen["ClusterRole"]["rules"] for verb in rule["verbs"]}
    assert verbs == {"list", "watch", "patch", "create"}
    writes = [rule for rule in seen["ClusterRole"]["rules"] if set(rule["verbs"]) - {"list", "watch"}]
    assert [(rule["resources"], rule["verbs"]) for rule in writes] == [
        (["ingresses/status"], ["patch"]),
        (["events"], ["create"]),
    ]
    assert seen["Role"]["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]


def f5(**values: Any) -> list[dict[str, Any]]:
    given = {f"ingress_nginx_{name}": value for name, value in values.items()}
    inputs = defaults("ingress_nginx") | {"ingress_nginx_addresses": ["192.168.77.20", "192.168.77.21"]} | given
    return list(yaml.safe_load_all(render("roles/ingress_nginx/templates/controller.yml.j2", **inputs)))


def test_f5_is_what_its_module_says() -> None:
    seen = {document["kind"]: document for document in f5()}
    assert seen["Namespace"]["metadata"]["name"] == nginx.NAMESPACE
    assert seen["IngressClass"]["spec"]["controller"] == nginx.CONTROLLER
    assert seen["IngressClass"]["metadata"]["name"] == workload.INGRESS_CLASS
    pod = seen["DaemonSet"]["spec"]["template"]
    assert pod["metadata"]["labels"] == seen["DaemonSet"]["spec"]["selector"]["matchLabels"] == nginx.LABELS
    (container,) = pod["spec"]["containers"]
    assert container["name"] == nginx.CONTAINER
    assert {port["containerPort"]: port.get("hostPort") for port in container["ports"]} == {
        80: 80,
        443: 443,
        8081: None,
    }
    assert seen["ConfigMap"]["data"]["ssl-redirect"] == "False"
    line = seen["ConfigMap"]["data"]["log-format"]
    for name, value in {"remote_addr": "192.168.77.1", "scheme": "http", "host": "app1.yash.com"}.items():
        line = line.replace(f"${name}", value)
    line = line.replace("$request", "GET /a HTTP/1.1").replace("$status", "200")
    line = line.replace("$upstream_addr", "10.244.1.3:8080").replace("$upstream_status", "200")
    assert nginx.access(line) == Access("192.168.77.1", "app1.yash.com", "/a", 200, "10.244.1.3:8080", line)


def test_f5_reports_the_nodes_by_a_service_that_nobody_uses() -> None:
    service = next(document for document in f5() if document["kind"] == "Service")
    assert service["spec"]["clusterIP"] == "None"  # with a ClusterIP kube-proxy would take the nodes' ports 80 and 443
    assert service["spec"]["externalIPs"] == ["192.168.77.20", "192.168.77.21"]
    args = f5()[-1]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"-external-service={service['metadata']['name']}" in args
    assert "-enable-custom-resources=false" in args
    assert "-disable-ipv6=true" in args
    assert "-disable-ipv6=false" in f5(ipv6=True)[-1]["spec"]["template"]["spec"]["containers"][0]["args"]


def test_f5_may_write_no_more_than_it_needs() -> None:
    looks = {"get", "list", "watch"}
    rules = {document["kind"]: document["rules"] for document in f5() if "rules" in document}
    writes = [(rule["resources"], set(rule["verbs"]) - looks) for kind in rules for rule in rules[kind]]
    assert [rule for rule in writes if rule[1]] == [
        (["ingresses/status"], {"update"}),
        (["events"], {"create", "patch"}),
        (["leases"], {"create", "update"}),
        (["pods"], {"update"}),
    ]
    (container,) = f5()[-1]["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "runAsUser": 101,
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
    }


def test_ingress_nginx_is_what_its_module_says() -> None:
    inputs = defaults("ingress_ingress_nginx") | {"ingress_ingress_nginx_addresses": ["192.168.77.20", "192.168.77.21"]}
    seen = documents(render("roles/ingress_ingress_nginx/templates/controller.yml.j2", **inputs))
    assert seen["Namespace"]["metadata"]["name"] == ingress_nginx.NAMESPACE
    assert seen["IngressClass"]["spec"]["controller"] == ingress_nginx.CONTROLLER
    assert seen["IngressClass"]["metadata"]["name"] == workload.INGRESS_CLASS
    assert seen["ConfigMap"]["data"]["ssl-redirect"] == "false"
    assert seen["ConfigMap"]["data"]["log-format-upstream"] == f5_config()["log-format"]
    pod = seen["DaemonSet"]["spec"]["template"]
    assert pod["metadata"]["labels"] == seen["DaemonSet"]["spec"]["selector"]["matchLabels"] == ingress_nginx.LABELS
    (container,) = pod["spec"]["containers"]
    assert container["name"] == ingress_nginx.CONTAINER
    assert "--publish-status-address=192.168.77.20,192.168.77.21" in container["args"]
    assert f"--controller-class={ingress_nginx.CONTROLLER}" in container["args"]


def f5_config() -> dict[str, str]:
    found: dict[str, str] = next(document["data"] for document in f5() if document["kind"] == "ConfigMap")
    return found


CONTROLLERS = [
    ("readable", "readable"),
    ("nginx", "nginx"),
    ("ingress_nginx", "ingress-nginx"),
    ("traefik", "traefik"),
    ("haproxy", "haproxy"),
]


def manifest(role: str) -> list[dict[str, Any]]:
    inputs = defaults(f"ingress_{role}") | {f"ingress_{role}_addresses": ["192.168.77.20"]}
    return list(yaml.safe_load_all(render(f"roles/ingress_{role}/templates/controller.yml.j2", **inputs)))


@pytest.mark.parametrize(("role", "name"), CONTROLLERS)
def test_one_label_finds_all_of_a_controller(role: str, name: str) -> None:
    """playbooks/tasks/ingress.yml removes by it what is of another controller than the lab's."""
    for document in manifest(role):
        if not document["metadata"].get("namespace"):
            assert document["metadata"]["labels"]["hoplab.local/ingress"] == name, document["kind"]


@pytest.mark.parametrize(("role", "_name"), CONTROLLERS)
def test_no_controller_waits_on_a_node_without_a_network(role: str, _name: str) -> None:
    """It would be there before the network, with mounts that are tried at times that double up to two minutes."""
    (pods,) = (found["spec"]["template"]["spec"] for found in manifest(role) if found["kind"] == "DaemonSet")
    tolerated = {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}
    assert pods["tolerations"] == [tolerated]


def test_readable_is_the_one_that_is_in_the_image() -> None:
    table = tomllib.loads((PROJECT / "hoplab/image/components.toml").read_text())
    name = defaults("ingress_readable")["ingress_readable_image"]
    assert name in {image["name"] for image in table["image"]}


def metallb(**values: Any) -> list[dict[str, Any]]:
    inputs = defaults("loadbalancer_metallb") | {
        "loadbalancer_metallb_api_address": "192.168.77.1",
        "loadbalancer_metallb_pool": "192.168.77.245-192.168.77.254",
    }
    given = {f"loadbalancer_metallb_{name}": value for name, value in values.items()}
    text = render("roles/loadbalancer_metallb/templates/metallb.yml.j2", **inputs | given)
    text += "---\n" + render("roles/loadbalancer_metallb/templates/pool.yml.j2", **inputs | given)
    return list(yaml.safe_load_all(text))


def test_metallb_manifest() -> None:
    seen = metallb()
    named = {(document["kind"], document["metadata"]["name"]): document for document in seen}
    assert len(named) == len(seen)
    for kind in ("Deployment", "DaemonSet"):
        pod = next(document for document in seen if document["kind"] == kind)["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert {"name": "KUBERNETES_SERVICE_HOST", "value": "192.168.77.1"} in container["env"]
        assert "--port=0" in container["args"], "metrics are served to nobody"
        assert container["readinessProbe"]["timeoutSeconds"] == container["livenessProbe"]["timeoutSeconds"] == 1
        assert ("ServiceAccount", pod["serviceAccountName"]) in named
        assert ("ClusterRoleBinding", pod["serviceAccountName"]) in named
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in pod.get("volumes", [])}
    assert (
        "--webhook-mode=disabled"
        in named["Deployment", "metallb-controller"]["spec"]["template"]["spec"]["containers"][0]["args"]
    )
    assert named["IPAddressPool", "lab"]["spec"]["addresses"] == ["192.168.77.245-192.168.77.254"]
    assert named["L2Advertisement", "lab"]["spec"] == {"ipAddressPools": ["lab"], "interfaces": ["eth0"]}


def test_metallb_on_slow_machines() -> None:
    env = [{"name": "GOMAXPROCS", "value": "1"}]
    seen = metallb(liveness=False, patient=True, env=env, probe={"periodSeconds": 20, "timeoutSeconds": 15})
    containers = [
        document["spec"]["template"]["spec"]["containers"][0]
        for document in seen
        if document["kind"] in ("Deployment", "DaemonSet")
    ]
    for container in containers:
        assert "livenessProbe" not in container
        assert container["readinessProbe"]["timeoutSeconds"] == 15
        assert env[0] in container["env"]
    assert "--ml-wan-config" in containers[1]["args"]


@pytest.mark.parametrize("program", ["controller", "speaker"])
def test_metallb_is_the_one_that_is_in_the_image(program: str) -> None:
    table = tomllib.loads((PROJECT / "hoplab/image/components.toml").read_text())
    image = defaults("loadbalancer_metallb")[f"loadbalancer_metallb_{program}_image"]
    assert image == f"hoplab.local/metallb-{program}:v{table['go']['metallb']['version']}"
    assert f"hoplab.local/metallb-{program}:v{{go.metallb}}" in [image["name"] for image in table["image"]]


def test_metallb_takes_the_crds_of_the_image() -> None:
    file = Path(load(PROJECT / "inventory/group_vars/all.yml")["loadbalancer_metallb_crds"]).name
    table = tomllib.loads((PROJECT / "hoplab/image/components.toml").read_text())
    assert file in table["go"]["metallb"]["files"]


def test_readable_serves_the_gateway_api_where_it_is_given_its_definitions() -> None:
    plain = readable()
    inputs = defaults("ingress_readable") | {"ingress_readable_gateway_crds": ["/share/gateway-api-gateways.yaml"]}
    seen = documents(render("roles/ingress_readable/templates/controller.yml.j2", **inputs))
    assert set(seen) - set(plain) == {"GatewayClass"}
    assert seen["GatewayClass"]["spec"]["controllerName"] == expectation.CONTROLLER
    assert seen["GatewayClass"]["metadata"]["labels"]["hoplab.local/ingress"] == "readable"

    def environment(manifest: dict[str, Any]) -> set[str]:
        (container,) = manifest["DaemonSet"]["spec"]["template"]["spec"]["containers"]
        return {variable["name"] for variable in container["env"]}

    assert environment(seen) - environment(plain) == {"GATEWAY_API"}
    allowed = [
        (group, resource, verb)
        for rule in seen["ClusterRole"]["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]
    watched = {path for path, _ in controller.watched("i", "app=ingress", gateway_api=True).values()}
    for path in watched - {"/api/v1/namespaces/i/pods"}:
        group, resource = "" if path.startswith("/api/v1/") else path.split("/")[2], path.rpartition("/")[2]
        assert {(group, resource, "list"), (group, resource, "watch")} <= set(allowed), path
    statuses = {resource for _, resource, verb in allowed if verb == "patch"}
    assert statuses == {"ingresses/status", "gatewayclasses/status", "gateways/status", "httproutes/status"}


def test_readable_makes_services_of_gateways_where_a_load_balancer_gives_them_addresses() -> None:
    def made(**given: Any) -> dict[str, Any]:
        inputs = defaults("ingress_readable") | {"ingress_readable_gateway_crds": ["/a.yaml"]} | given
        return documents(render("roles/ingress_readable/templates/controller.yml.j2", **inputs))

    def environment(manifest: dict[str, Any]) -> dict[str, str]:
        (container,) = manifest["DaemonSet"]["spec"]["template"]["spec"]["containers"]
        return {variable["name"]: variable.get("value", "") for variable in container["env"]}

    plain, own = made(), made(ingress_readable_gateway_services=True)
    assert environment(own).keys() - environment(plain).keys() == {"GATEWAY_SERVICES"}
    more = [rule for rule in own["Role"]["rules"] if rule not in plain["Role"]["rules"]]
    assert more == [{"apiGroups": [""], "resources": ["services"], "verbs": ["create", "patch", "delete"]}]
    assert own["ClusterRole"] == plain["ClusterRole"], "in its own namespace only"
    home = Home(expectation.NAMESPACE, environment(own)["POD_SELECTOR"])
    seen = cluster(gateway())
    ((method, path, body),) = service_changes(our_gateways(seen), seen, home)
    assert (method, path) == ("POST", f"/api/v1/namespaces/{own['DaemonSet']['metadata']['namespace']}/services")
    assert body["spec"]["selector"] == own["DaemonSet"]["spec"]["selector"]["matchLabels"]
    variable = load(PROJECT / "inventory/group_vars/all.yml")["ingress_readable_gateway_services"]
    for name, wanted in (("metallb", "True"), ("none", "False")):
        assert Environment().from_string(variable).render(lab={"load_balancer": {"name": name}}) == wanted


def test_readable_takes_the_definitions_of_the_image() -> None:
    files = tomllib.loads((PROJECT / "hoplab/image/components.toml").read_text())["go"]["gateway-api"]["files"]
    variables = load(PROJECT / "inventory/group_vars/all.yml")
    for name in ("gateway_crds", "gateway_crd_files"):
        assert "\\" not in variables[name], "Ansible takes a backslash in a string as it is, Jinja alone does not"
    lab = {"image": {"bin": "/images/one/bin"}, "gateway_api": True}
    templar = Environment()
    templar.filters["regex_replace"] = lambda text, pattern, by: re.sub(pattern, by, text)
    templar.filters["dirname"] = lambda path: str(Path(path).parent)

    def of(name: str, **given: Any) -> Any:
        return yaml.safe_load(templar.from_string(variables[name]).render(**given))

    crds = of("gateway_crds", gateway_crd_files=templar.from_string(variables["gateway_crd_files"]).render(lab=lab))
    assert set(crds) == {f"/images/one/share/{file}" for file in files}
    readables = "ingress_readable_gateway_crds"
    assert of(readables, lab=lab, gateway_crds=crds) == crds
    assert of(readables, lab={**lab, "gateway_api": False}, gateway_crds=crds) == []
