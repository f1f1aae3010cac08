"""The verification workload: the pods and services of the lessons, in their own namespace.

The first `lab verify` creates them, and they stay for the next one: an emulated node needs half a minute to start a
pod. `lab verify --cleanup` deletes them. A label of the namespace is the digest of its content, so another
version of hoplab replaces it.

    echo          one pod on every node, behind a ClusterIP
    single        one pod on one node, behind NodePort 30080 (Cluster) and 30081 (externalTrafficPolicy: Local)
    balanced      the same pod behind the address of a load balancer; verification acts as its controller
    checked       the same with externalTrafficPolicy: Local, which has a port for health checks
    announced     the pods of `echo` behind an address of the lab's own load balancer, where it has one
    announced-local    `single` behind another one (externalTrafficPolicy: Local)
    sticky        the pods of `echo` behind another ClusterIP, with session affinity by client address
    nobody        a service without endpoints
    app1-service, app2-service    the course's two apps: two pods and one
    apps          their Ingress: hosts, paths and certificates of the course
    orphan        an Ingress of a class without a controller
    way           a Gateway and an HTTPRoute that lead to the apps, in labs with the Gateway API

The apps are here and not in a role: `up` installs only parts of the spec, the objects are the same for every
controller, and lessons compare every rule.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hoplab.cluster.api import Api
from hoplab.core.errors import ClusterError
from hoplab.core.wait import HOST, Expired, NotYet, Timing
from hoplab.expectations import gateway
from hoplab.expectations.ingress import get_controller
from hoplab.observe.setting import Setting
from hoplab.pki.certificates import Pair
from hoplab.verify import gateway_workload, waiting
from hoplab.verify import probe as probes
from hoplab.verify.probe import ECHO, Probe

NAMESPACE = "hoplab-verify"
IMAGE = ECHO.image
PORT = probes.PORT  # the pods'
NODE_PORT = 30080
NODE_PORT_LOCAL = 30081
HEALTH_PORT = 30082  # kube-proxy's, for health checks of `checked`
ANNOUNCED = ("announced", "announced-local")
APP1, APP2 = "app1-service", "app2-service"
INGRESS_CLASS = "nginx"  # the class of every controller
HOST1, HOST2, ORPHAN = "app1.yash.com", "app2.yash.com", "orphan.yash.com"
ROUTES = {  # host -> path -> service; a path and its longer variant lead to different services
    HOST1: {"/": APP1, "/login": APP2, "/api": APP2, "/api/v1": APP1, "/app": APP2},
    HOST2: {"/": APP2},
}
SITES = {"my-tls-secret": (HOST1,), "app2-tls-secret": (HOST2,)}  # TLS secret -> the names in its certificate
DRAIN_S = 15  # seconds that a terminating pod of an app still answers, until every node has removed the endpoint
BALANCED_IP = "203.0.113.80"  # of a range for documentation, which no host uses
BALANCER_CLASS = "hoplab.local/verify"  # a real load balancer in the lab ignores the service
DIGEST = "hoplab.local/digest"
CONTROLLERS = {"echo": "daemonsets", "single": "deployments", APP1: "deployments", APP2: "deployments"}
DEADLINE = 300.0  # seconds until every pod answers, on an idle host


@dataclass(frozen=True)
class IngressOptions:
    """What the lab's controllers need of the apps' Ingresses and of the Gateway beside them."""

    annotations: Mapping[str, str] = field(default_factory=dict)  # required by the lab's controller
    certificates: Mapping[str, Pair] = field(default_factory=dict)  # of each of SITES
    gateway_class: str = ""  # of a Gateway, which has an HTTPRoute; "" for neither
    gateway_workloads: Mapping[str, str] = field(default_factory=dict)  # made for that Gateway, as in CONTROLLERS


NO_OPTIONS = IngressOptions()


def options(setting: Setting, certificates: Mapping[str, Pair]) -> IngressOptions:
    """Return what the controllers of a lab need of the workload."""
    annotations = get_controller(setting.ingress).ANNOTATIONS if setting.ingress != "none" else {}
    server = gateway.of(setting)
    if server is None:
        return IngressOptions(annotations, certificates)
    made = {name.format(gateway=gateway_workload.NAME): kind for name, kind in server.WORKLOADS.items()}
    return IngressOptions(annotations, certificates, server.CLASS, made)


def manifests(options: IngressOptions = NO_OPTIONS) -> list[tuple[str, dict[str, Any]]]:
    """Return the objects in the order of their creation, each with the path of its POST request."""
    ingresses = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/ingresses"
    core, apps = f"/api/v1/namespaces/{NAMESPACE}", f"/apis/apps/v1/namespaces/{NAMESPACE}"
    return [
        (f"{apps}/daemonsets", pods("DaemonSet", "echo")),
        (f"{apps}/deployments", pods("Deployment", "single", replicas=1)),
        (f"{core}/services", service("echo", selector={"app": "echo"}, ipFamilyPolicy="PreferDualStack")),
        (f"{core}/services", service("single", selector={"app": "single"}, type="NodePort", node_port=NODE_PORT)),
        (
            f"{core}/services",
            service(
                "single-local",
                selector={"app": "single"},
                type="NodePort",
                node_port=NODE_PORT_LOCAL,
                externalTrafficPolicy="Local",
            ),
        ),
        (
            f"{core}/services",
            service(
                "balanced",
                selector={"app": "single"},
                type="LoadBalancer",
                loadBalancerClass=BALANCER_CLASS,
                allocateLoadBalancerNodePorts=False,
            ),
        ),
        (
            f"{core}/services",
            service(
                "checked",
                selector={"app": "single"},
                type="LoadBalancer",
                loadBalancerClass=BALANCER_CLASS,
                allocateLoadBalancerNodePorts=False,
                externalTrafficPolicy="Local",
                healthCheckNodePort=HEALTH_PORT,
            ),
        ),
        *(
            (
                f"{core}/services",
                service(
                    name,
                    selector={"app": app},
                    type="LoadBalancer",
                    allocateLoadBalancerNodePorts=False,
                    externalTrafficPolicy=policy,
                ),
            )
            for name, app, policy in zip(ANNOUNCED, ("echo", "single"), ("Cluster", "Local"), strict=True)
        ),
        (f"{core}/services", service("sticky", selector={"app": "echo"}, sessionAffinity="ClientIP")),
        (f"{core}/services", service("nobody", selector={"app": "nobody"})),
        (f"{apps}/deployments", _app(APP1, replicas=2)),
        (f"{apps}/deployments", _app(APP2, replicas=1)),
        *((f"{core}/services", service(app, selector={"app": app})) for app in (APP1, APP2)),
        *((f"{core}/secrets", _secret(name, pair)) for name, pair in options.certificates.items()),
        (
            ingresses,
            ingress("apps", ROUTES, tls=SITES if options.certificates else {}, annotations=options.annotations),
        ),
        (ingresses, ingress("orphan", {ORPHAN: {"/": APP1}}, ingress_class="nobody")),
        *(gateway_workload.manifests(options.gateway_class, NAMESPACE, APP1, APP2) if options.gateway_class else ()),
    ]


def ingress(
    name: str,
    routes: Mapping[str, Mapping[str, str]],
    *,
    ingress_class: str = INGRESS_CLASS,
    tls: Mapping[str, tuple[str, ...]] | None = None,
    annotations: Mapping[str, str] | None = None,
    kind: str = "Prefix",
) -> dict[str, Any]:
    """Return an Ingress of the workload: host ("" for none) -> path -> service; secret -> hosts."""

    def rule(host: str, paths: Mapping[str, str]) -> dict[str, Any]:
        backends = [(path, {"service": {"name": to, "port": {"number": 80}}}) for path, to in paths.items()]
        given = [{"path": path, "pathType": kind, "backend": backend} for path, backend in backends]
        return {**({"host": host} if host else {}), "http": {"paths": given}}

    spec: dict[str, Any] = {
        "ingressClassName": ingress_class,
        "rules": [rule(host, paths) for host, paths in routes.items()],
    }
    if tls:
        spec["tls"] = [{"secretName": secret, "hosts": list(hosts)} for secret, hosts in tls.items()]
    metadata = {"name": name, "annotations": dict(annotations or {})}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def _secret(name: str, pair: Pair) -> dict[str, Any]:
    data = {"tls.crt": pair.certificate, "tls.key": pair.key}
    kind = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls"}
    return {**kind, "metadata": {"name": name}, "stringData": data}


def _app(name: str, replicas: int) -> dict[str, Any]:
    """Return a deployment whose terminating pods answer for DRAIN_S seconds more, so that no request is lost."""
    found = pods("Deployment", name, replicas=replicas)
    pod = found["spec"]["template"]["spec"]
    pod["terminationGracePeriodSeconds"] = DRAIN_S + 5
    pod["containers"][0]["lifecycle"] = {"preStop": {"sleep": {"seconds": DRAIN_S}}}
    return found


def pods(kind: str, name: str, *, probe: Probe = ECHO, pull: str = "Never", **spec: Any) -> dict[str, Any]:
    """Return a DaemonSet or Deployment whose pods run a probe; a lab's image is on its nodes' disks."""
    container = {
        "name": "echo",
        "image": probe.image,
        "imagePullPolicy": pull,
        "args": list(probe.args),
        "ports": [{"containerPort": PORT}],
        "env": [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "resources": {"requests": {"cpu": "5m", "memory": "8Mi"}},
    }
    pod_spec: dict[str, Any] = {
        "containers": [container],
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
    }
    if kind == "DaemonSet":
        pod_spec["tolerations"] = [{"operator": "Exists"}]  # also on a control-plane machine, which is a node too
    pod = {"metadata": {"labels": {"app": name}}, "spec": pod_spec}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {**spec, "selector": {"matchLabels": {"app": name}}, "template": pod},
    }


def service(name: str, *, node_port: int = 0, **spec: Any) -> dict[str, Any]:
    """Return a service on port 80 of the pods that ``selector`` selects."""
    port: dict[str, Any] = {"port": 80, "targetPort": PORT, "protocol": "TCP"}
    if node_port:
        port["nodePort"] = node_port
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {**spec, "ports": [port]}}


def digest(options: IngressOptions = NO_OPTIONS) -> str:
    return hashlib.sha256(json.dumps(manifests(options), sort_keys=True).encode()).hexdigest()[:12]


class WorkloadNotReady(ClusterError):
    """The pods of the workload are not ready in time; ``stalled_s`` is how long nothing had changed."""

    def __init__(self, reason: str, seconds: float, *, stalled_s: float = 0.0) -> None:
        super().__init__(
            f"the verification workload is not ready after {seconds:.0f} s: {reason}",
            remedy=f"./lab kubectl -n {NAMESPACE} describe pods",
        )
        self.stalled_s = stalled_s


def ensure(
    api: Api,
    options: IngressOptions = NO_OPTIONS,
    *,
    announced: bool = False,
    timing: Timing = HOST,
    stall_s: float | None = None,
) -> bool:
    """Create the workload unless it exists and wait until all of its pods are ready; return whether it was created.

    ``announced`` says that the lab has a load balancer, which has to give its addresses too. Raise WorkloadNotReady at
    the deadline or, with ``stall_s``, where nothing has changed for that many seconds, scaled; where a node is not
    Ready, for waiting.NOT_READY_S.
    """
    deadline = timing.deadline(DEADLINE)
    stall = waiting.Stall(timing, stall_s)

    def wait(complaint: Callable[[], str]) -> None:
        """Wait until nothing is missing any more; both waits share one deadline."""

        def look() -> NotYet | None:
            reason = complaint()
            if reason and (quiet := stall.quiet(reason)):
                node = waiting.node_not_ready(api)
                if node or stall.over:
                    raise WorkloadNotReady("; ".join(part for part in (reason, node) if part), quiet, stalled_s=quiet)
            return NotYet(reason) if reason else None

        try:
            timing.until(look, deadline)
        except Expired as expired:
            raise WorkloadNotReady(expired.reason, expired.seconds) from None

    status, found = api("GET", f"/api/v1/namespaces/{NAMESPACE}")
    going = "deletionTimestamp" in found.get("metadata", {})  # `verify --cleanup` was a moment ago
    if status == 200 and not going and found["metadata"].get("labels", {}).get(DIGEST) == digest(options):
        made = False
    else:
        remove(api)
        wait(
            lambda: (
                "the old ones are still being deleted"
                if api("GET", f"/api/v1/namespaces/{NAMESPACE}")[0] == 200
                else ""
            )
        )
        made = True
        metadata = {"name": NAMESPACE, "labels": {DIGEST: digest(options)}}
        _create(api, "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    for path, body in manifests(options):
        _create(api, path, body)
    _give_address(api)
    wait(lambda: unready(api, {**CONTROLLERS, **options.gateway_workloads}) or (unannounced(api) if announced else ""))
    return made


def _give_address(api: Api) -> None:
    """Write an address into the status of `balanced`, like the controller of a load balancer."""
    path = f"/api/v1/namespaces/{NAMESPACE}/services/balanced"
    _, service = api("GET", path)
    wanted = {"ingress": [{"ip": BALANCED_IP, "ipMode": "VIP"}]}
    if service.get("status", {}).get("loadBalancer") == wanted:
        return
    status, answer = api("PUT", f"{path}/status", {**service, "status": {"loadBalancer": wanted}})
    if status != 200:
        raise ClusterError(
            f"the service `balanced` can't be given {BALANCED_IP}: {answer.get('message', status)}",
            remedy=f"remove what is left of it: ./lab kubectl delete namespace {NAMESPACE}",
        )


def unready(api: Api, controllers: Mapping[str, str] = CONTROLLERS) -> str:
    """Return what is missing of these controllers' pods, in a few words; "" when every pod is ready."""
    apps = f"/apis/apps/v1/namespaces/{NAMESPACE}"
    for name, kind in controllers.items():
        _, found = api("GET", f"{apps}/{kind}/{name}")
        key = "desiredNumberScheduled" if kind == "daemonsets" else "replicas"
        status = found.get("status", {})
        ready = status.get("numberReady", status.get("readyReplicas", 0))
        if status.get("observedGeneration", 0) < 1 or not status.get(key) or ready < status[key]:
            return f"{ready} of {status.get(key, '?')} pods of {name} are ready; {_reason(api, name)}"
    return ""


def unannounced(api: Api) -> str:
    """Return the service without an address of the lab's load balancer; "" when all have one."""
    for name in ANNOUNCED:
        _, found = api("GET", f"/api/v1/namespaces/{NAMESPACE}/services/{name}")
        if not found.get("status", {}).get("loadBalancer", {}).get("ingress"):
            return f"the load balancer has given {name} no address"
    return ""


def _reason(api: Api, app: str) -> str:
    """Return why a pod of the app is not ready, as its status reports it."""
    _, pods = api("GET", f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app%3D{app}")
    for pod in pods.get("items", []):
        if why := waiting.why_waiting(pod):
            return f"{pod['metadata']['name']}: {why}"
    return "no pod reports a reason"


def remove(api: Api) -> bool:
    """Delete the workload and return whether there was one. Kubernetes finishes it in the background."""
    status, _ = api("DELETE", f"/api/v1/namespaces/{NAMESPACE}")
    return status < 300


def _create(api: Api, path: str, body: dict[str, Any]) -> None:
    """Create an object unless it exists. (A second POST is not enough: a taken nodePort is a 422, not a 409.)"""
    name = body["metadata"]["name"]
    if api("GET", f"{path}/{name}")[0] == 200:
        return
    status, answer = api("POST", path, body)
    if status != 201:
        raise ClusterError(
            f"{body['kind']} {name} can't be made: {answer.get('message', status)}",
            remedy=f"remove what is left of it: ./lab kubectl delete namespace {NAMESPACE}",
        )
