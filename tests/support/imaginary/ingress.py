"""An imaginary lab with an ingress controller, with a switch for each fault."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

from hoplab.core.wait import Timing
from hoplab.expectations.ingress import readable
from hoplab.observe.facts import Facts
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.observe.ssh import Hosts
from hoplab.verify import workload
from hoplab.verify.external import ExternalHost, Reply
from hoplab.verify.session import LabSession
from hoplab.verify.workload import APP1, APP2, HOST1, HOST2, ORPHAN
from tests.support.imaginary.traffic import RECORDED as LAB
from tests.support.lesson_functions import lessons

PATIENCE = 2.0  # seconds of the imaginary lab's own clock: ten looks, a stream makes a request between two
WITHOUT = replace(LAB, setting=replace(LAB.setting, ingress="none"))
GATEWAY = WITHOUT.setting.gateway
CLUSTER_IPS = {APP1: "10.96.7.1", APP2: "10.96.7.2"}
PODS = {APP1: ("10.244.0.71", "10.244.1.71", "10.244.0.73"), APP2: ("10.244.1.72",)}
STREAM = "requests"  # the thread that makes consecutive ones
STUCK_S = 60.0
NAMES = {"ingress-a": "worker1", "ingress-b": "worker2"}


@cache
def recorded() -> Snapshot:
    """The recorded lab with two more services, and with its echo pods as pods of the controller."""
    services = json.loads(WITHOUT.api.outputs["services"].out)
    services["items"] = [item for item in services["items"] if item["metadata"]["name"] not in CLUSTER_IPS]
    for name, address in CLUSTER_IPS.items():
        port = {"protocol": "TCP", "port": 80}
        spec = {"ports": [port], "clusterIP": address, "type": "ClusterIP"}
        services["items"].append(
            {"metadata": {"name": name, "namespace": workload.NAMESPACE}, "spec": spec, "status": {}}
        )
    outputs = {**WITHOUT.api.outputs, "services": Output(0, json.dumps(services))}
    lab = replace(WITHOUT, api=Facts("api", outputs), setting=replace(WITHOUT.setting, ingress="readable"))
    echoes = [pod for pod in lab.pods if pod.api.label("app") == "echo"]
    fronts = tuple(
        replace(
            pod, api=replace(pod.api, namespace=readable.NAMESPACE, name=name, labels=tuple(readable.LABELS.items()))
        )
        for pod, name in zip(echoes, NAMES, strict=True)
    )
    vars(lab)["pods"] = fronts
    return lab


RECORDED = recorded()
FRONTS = {pod.node.name: pod for pod in RECORDED.pods}
FIRST, SECOND = RECORDED.nodes[:2]


@dataclass(frozen=True)
class WithoutRules(LabSession):
    """The session of a lab where nobody asks for the rules of kube-proxy."""

    def rules_when(self, _wanted: Callable[[Facts], bool]) -> dict[str, Facts]:
        return {}


@dataclass
class World:
    """A lab with an ingress controller that only talks. Each switch is one fault."""

    orphan_status: int = 404
    orphan_address: bool = False
    host2_to: str = APP2
    tells_host: bool = True
    tells_path: bool = True
    login_to: str = APP2
    api_v1_to: str = APP1
    apiary_to: str = APP1
    unknown_status: int = 404
    unknown_asks: str = "-"  # whom the controller asks for a host that nobody names
    logs: bool = True
    logs_client: str = str(GATEWAY)
    logs_upstream: str = ""
    logs_host: str = ""
    certificates: bool = True  # the right one for each
    https: bool = True
    tells_scheme: bool = True
    trusts_strangers: bool = False
    second_answers: bool = True
    masks: bool = False  # what the controller sends to pods
    forwarded_for: str = str(GATEWAY)
    fronts: bool = True  # are there
    configured_hosts: bool = True
    configured_endpoints: bool = True
    direct: bool = True  # to pods, not to a ClusterIP
    both: bool = False  # to pods and to a ClusterIP
    remembered_from: str = "front"  # who spoke first since conntrack was flushed
    translated: bool = False
    remembers: bool = True
    addresses: bool = True
    routes: bool = True  # are shown
    secrets: bool = True
    loses: bool = False
    of: Snapshot = RECORDED  # the lab it is
    third_is_asked: bool = True
    follows_rules: bool = True
    answers: bool = True
    there: bool = True  # the Ingresses
    takes: int = 1024**2  # bytes of a body
    swallows: int = 0  # of these bytes do not reach the pod
    asks: Mapping[str, str] = field(default_factory=dict)  # annotations of an Ingress
    log: dict[str, list[str]] = field(default_factory=dict, init=False)  # by node
    replicas: int = field(default=2, init=False)
    turn: int = field(default=0, init=False)
    extra: dict[str, str] = field(default_factory=dict, init=False)  # paths that were added
    slept: float = field(default=0.0, init=False)
    streamed: threading.Event = field(default_factory=threading.Event, init=False)  # another request of a stream

    namespace, port = "hoplab-test", 36511

    def fetch(self, url: str, to: IPv4Address, _timeout: float, _ca: Path | None = None, body: bytes = b"") -> Reply:
        """What a client outside gets."""
        if threading.current_thread().name == STREAM:
            self.streamed.set()
        scheme, host, path = re.findall(r"(\w+)://([^/]+)(/.*)", url)[0]
        if body and len(body) > self.takes:
            return Reply(413)
        node = FIRST if to == FIRST.address else SECOND
        if not self.answers:
            return Reply(why="connection refused")
        if host == ORPHAN:
            return Reply(self.orphan_status)
        if host not in workload.ROUTES:
            if scheme == "https" and not self.trusts_strangers:
                return Reply(why="unrecognized name")
            self._note(node.name, host, path, self.unknown_status, self.unknown_asks)
            return Reply(self.unknown_status)
        if (scheme == "https" and not self.https) or (node is SECOND and not self.second_answers):
            return Reply(why="timed out")
        self.turn += 1
        if self.loses and self.turn % 5 == 0 and threading.current_thread().name == STREAM:
            return Reply(502)
        endpoint = self._endpoint(self._service(host, path))
        self._note(node.name, host, path, 200, f"{self.logs_upstream or endpoint}:8080")
        names: tuple[str, ...] = ()
        if scheme == "https":
            names = (host if self.certificates else HOST1,)
        return Reply(200, self._told(node.name, scheme, host, path, endpoint, len(body)), names)

    def _service(self, host: str, path: str) -> str:
        if host == HOST2:
            return self.host2_to
        if path in self.extra:
            return self.extra[path] if self.follows_rules else APP1
        if path.startswith("/api/v1"):
            return self.api_v1_to
        if path.startswith("/apiary"):
            return self.apiary_to
        known = {**workload.ROUTES[HOST1], "/login": self.login_to}
        fits = [prefix for prefix in known if prefix in ("/", path) or path.startswith(f"{prefix}/")]
        return known[max(fits, key=len)]

    def _endpoint(self, service: str) -> str:
        pods = PODS[service][: self.replicas if service == APP1 and self.third_is_asked else 2]
        return pods[self.turn % len(pods)]

    def _told(self, node: str, scheme: str, host: str, path: str, endpoint: str, size: int = 0) -> str:
        """An echo's answer."""
        front = FRONTS[node].address
        headers = {"X-Forwarded-For": [self.forwarded_for], "X-Forwarded-Proto": [scheme if self.tells_scheme else "?"]}
        found = {
            "remote_addr": f"{FRONTS[node].node.pod_cidr[0] if self.masks else front}:4000",
            "local_addr": f"{endpoint}:8080",
            "host": host if self.tells_host else "pods",
            "path": path if self.tells_path else "/",
            "headers": headers,
            "body": max(0, size - self.swallows),
        }
        return json.dumps({**found, "hostname": f"pod-{endpoint}", "node": node})

    def _note(self, node: str, host: str, path: str, status: int, upstream: str) -> None:
        line = f'{self.logs_client} http://{self.logs_host or host} "GET {path} HTTP/1.1" {status} -> x {upstream} -'
        if self.logs:
            self.log.setdefault(node, []).append(line)

    def batch(self, node: str, commands: Mapping[str, str]) -> dict[str, Output]:
        """What a node prints: the controller's configuration, or what conntrack remembers of it."""
        if "it" in commands:
            return {"it": Output(0, self._configuration())}
        lines = []
        for service, pods in PODS.items():
            if self.direct:
                lines += [
                    self._flow(node, address, 8080, reply="10.9.9.9" if self.translated else "") for address in pods
                ]
            if not self.direct or self.both:
                lines.append(self._flow(node, CLUSTER_IPS[service], 80, reply=pods[0]))
        return {"flows": Output(0, "".join(lines) if self.remembers else "")}

    def _flow(self, node: str, to: str, port: int, reply: str = "") -> str:
        """A line of `conntrack -L`."""
        front = FRONTS[node].address
        original = f"src={front} dst={to} sport=4000 dport={port}"
        back = f"src={reply or to} dst={front} sport={port} dport=4000"
        if self.remembered_from == "pod":
            original, back = back, original
        return f"tcp 6 119 ESTABLISHED {original} {back} [ASSURED] mark=0\n"

    def _configuration(self) -> str:
        lines = []
        for service, pods in PODS.items():
            known = pods[: self.replicas if service == APP1 else 1] if self.configured_endpoints else pods[:1]
            lines.append(f"upstream {service} {{ {' '.join(f'server {address}:8080;' for address in known)} }}")
        for host, paths in workload.ROUTES.items():
            locations = " ".join(f"location {path} {{ proxy_pass http://{to}; }}" for path, to in paths.items())
            if host == HOST1 or self.configured_hosts:
                lines.append(f"server {{ server_name {host}; {locations} }}")
        return "\n".join(lines)

    def api(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """As much of Kubernetes as lessons use."""
        if "/log?" in path:
            name = next(name for name in NAMES if name in path)
            node = next(node for node, pod in FRONTS.items() if pod.api.name == name)
            return 200, {"message": "\n".join(self.log.get(node, ()))}
        if "endpointslices" in path:
            service = path.rpartition("%3D")[2]
            return 200, _slices(service, PODS[service][: self.replicas if service == APP1 else 1])
        if path.endswith("/scale"):
            self.replicas = body["spec"]["replicas"] if body else self.replicas
            return 200, {"spec": {"replicas": self.replicas}}
        if not self.there:
            return 404, {"message": "not found"}
        if body:
            paths = body["spec"]["rules"][0]["http"]["paths"]
            known = workload.ROUTES[HOST1]
            self.extra = {path["path"]: APP2 for path in paths if path["path"] not in known}
            return 200, body
        return 200, self._ingress(path.rpartition("/")[2])

    def _ingress(self, name: str) -> dict[str, Any]:
        objects = {
            body["metadata"]["name"]: body
            for _, body in workload.manifests(workload.IngressOptions(certificates={}))
            if body["kind"] == "Ingress"
        }
        found: dict[str, Any] = json.loads(json.dumps(objects[name]))
        given = self.orphan_address if name == "orphan" else self.addresses
        nodes = [{"ip": str(node.address)} for node in RECORDED.nodes] if given else []
        found["status"] = {"loadBalancer": {"ingress": nodes}}
        found["metadata"]["annotations"] = {**found["metadata"].get("annotations", {}), **self.asks}
        if name == "apps":
            sites = workload.SITES if self.secrets else {}
            found["spec"]["tls"] = [{"secretName": secret, "hosts": list(hosts)} for secret, hosts in sites.items()]
            if not self.routes:
                found["spec"]["rules"].pop()
        return found

    @contextmanager
    def routed(self, _address: IPv4Address, _via: IPv4Address) -> Iterator[None]:
        yield

    def read(self, _outputs: Mapping[str, Output]) -> dict[str, tuple[Any, ...]]:
        return {}

    def session(self) -> LabSession:
        lab = self.of
        if not self.fronts:
            lab = replace(self.of)
            vars(lab)["pods"] = (FRONTS[FIRST.name],)
        return WithoutRules(
            lab, cast("Hosts", self), cast("ExternalHost", self), self.api, lambda: lab, timing=self.timing
        )

    @property
    def timing(self) -> Timing:
        """A clock that stands still unless somebody waits, so that a busy machine is no slow lab."""
        return Timing(clock=lambda: self.slept, sleep=self._sleep, slowness=lambda: 1.0)

    def _sleep(self, seconds: float) -> None:
        self.slept += seconds
        if any(thread.name == STREAM for thread in threading.enumerate()):
            self.streamed.clear()
            assert self.streamed.wait(STUCK_S), "the stream makes no request"


def _slices(service: str, addresses: tuple[str, ...]) -> dict[str, Any]:
    """An EndpointSliceList."""
    ports = [{"name": "", "port": 8080, "protocol": "TCP"}]
    metadata = {"namespace": workload.NAMESPACE, "labels": {"kubernetes.io/service-name": service}}
    ends = [{"addresses": [address], "conditions": {"ready": True}} for address in addresses]
    return {"items": [{"addressType": "IPv4", "metadata": metadata, "ports": ports, "endpoints": ends}]}


def names() -> tuple[str, ...]:
    """The lessons of this chapter that send packets or read objects."""
    files = {name: Path(found.function.__code__.co_filename).name for name, found in lessons().items()}
    chapter = [name for name, file in files.items() if file.startswith("test_08_") and file != "test_08_routes.py"]
    return tuple(name for name in chapter if "session" in lessons()[name].takes)


ALONE, HOST, PATH, LONGEST = (
    "an_ingress_alone_does_nothing",
    "the_host_decides",
    "the_path_decides",
    "the_longest_path_wins",
)
UNKNOWN, TLS, ONE, TOLD = (
    "an_unknown_host_gets_404",
    "the_certificate_is_chosen_by_name",
    "one_address_for_all",
    "the_pod_is_told_who_asked",
)
CONFIGURATION, LOG, DIRECT, KUBECTL, CHANGE, LIMITS = (
    "the_configuration_is_the_rules",
    "the_log_has_both_ends",
    "no_cluster_ip_on_the_way",
    "kubectl_shows_address_and_rules",
    "a_change_loses_no_request",
    "bodies_and_silence_have_limits",
)
BY_SECOND = (TOLD, LOG, DIRECT, LIMITS)  # those that ask every node for an app

FAULTS = (
    ("orphan_status", 200, (ALONE,), "worker1 answers for orphan.yash.com with 200"),
    ("orphan_address", True, (ALONE,), "orphan of the class nobody has 192.168.77."),
    ("host2_to", APP1, (HOST,), "answers for app2.yash.com, which is no pod of app2-service"),
    ("tells_host", False, (HOST,), "was asked for the host 'pods', not for app1.yash.com"),
    ("tells_path", False, (PATH,), "was asked for /, not for /login"),
    ("login_to", APP1, (PATH,), "answers for app1.yash.com/login, which is no pod of app2-service"),
    ("api_v1_to", APP2, (LONGEST,), "answers for app1.yash.com/api/v1/users"),
    ("apiary_to", APP2, (LONGEST,), "which is no pod of app1-service, where / leads"),
    ("unknown_status", 200, (UNKNOWN,), "answers for unknown.yash.com with 200, not with 404"),
    ("unknown_asks", "10.244.0.71:8080", (UNKNOWN,), "10.244.0.71:8080 was asked for unknown.yash.com"),
    ("logs", False, (UNKNOWN, LOG), "has no line for /"),
    ("logs", False, (LOG, UNKNOWN), "has 0 lines for /login/"),
    ("logs_client", "10.244.0.1", (LOG,), "did not log 192.168.77.1 and app1.yash.com"),
    ("logs_host", "pods", (LOG,), "did not log 192.168.77.1 and app1.yash.com"),
    ("logs_upstream", "10.244.9.9", (LOG,), "answered with 200"),
    ("certificates", False, (TLS,), "has a certificate for app1.yash.com, not the one of app2-tls-secret"),
    ("https", False, (TLS, ONE), "https://app1.yash.com/ gets no answer (timed out)"),
    ("tells_scheme", False, (TLS,), "is not told that it was asked by https"),
    ("trusts_strangers", True, (TLS,), "https://unknown.yash.com/ has a trusted certificate"),
    ("second_answers", False, (ONE, *BY_SECOND), "worker2 answers http://app1.yash.com/ with no answer (timed out)"),
    ("masks", True, (TOLD,), "not by ingress-readable/ingress-"),
    ("forwarded_for", "10.244.0.1", (TOLD,), "is told that 10.244.0.1 asked, not 192.168.77.1"),
    ("fronts", False, (CONFIGURATION, UNKNOWN, *BY_SECOND), "no pod of the ingress controller runs on worker"),
    ("configured_hosts", False, (CONFIGURATION,), "has no server block for app2.yash.com"),
    ("configured_endpoints", False, (CONFIGURATION,), "sends app1.yash.com/ to 10.244.0.71:8080, not to"),
    ("direct", False, (DIRECT,), "goes by a ClusterIP"),
    ("both", True, (DIRECT,), "goes by a ClusterIP"),
    ("translated", True, (DIRECT,), "sends is translated"),
    ("remembers", False, (DIRECT,), "has no connection of ingress-readable/ingress-"),
    ("addresses", False, (KUBECTL,), "apps has the addresses nothing, not those of the nodes"),
    ("routes", False, (KUBECTL,), "apps has other rules than it was given"),
    ("secrets", False, (KUBECTL,), "apps names other secrets than it was given"),
    ("loses", True, (CHANGE,), "requests were lost"),
    ("third_is_asked", False, (CHANGE,), "were asked"),
    ("follows_rules", False, (CHANGE,), "answers for the new path, which is no pod of app2-service"),
    ("takes", 1000, (LIMITS,), "answers a body of 1048576 bytes with 413, and has client_max_body_size 1m (nginx's"),
    ("takes", 2**30, (LIMITS,), "answers a body of 1048577 bytes with 200, not with 413"),
    ("swallows", 1, (LIMITS,), "got 1048575 of the 1048576 bytes that ingress-readable/ingress-"),
    (
        "asks",
        {"nginx.ingress.kubernetes.io/proxy-body-size": "8m"},
        (LIMITS,),
        "apps asks for 8m by nginx.ingress.kubernetes.io/proxy-body-size, but ingress-readable/ingress-b has client_m",
    ),
    (
        "asks",
        {"nginx.org/proxy-read-timeout": "1h30m"},
        (LIMITS,),
        "apps asks for 1h30m by nginx.org/proxy-read-timeout, but ingress-readable/ingress-b has proxy_read_timeout",
    ),
    ("there", False, (KUBECTL, ALONE, CHANGE), "there is no Ingress apps: not found"),
    (
        "answers",
        False,
        (CHANGE, HOST, PATH, LONGEST, UNKNOWN, TLS, ONE, *BY_SECOND),
        "of 10.244.0.71:8080, 10.244.0.73:8080 and 10.244.1.71:8080 only nothing were asked",
    ),
)
