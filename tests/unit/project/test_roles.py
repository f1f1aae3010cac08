"""Roles: their interface is what argument_specs says, their templates are what Kubernetes reads."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from hoplab.core.paths import PROJECT
from hoplab.expectations import cni
from hoplab.expectations.ingress import Access, get_controller, ingress_nginx, nginx
from hoplab.expectations.ingress import readable as expectation
from hoplab.expectations.parts import known_parts
from hoplab.image.readable import controller
from hoplab.spec.parts import usable
from hoplab.verify import workload
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


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_flannel_manifest(backend: str) -> None:
    inputs = defaults("cni_flannel") | {"cni_flannel_api_address": "192.168.77.1", "cni_flannel_backend": backend}
    seen = documents(render("roles/cni_flannel/templates/flannel.yml.j2", **inputs))
    network = yaml.safe_load(seen["ConfigMap"]["data"]["net-conf.json"])
    assert network["Network"] == "10.244.0.0/16"
    assert network["Backend"] == {"Type": backend}
    pod = seen["DaemonSet"]["spec"]["template"]["spec"]
    assert {"name": "KUBERNETES_SERVICE_HOST", "value": "192.168.77.1"} in pod["containers"][0]["env"]
    mounted = {mount["name"] for each in [*pod["containers"], *pod["initContainers"]] for mount in each["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def calico(template: str, **values: Any) -> list[dict[str, Any]]:
    inputs = defaults("cni_calico") | load(PROJECT / "roles/cni_calico/vars/main.yml")
    given = {f"cni_calico_{name}": value for name, value in ({"api_address": "192.168.77.1"} | values).items()}
    text = render(f"roles/cni_calico/templates/{template}.yml.j2", **inputs | given)
    return [document for document in yaml.safe_load_all(text) if document]


def calico_node(**values: Any) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in calico("calico", **values) if each["kind"] == "DaemonSet")
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
    env = {each["name"]: each.get("value") for each in node["env"]}
    wanted = wanted | {"CALICO_IPV4POOL_CIDR": "10.244.0.0/16", "CALICO_IPV4POOL_BLOCK_SIZE": "28", "GOGC": "400"}
    assert {name: env[name] for name in wanted} == wanted
    for each in (node, *pod["initContainers"]):
        assert {"name": "KUBERNETES_SERVICE_HOST", "value": "192.168.77.1"} in each["env"]
    mounted = {mount["name"] for each in (node, *pod["initContainers"]) for mount in each["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert ("-bird-live" in node["livenessProbe"]["exec"]["command"]) == (backend != "vxlan")


def test_calico_is_asked_by_http_on_an_emulated_machine() -> None:
    (node,) = calico_node(probes="http")["containers"]
    assert "livenessProbe" not in node and node["readinessProbe"]["httpGet"]["port"] == 9099
    controllers = next(each for each in calico("calico", probes="http") if each["kind"] == "Deployment")
    (container,) = controllers["spec"]["template"]["spec"]["containers"]
    assert not {"livenessProbe", "readinessProbe"} & set(container)


def test_calicos_plugins_are_the_expected_ones() -> None:
    config = next(each for each in calico("calico") if each["kind"] == "ConfigMap")["data"]["cni_network_config"]
    plugins = yaml.safe_load(config.replace("__CNI_MTU__", "0"))["plugins"]
    assert tuple(each["type"] for each in plugins) == cni.get_cni("calico").PLUGINS
    # without it a pod that is made before Felix has looked gets the MTU 1500, whatever wraps its packets
    assert (plugins[0]["mtu"], plugins[0]["require_mtu_file"]) == (0, True)
    (installer,) = calico_node()["initContainers"]
    assert {"name": "CNI_CONF_NAME", "value": cni.get_cni("calico").CONFIG_FILE} in installer["env"]


def test_calicos_kinds_have_a_place_in_the_api() -> None:
    kinds = {each["metadata"]["name"]: each["spec"] for each in calico("kinds")}
    assert kinds["ipamblocks.crd.projectcalico.org"]["scope"] == "Cluster"
    assert kinds["networkpolicies.crd.projectcalico.org"]["scope"] == "Namespaced"
    for name, spec in kinds.items():
        assert name == f"{spec['names']['plural']}.{spec['group']}"
        (version,) = spec["versions"]
        assert ("subresources" in version) == (spec["names"]["kind"] == "KubeControllersConfiguration")


def test_calicos_accounts_have_rights() -> None:
    found = calico("rights")
    for kind in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding"):
        names = {each["metadata"]["name"] for each in found if each["kind"] == kind}
        assert names == {"calico-node", "calico-cni-plugin", "calico-kube-controllers"}


def test_flannel_is_the_one_that_is_in_the_image() -> None:
    table = tomllib.loads((PROJECT / "hoplab/image/components.toml").read_text())
    name, _, version = defaults("cni_flannel")["cni_flannel_image"].rpartition(":v")
    assert version == table["go"]["flannel"]["version"]
    image = next(image for image in table["image"] if image["name"].startswith(f"{name}:"))
    assert "opt/bin/flanneld" in image["files"]


def readable() -> dict[str, Any]:
    """The manifest of the ingress controller, by kind: of Roles and bindings the last."""
    return documents(render("roles/ingress_readable/templates/controller.yml.j2", **defaults("ingress_readable")))


def test_readable_is_what_its_module_says() -> None:
    seen = readable()
    assert seen["Namespace"]["metadata"]["name"] == expectation.NAMESPACE
    assert seen["IngressClass"]["spec"]["controller"] == expectation.CONTROLLER
    assert seen["IngressClass"]["metadata"]["name"] == workload.INGRESS_CLASS
    pod = seen["DaemonSet"]["spec"]["template"]
    assert pod["metadata"]["labels"] == seen["DaemonSet"]["spec"]["selector"]["matchLabels"] == expectation.LABELS
    (container,) = pod["spec"]["containers"]
    assert container["name"] == expectation.CONTAINER
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
        "http": (controller.HTTP, 80),
        "https": (controller.HTTPS, 443),
        "health": (controller.HEALTH, None),
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
    service = next(each for each in f5() if each["kind"] == "Service")
    assert service["spec"]["clusterIP"] == "None"  # with a ClusterIP kube-proxy would take the nodes' ports 80 and 443
    assert service["spec"]["externalIPs"] == ["192.168.77.20", "192.168.77.21"]
    args = f5()[-1]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"-external-service={service['metadata']['name']}" in args
    assert "-enable-custom-resources=false" in args
    assert "-disable-ipv6=true" in args
    assert "-disable-ipv6=false" in f5(ipv6=True)[-1]["spec"]["template"]["spec"]["containers"][0]["args"]


def test_f5_may_write_no_more_than_it_needs() -> None:
    looks = {"get", "list", "watch"}
    rules = {each["kind"]: each["rules"] for each in f5() if "rules" in each}
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
    found: dict[str, str] = next(each["data"] for each in f5() if each["kind"] == "ConfigMap")
    return found


def test_one_label_finds_all_of_a_controller() -> None:
    """playbooks/tasks/ingress.yml removes by it what is of another controller than the lab's."""
    for role, name in (("readable", "readable"), ("nginx", "nginx"), ("ingress_nginx", "ingress-nginx")):
        inputs = defaults(f"ingress_{role}") | {f"ingress_{role}_addresses": ["192.168.77.20"]}
        text = render(f"roles/ingress_{role}/templates/controller.yml.j2", **inputs)
        for each in yaml.safe_load_all(text):
            if not each["metadata"].get("namespace"):
                assert each["metadata"]["labels"]["hoplab.local/ingress"] == name, each["kind"]


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


def test_readable_is_the_one_that_is_in_the_image() -> None:
    table = tomllib.loads((PROJECT / "hoplab/image/components.toml").read_text())
    name = defaults("ingress_readable")["ingress_readable_image"]
    assert name in {image["name"] for image in table["image"]}


def test_every_ingress_controller_has_a_role_and_a_module() -> None:
    roles = {role.removeprefix("ingress_") for role in ROLES if role.startswith("ingress_")}
    controllers = usable(known_parts().ingress)
    assert roles == {name.replace("-", "_") for name in controllers}
    assert all(get_controller(name).NAMESPACE for name in controllers)


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
    named = {(each["kind"], each["metadata"]["name"]): each for each in seen}
    assert len(named) == len(seen)
    for kind in ("Deployment", "DaemonSet"):
        pod = next(each for each in seen if each["kind"] == kind)["spec"]["template"]["spec"]
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
        each["spec"]["template"]["spec"]["containers"][0]
        for each in seen
        if each["kind"] in ("Deployment", "DaemonSet")
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
    assert f"hoplab.local/metallb-{program}:v{{go.metallb}}" in [each["name"] for each in table["image"]]


def test_metallb_takes_the_crds_of_the_image() -> None:
    file = Path(load(PROJECT / "inventory/group_vars/all.yml")["loadbalancer_metallb_crds"]).name
    table = tomllib.loads((PROJECT / "hoplab/image/components.toml").read_text())
    assert file in table["go"]["metallb"]["files"]


def test_no_log_where_a_token_is() -> None:
    tasks = load(PROJECT / "roles/kubeadm_worker/tasks/join.yml")
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
    script = re.sub(r"/etc/hoplab/image.json", str(tmp_path / "image.json"), text)
    ran = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    found: dict[str, Any] = yaml.safe_load(ran.stdout)
    return found


def test_looking_at_a_fresh_machine(tmp_path: Path) -> None:
    seen = look(tmp_path)
    assert seen.pop("loop_ms") >= 0
    assert seen == {"applied": "", "image": "", "ca": "", "kubelet_conf": False, "traces": False}


def test_looking_at_a_machine_that_joined(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki/ca.crt").write_text("a certificate")
    (tmp_path / "kubelet.conf").write_text("a kubeconfig")
    (tmp_path / "applied").write_text("0123-4567\n")
    (tmp_path / "image.json").write_text('{\n    "accel": "tcg",\n    "digest": "beef"\n}\n')
    seen = look(tmp_path)
    assert (seen["applied"], seen["image"], seen["kubelet_conf"], seen["traces"]) == ("0123-4567", "beef", True, True)
    assert seen["ca"] == hashlib.sha256(b"a certificate").hexdigest()


def test_looking_at_a_machine_where_nothing_is_left_to_do(tmp_path: Path) -> None:
    (tmp_path / "applied").write_text("89ab\n")
    assert look(tmp_path) == {"applied": "89ab"}
    assert "loop_ms" in look(tmp_path, machine_forced=True)


def test_looking_at_a_machine_where_a_join_was_interrupted(tmp_path: Path) -> None:
    (tmp_path / "bootstrap-kubelet.conf").write_text("a token")
    seen = look(tmp_path)
    assert (seen["kubelet_conf"], seen["traces"]) == (False, True)
