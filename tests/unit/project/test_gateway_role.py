"""The role gateway_nginx: its manifests, as it writes them, and what else has to agree with them."""

from __future__ import annotations

import tomllib
from typing import Any

import jinja2
import pytest
import yaml

from hoplab.core.paths import PROJECT
from hoplab.expectations.gateway import nginx
from hoplab.expectations.parts import known_parts
from hoplab.spec.model import LabSpec
from hoplab.spec.plan import plan_lab
from tests.support.roles import defaults, documents, load, render

ROLE = nginx.PART.role
TEMPLATES = ("rights", "controller", "definitions")
TABLE = tomllib.loads((PROJECT / "hoplab/image/components.toml").read_text())


def manifest(template: str, **values: Any) -> str:
    given = {f"{ROLE}_{name}": value for name, value in values.items()}
    return render(f"roles/{ROLE}/templates/{template}.yml.j2", **defaults(ROLE) | given)


def controller(**values: Any) -> dict[str, dict[str, Any]]:
    return documents(manifest("controller", **values))


def container(**values: Any) -> dict[str, Any]:
    (found,) = controller(**values)["Deployment"]["spec"]["template"]["spec"]["containers"]
    return found  # type: ignore[no-any-return]


def test_the_control_plane_is_what_the_module_says() -> None:
    seen, args = controller(), dict(arg.removeprefix("--").partition("=")[::2] for arg in container()["args"])
    made = seen["GatewayClass"]
    assert made["metadata"]["name"] == args["gatewayclass"] == nginx.CLASS
    assert made["spec"]["controllerName"] == args["gateway-ctlr-name"]
    assert seen["Deployment"]["metadata"]["name"] in nginx.PART.daemons
    pod = seen["Deployment"]["spec"]["template"]
    instance = pod["metadata"]["labels"]["app.kubernetes.io/instance"]
    environment = {entry["name"]: entry.get("value") for entry in container()["env"]}
    assert environment["INSTANCE_NAME"] == instance
    assert {"app.kubernetes.io/managed-by": f"{instance}-{nginx.CLASS}"} == nginx.LABELS
    assert pod["spec"]["priorityClassName"] == "system-cluster-critical"  # which `up` waits for
    assert environment["IMAGE_NAME"] == container()["image"]  # of what it writes into the pods of Gateways


def test_agents_connect_to_the_service_that_the_certificate_names() -> None:
    seen, args = controller(namespace="ways"), container()["args"]
    service = seen["Service"]
    assert f"--service={service['metadata']['name']}" in args
    assert service["spec"]["ports"][0]["port"] == 443  # which the agents' configuration has
    assert service["spec"]["selector"] == seen["Deployment"]["spec"]["selector"]["matchLabels"]
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports[service["spec"]["ports"][0]["targetPort"]] == 8443
    tasks = load(PROJECT / "roles" / ROLE / "tasks/certificates.yml")
    requests = next(task for task in tasks if task["name"] == "Make the requests")
    assert requests["loop"][0]["name"] == f"{service['metadata']['name']}.{{{{ gateway_nginx_namespace }}}}.svc"
    secrets = [item["name"] for item in tasks[-1]["loop"]]
    (volume,) = seen["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert secrets == ["agent-tls", volume["secret"]["secretName"]]
    assert "--agent-tls-secret=agent-tls" in args


def test_every_gateway_gets_a_deployment_and_an_address() -> None:
    seen = controller(proxy_image="registry.example:5000/a/b:2")
    proxy = seen["NginxProxy"]
    ref = seen["GatewayClass"]["spec"]["parametersRef"]
    assert (ref["kind"], ref["name"], ref["namespace"]) == (
        proxy["kind"],
        proxy["metadata"]["name"],
        proxy["metadata"]["namespace"],
    )
    made = proxy["spec"]["kubernetes"]
    image = made["deployment"]["container"]["image"]
    assert (image["repository"], image["tag"]) == ("registry.example:5000/a/b", "2")
    assert made["service"]["type"] == "LoadBalancer" and "patches" not in made["deployment"]
    assert set(nginx.WORKLOADS.values()) == {"deployments"}
    assert [controller(dual_stack=given)["NginxProxy"]["spec"]["ipFamily"] for given in (False, True)] == [
        "ipv4",
        "dual",
    ]


def test_slow_machines_have_more_time() -> None:
    probe, env = {"timeoutSeconds": 15, "periodSeconds": 20}, [{"name": "GOMAXPROCS", "value": "1"}]
    found = container(probe=probe, env=env)
    assert found["readinessProbe"] == {**container()["readinessProbe"], **probe}
    assert found["env"] == [*container()["env"], *env]
    (patch,) = controller(probe=probe)["NginxProxy"]["spec"]["kubernetes"]["deployment"]["patches"]
    (patched,) = patch["value"]["spec"]["template"]["spec"]["containers"]
    assert patched == {"name": "nginx", "readinessProbe": probe}


def test_its_kinds_are_those_that_it_may_list() -> None:
    defined = [entry for entry in yaml.safe_load_all(manifest("definitions")) if entry]
    assert {entry["metadata"]["name"] for entry in defined} == {
        f"{entry['spec']['names']['plural']}.{entry['spec']['group']}" for entry in defined
    }
    rules = documents(manifest("rights"))["ClusterRole"]["rules"]
    listed = {
        resource for rule in rules if rule["apiGroups"] == ["gateway.nginx.org"] for resource in rule["resources"]
    }
    plurals = {entry["spec"]["names"]["plural"] for entry in defined}
    assert {resource for resource in listed if "/" not in resource} == plurals
    with_status = {
        entry["spec"]["names"]["plural"] for entry in defined if "subresources" in entry["spec"]["versions"][0]
    }
    assert {resource.partition("/")[0] for resource in listed if "/" in resource} == with_status
    kinds = {entry["spec"]["names"]["kind"]: entry["spec"]["versions"][0]["name"] for entry in defined}
    proxy = controller()["NginxProxy"]
    assert proxy["apiVersion"] == f"gateway.nginx.org/{kinds['NginxProxy']}"


def test_what_a_lab_without_it_removes_has_its_label() -> None:
    removal, _install = load(PROJECT / "playbooks/tasks/gateway.yml")
    found = [entry for name in TEMPLATES for entry in yaml.safe_load_all(manifest(name)) if entry]
    removed = {item["kind"] for item in removal["vars"]["kinds"]}
    for entry in found:
        if entry["metadata"].get("labels", {}).get("hoplab.local/gateway"):
            assert entry["metadata"]["labels"]["hoplab.local/gateway"] == nginx.PART.name
    labelled = {entry["kind"] for entry in found if "hoplab.local/gateway" in entry["metadata"].get("labels", {})}
    assert labelled == removed | {"GatewayClass"}  # a cluster without the Gateway API knows no such kind
    cluster_wide = {entry["kind"] for entry in found if "namespace" not in entry["metadata"]}
    assert cluster_wide == labelled


def test_its_images_are_brought_and_its_definitions_are_of_the_module() -> None:
    names = {entry["name"] for entry in TABLE["archive"] if entry["component"] == ROLE}
    assert names == {defaults(ROLE)[f"{ROLE}_image"], defaults(ROLE)[f"{ROLE}_proxy_image"]}
    more = TABLE["go"]["gateway-api-grpc"]
    assert more["wanted_by"] == ROLE and ROLE in TABLE["baked"]
    assert more["version"] == TABLE["go"][more["lock"]]["version"]
    (file,) = more["files"]
    variables = load(PROJECT / "inventory/group_vars/all.yml")
    assert file.removeprefix("gateway-api-") in variables[f"{ROLE}_crds"]


@pytest.mark.parametrize(("ipv6", "wanted"), [({}, False), ({"network": "fd00:77::/64"}, True)])
def test_the_inputs_of_a_lab(ipv6: dict[str, str], wanted: bool) -> None:
    variables = load(PROJECT / "inventory/group_vars/all.yml")
    rendered = jinja2.Environment().from_string(variables[f"{ROLE}_dual_stack"]).render(lab={"ipv6": ipv6})
    assert rendered == str(wanted)


def test_up_installs_it_beside_the_ingress_controller() -> None:
    spec = LabSpec("dev", gateway_controller="nginx", load_balancer="metallb")
    found = plan_lab(spec, known_parts(), lab_id="dev-0", accel="tcg", ingress_at_hand=("readable",))
    assert {"ingress_readable", ROLE} <= set(found.components)
    control_plane, _workers = load(PROJECT / "playbooks/site.yml")
    (block,) = [task["block"] for task in control_plane["tasks"] if "block" in task]
    names = [task["name"] for task in block]
    assert names.index("Install the ingress controller") < names.index(
        "Install what serves the Gateway API, or not any more"
    )
