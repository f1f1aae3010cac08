"""A running lab under verification: its snapshot, and ways to send real packets and look before and after.

with opened(paths) as session:
    session.snapshot                     # for read-only lessons
    session.request(pod, url)                # one request from inside a pod, with what the node saw of it
"""

from __future__ import annotations

import json
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from hoplab import image
from hoplab.cluster.api import Api, KubernetesApi, connect
from hoplab.core.errors import ClusterError
from hoplab.core.ip import with_port
from hoplab.core.paths import LabPaths
from hoplab.core.wait import HOST, Expired, NotYet, Timing, slowness
from hoplab.expectations import proxy
from hoplab.expectations.ingress import Access, Controller, Served, get_controller
from hoplab.expectations.parts import known_parts
from hoplab.expectations.proxy import ServiceExpectation
from hoplab.lab import state
from hoplab.netfilter.ruleset import Rule
from hoplab.observe import capture, snapshot
from hoplab.observe.capture import Capture
from hoplab.observe.facts import Fact, Facts
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.facts.conntrack import CONNTRACK, Flow
from hoplab.observe.facts.ipset import IPSET
from hoplab.observe.facts.iptables import IPTABLES
from hoplab.observe.facts.iptables import Rule as IptablesRule
from hoplab.observe.facts.nftables import NFTABLES
from hoplab.observe.pcap import CapturedPacket
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Node, Pod, Snapshot
from hoplab.observe.ssh import Hosts
from hoplab.pki.certificates import ensure_certificates
from hoplab.verify import external, workload
from hoplab.verify.claims import ClaimFailed
from hoplab.verify.external import ExternalHost, Reply

T = TypeVar("T")

API_TIMEOUT = 30  # seconds for one answer of the Kubernetes API
ANSWER_TIMEOUT = 10  # seconds for the answer to a lesson's request
OUTSIDE_TIMEOUT = 4  # seconds until a request from outside, which nobody answers, is given up
BROWSE_TIMEOUT = 30  # seconds for the answer to a request from outside, which somebody answers
LOG_LINES = 200  # of an access log that are looked at
EDIT_TRIES = 5
INGRESSES = f"/apis/networking.k8s.io/v1/namespaces/{workload.NAMESPACE}/ingresses"
SETTLE_DEADLINE = 120.0  # seconds until kube-proxy has followed a pod that became ready, on a machine with little to do


@dataclass(frozen=True)
class Answer:
    """What the far end of a request saw of it."""

    remote: IPv4Address | IPv6Address  # the client, as the server saw it
    local: IPv4Address | IPv6Address | None  # the server's own address
    node: str  # where the server runs
    pod: str  # its name
    host: str = ""  # that the client asked for
    path: str = ""
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def to(self) -> str:
        """The endpoint that answered, as an EndpointSlice has it."""
        return with_port(self.local, workload.PORT)


@dataclass(frozen=True)
class Asked:
    """A request that was made, with the node's rules before and after it and the connections it left."""

    url: str
    output: Output
    before: Facts  # the rules of translation: what iptables-save prints of nat, and nft of whole tables
    after: Facts
    flows: tuple[Flow, ...]
    packets: Mapping[str, tuple[CapturedPacket, ...]] = field(default_factory=dict)  # of each capture, by its name

    @property
    def answered(self) -> bool:
        return self.output.code == 0

    @property
    def answer(self) -> Answer:
        """The answer of an echo; ClaimFailed when there was none."""
        if not self.answered:
            raise ClaimFailed(f"{self.url} did not answer: {self.output.err.strip() or self.output.code}")
        return parse_answer(self.output.out)

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The answers to several requests: an echo puts each on a line of its own."""
        return tuple(parse_answer(line) for line in self.output.out.splitlines())

    def counted(self, rule: Rule) -> int | None:
        """How many more packets a rule of nat has counted after the request than before; None where rules don't count.

        kube-proxy and flannel write nftables rules without counters.
        """
        if not isinstance(rule, IptablesRule):
            return None
        return packets(self.after, rule) - packets(self.before, rule)


def packets(found: Facts, rule: IptablesRule) -> int:
    return sum(each.packets for each in found[IPTABLES].rules("nat", rule.chain) if each == rule)


def rule_commands() -> dict[str, str]:
    """Return the commands that list the rules that translate addresses, by the name of the fact."""
    return {
        IPTABLES.name: f"{IPTABLES.command} -t nat",
        IPSET.name: IPSET.command,
        NFTABLES.name: NFTABLES.command_for(known_parts()),
    }


def parse_answer(text: str) -> Answer:
    """The JSON that an echo answers with."""
    try:
        raw = json.loads(text)
        local = raw.get("local_addr", "").rpartition(":")[0].strip("[]")
        return Answer(
            remote=ip_address(raw["remote_addr"].rpartition(":")[0].strip("[]")),
            local=ip_address(local) if local else None,
            node=raw.get("node", ""),
            pod=raw.get("hostname", ""),
            host=raw.get("host", ""),
            path=raw.get("path", ""),
            headers={name: tuple(values) for name, values in raw.get("headers", {}).items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ClaimFailed(f"what answered is no echo of ours: {text[:80]!r}") from None


@dataclass(frozen=True)
class IngressSeen:
    """An Ingress as the API has it."""

    name: str
    ingress_class: str
    addresses: frozenset[IPv4Address]  # in its status: where the controller that serves it is reached
    routes: Mapping[str, Mapping[str, str]]  # host -> path -> service
    secrets: Mapping[str, tuple[str, ...]]  # TLS secret -> hosts


def parse_ingress(raw: Mapping[str, Any]) -> IngressSeen:
    spec, status = raw["spec"], raw.get("status", {})
    return IngressSeen(
        name=raw["metadata"]["name"],
        ingress_class=spec.get("ingressClassName", ""),
        addresses=frozenset(
            IPv4Address(each["ip"]) for each in status.get("loadBalancer", {}).get("ingress", ()) if each.get("ip")
        ),
        routes={
            rule.get("host", ""): {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]}
            for rule in spec.get("rules", ())
        },
        secrets={each["secretName"]: tuple(each.get("hosts", ())) for each in spec.get("tls", ())},
    )


@dataclass
class Stream:
    """Requests that are made one after the other while something changes."""

    sent: int = 0
    lost: list[str] = field(default_factory=list)  # those that were not answered with 200, and how
    reached: set[str] = field(default_factory=set)  # endpoints


@dataclass(frozen=True)
class LabSession:
    """A lab that runs."""

    snapshot: Snapshot
    hosts: Hosts
    external: ExternalHost
    api: Api
    look: Callable[[], Snapshot]
    external6: ExternalHost | None = None  # the same by IPv6, in a lab that has it
    ca: Path | None = None  # whom a client of the apps' https sites trusts
    timing: Timing = HOST  # of waits

    def refreshed(self) -> LabSession:
        """The same lab as it is at this moment."""
        return replace(self, snapshot=self.look())

    @cached_property
    def echo_pods(self) -> tuple[Pod, ...]:
        """The echo pods, one per node, in the order of the nodes."""
        found = self._pods("echo")
        if not found:
            raise ClaimFailed("no pod `echo` of the verification workload has a network namespace on any node")
        return found

    @cached_property
    def single(self) -> Pod:
        """The pod behind the NodePort services."""
        found = self._pods("single")
        if not found:
            raise ClaimFailed("the pod `single` of the verification workload has no network namespace on any node")
        return found[0]

    @cached_property
    def client(self) -> Pod:
        """The echo pod beside `single`, on its node: who asks where one asks for all."""
        found = next((pod for pod in self.echo_pods if pod.node is self.single.node), None)
        if found is None:
            raise ClaimFailed(f"no pod `echo` of the verification workload runs on {self.single.node.name}")
        return found

    def _pods(self, app: str) -> tuple[Pod, ...]:
        order = {node.name: index for index, node in enumerate(self.snapshot.nodes)}
        found = [
            pod for pod in self.snapshot.pods if pod.api.namespace == workload.NAMESPACE and pod.api.label("app") == app
        ]
        return tuple(sorted(found, key=lambda pod: order[pod.node.name]))

    def service(self, name: str, *, ipv6: bool = False) -> ServiceExpectation:
        """A service of the verification workload."""
        wanted = f"{workload.NAMESPACE}/{name}"
        known = proxy.expectations6(self.snapshot) if ipv6 else proxy.expectations(self.snapshot)
        return next(each for each in known if each.service == wanted)

    def request(self, pod: Pod, url: str, captures: Mapping[str, Capture] | None = None) -> Asked:
        """An HTTP request from inside a pod's network namespace; its node is looked at before, after and meanwhile.

        A URL that ends in ``[1-24]`` makes 24 requests, each on a connection of its own.
        """
        place = capture.new_place()
        commands = {
            **{f"before-{name}": command for name, command in rule_commands().items()},
            **capture.start(captures or {}, place),
            "answer": in_pod(pod, curl_command(url)),
            **capture.stop(captures or {}, place),
            "flows": _conntrack(pod.address),
            **{f"after-{name}": command for name, command in rule_commands().items()},
        }
        found = self.hosts.batch(pod.node.name, commands)
        before, after = (
            Facts(pod.node.name, {name: found[f"{when}-{name}"] for name in rule_commands()})
            for when in ("before", "after")
        )
        flows = Facts(pod.node.name, {CONNTRACK.name: found["flows"]})[CONNTRACK]
        return Asked(url, found["answer"], before, after, flows, capture.read(found))

    def request_all(self, urls: Mapping[Pod, str]) -> dict[Pod, Asked]:
        """One request from each of several pods, on all their nodes at once."""
        with ThreadPoolExecutor() as pool:
            return dict(zip(urls, pool.map(self.request, urls, urls.values()), strict=True))

    def request_from_outside(self, url: str) -> Answer | None:
        """An HTTP request from the host end of the lab network; None when nobody answers."""
        body = self.external.get(url, OUTSIDE_TIMEOUT)
        return None if body is None else parse_answer(body)

    @property
    def controller(self) -> Controller:
        """The module of the lab's ingress controller."""
        return get_controller(self.snapshot.setting.ingress)

    @cached_property
    def controller_pods(self) -> Mapping[str, Pod]:
        """The pod of the ingress controller on every node, by the node's name."""
        wanted = self.controller
        found = {
            pod.node.name: pod
            for pod in self.snapshot.pods
            if pod.api.namespace == wanted.NAMESPACE
            and all(pod.api.label(name) == value for name, value in wanted.LABELS.items())
        }
        for node in self.snapshot.nodes:
            if node.name not in found:
                raise ClaimFailed(f"no pod of the ingress controller runs on {node.name}")
        return found

    def http_get(self, url: str, node: Node | None = None) -> Reply:
        """One request from outside to a node (the first, if none is given), whatever the URL's host: its answer."""
        to = (node or self.snapshot.nodes[0]).address
        return self.external.fetch(url, to, BROWSE_TIMEOUT, self.ca)

    def app(self, url: str, node: Node | None = None) -> Answer:
        """What the app that answers a request from outside saw of it; ClaimFailed when none answers."""
        reply = self.http_get(url, node)
        if reply.status != 200:
            raise ClaimFailed(f"{url} gets {reply} from {(node or self.snapshot.nodes[0]).name}")
        return parse_answer(reply.body)

    def reached(self, url: str, node: Node | None = None) -> str:
        """The endpoint of the app that answers a request from outside; "" when none does."""
        reply = self.http_get(url, node)
        return parse_answer(reply.body).to if reply.status == 200 else ""

    def ingress(self, name: str) -> IngressSeen:
        """An Ingress of the verification workload, as it is at this moment."""
        status, found = self.api("GET", f"{INGRESSES}/{name}")
        if status != 200:
            raise ClaimFailed(f"there is no Ingress {name}: {found.get('message', status)}")
        return parse_ingress(found)

    def served(self, front: Pod) -> tuple[Served, ...]:
        """What the configuration of an ingress controller's pod does for every host."""
        look = (
            f"for pid in $(ip netns pids {front.netns}); do"
            f" cat /proc/$pid/root{self.controller.CONFIGURATION} 2>/dev/null && break; done"
        )
        if self.controller.ENDPOINTS:
            look += f"; echo; ip netns exec {front.netns} curl -s {self.controller.ENDPOINTS}"
        found = self.hosts.batch(front.node.name, {"it": look})["it"]
        return self.controller.served(found.out)

    def accesses(self, front: Pod) -> tuple[Access, ...]:
        """The newest lines of the access log of an ingress controller's pod."""
        where = f"/api/v1/namespaces/{front.api.namespace}/pods/{front.api.name}/log"
        _, found = self.api("GET", f"{where}?container={self.controller.CONTAINER}&tailLines={LOG_LINES}")
        lines = (self.controller.access(line) for line in str(found.get("message", "")).splitlines())
        return tuple(line for line in lines if line)

    @contextmanager
    def request_stream(self, url: str) -> Iterator[Stream]:
        """While the body runs, one request after the other is made from outside."""
        stream, done = Stream(), threading.Event()

        def send() -> None:
            while not done.wait(0.02):
                reply = self.http_get(url)
                stream.sent += 1
                if reply.status == 200:
                    stream.reached.add(parse_answer(reply.body).to)
                else:
                    stream.lost.append(str(reply))

        thread = threading.Thread(target=send, name="requests", daemon=True)
        thread.start()
        try:
            yield stream
        finally:
            done.set()
            thread.join()

    def until(self, look: Callable[[], T], good: Callable[[T], bool]) -> T:
        """Return what is seen once it is good, or at the deadline."""
        return self.timing.settled(look, good, SETTLE_DEADLINE)

    def status_from_outside(self, url: str) -> int:
        """The status of the answer to such a request; 0 when nobody answers."""
        return self.external.fetch(url, IPv4Address(urlsplit(url).hostname), OUTSIDE_TIMEOUT).status

    def announced(self, name: str) -> IPv4Address:
        """The address that the lab's load balancer gave to a service of the workload."""
        for each in self.snapshot.api[API_SERVICES]:
            if (each.namespace, each.name) == (workload.NAMESPACE, name) and each.balancer_ips:
                return each.balancer_ips[0]
        raise ClaimFailed(f"the load balancer has given {name} no address")

    def who_has(self, address: IPv4Address) -> dict[Node, tuple[CapturedPacket, ...]]:
        """ARP for an address of the lab network as every node sees it, while the host end asks anew who has it."""
        captures, place = {"arp": Capture("eth0", f"arp and host {address}")}, capture.new_place()
        started = self.hosts.batches(capture.start(captures, place), in_pods={})
        self.external.flush_neighbour(address)
        self.request_from_outside(f"http://{address}/")
        stopped = self.hosts.batches(capture.stop(captures, place), in_pods={})
        return {node: capture.read({**started[node.name], **stopped[node.name]})["arp"] for node in self.snapshot.nodes}

    def arp_reply_from(
        self, node: Node, packets: Iterable[CapturedPacket], address: IPv4Address
    ) -> CapturedPacket | None:
        """The ARP reply for the address that the node itself sent."""
        eth0 = node.link("eth0")
        return next(
            (each for each in packets if eth0 and (each.arp_op, each.src, each.eth_src) == (2, address, eth0.mac)),
            None,
        )

    def run_all(self, pods: Iterable[Pod], command: str) -> dict[Pod, Output]:
        """One command in each pod's network namespace, with its node's tools, on all nodes at once."""

        def run(pod: Pod) -> Output:
            return self.hosts.batch(pod.node.name, {"it": in_pod(pod, command)})["it"]

        asked = tuple(pods)
        with ThreadPoolExecutor() as pool:
            return dict(zip(asked, pool.map(run, asked), strict=True))

    def flows(self, node: Node, client: IPv4Address, *, either_end: bool = False) -> tuple[Flow, ...]:
        """The connections a node remembers that the client began, or those that it has an end of.

        A connection that is older than the entry (the table was flushed) counts as begun by who spoke first since.
        """
        command = _conntrack(client)
        if either_end:
            command = f"{command} && {CONNTRACK.command} --orig-dst {client}"
        found = {CONNTRACK.name: self.hosts.batch(node.name, {"flows": command})["flows"]}
        return Facts(node.name, found)[CONNTRACK]

    def rules(self) -> dict[str, Facts]:
        """The rules of translation of every node, as they are at this moment."""
        return {node: Facts(node, outputs) for node, outputs in self.hosts.batches(rule_commands(), in_pods={}).items()}

    def rules_when(self, wanted: Callable[[Facts], bool]) -> dict[str, Facts]:
        """Return the rules of every node, once all of them are as wanted, or as they are at the deadline."""
        return self.until(self.rules, lambda found: all(wanted(rules) for rules in found.values()))

    def facts_when(self, node: Node, wanted: Callable[[Facts], bool], *facts: Fact[Any]) -> Facts:
        """Return some facts of a node, once they are as wanted, or as they are at the deadline."""
        commands = {fact.name: fact.command for fact in facts}
        return self.until(lambda: Facts(node.name, self.hosts.batch(node.name, commands)), wanted)

    def endpoints(self, service: str, *, ending: bool = False) -> set[str]:
        """The ready endpoints of a service of the workload as the API knows them, ``10.244.1.2:8080``, or all."""
        query = f"labelSelector=kubernetes.io%2Fservice-name%3D{service}"
        _, found = self.api("GET", f"/apis/discovery.k8s.io/v1/namespaces/{workload.NAMESPACE}/endpointslices?{query}")
        known = API_ENDPOINTS.parse(json.dumps(found))
        return {f"{each.address}:{each.port}" for each in known if each.ready or ending}

    @contextmanager
    def scaled(self, deployment: str, replicas: int) -> Iterator[set[str]]:
        """While the body runs a deployment of the workload has more pods; their endpoints when all are ready."""
        before = len(self.endpoints(deployment))
        try:
            yield self._scale(deployment, replicas)
        finally:
            self._scale(deployment, before)

    def _scale(self, deployment: str, replicas: int) -> set[str]:
        path = f"/apis/apps/v1/namespaces/{workload.NAMESPACE}/deployments/{deployment}/scale"
        _, scale = self.api("GET", path)
        scale["spec"] = {"replicas": replicas}
        status, answer = self.api("PUT", path, scale)
        if status != 200:
            raise ClusterError(
                f"deployment {deployment} can't be scaled: {answer.get('message', status)}", remedy="see `./lab status`"
            )

        def ready() -> set[str] | NotYet:
            found = self.endpoints(deployment)
            return found if len(found) == replicas else NotYet(f"{len(found)} of {replicas} pods")

        try:
            return self.timing.until(ready, workload.DEADLINE, poll_s=0.2)
        except Expired as expired:
            raise ClusterError(
                f"{expired.reason} of {deployment} are ready after {expired.seconds:.0f} s",
                remedy=f"./lab kubectl -n {workload.NAMESPACE} describe pods",
            ) from None

    @contextmanager
    def created(self, path: str, body: dict[str, Any]) -> Iterator[None]:
        """While the body runs an object exists in Kubernetes."""
        status, answer = self.api("POST", path, body)
        if status not in {201, 409}:  # 409: left by a run that was killed
            raise ClusterError(
                f"{body['kind']} can't be made: {answer.get('message', status)}", remedy="see `./lab status`"
            )
        try:
            yield
        finally:
            self.api("DELETE", f"{path}/{body['metadata']['name']}")

    @contextmanager
    def edited(self, path: str, edit: Callable[[dict[str, Any]], None]) -> Iterator[None]:
        """While the body runs an object of Kubernetes is another one; then its spec and data are what they were."""
        before = self._edit(path, edit)
        try:
            yield
        finally:
            self._edit(
                path, lambda found: found.update({key: before[key] for key in ("spec", "data") if key in before})
            )

    def _edit(self, path: str, edit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Change an object; again when somebody else did so in between. What it was before."""
        for _ in range(EDIT_TRIES):
            status, answer = self.api("GET", path)
            before = answer
            if status == 200:
                after = json.loads(json.dumps(before))
                edit(after)
                status, answer = self.api("PUT", path, after)
            if status == 200:
                return before
            if status != 409:
                break
        raise ClusterError(f"{path} can't be changed: {answer.get('message', status)}", remedy="see `./lab status`")

    def unique_path(self) -> str:
        """A path nobody asked for yet."""
        return secrets.token_hex(6)


def _conntrack(client: IPv4Address) -> str:
    return f"{CONNTRACK.command} --orig-src {client}"


def in_pod(pod: Pod, command: str) -> str:
    """A command, run in the pod's network namespace: no tool has to be in the pod."""
    return f"nsenter --net=/run/netns/{pod.netns} {command}"


def curl_command(url: str) -> str:
    return (
        f"curl --silent --show-error --fail --fail-early --header 'Connection: close' --max-time {ANSWER_TIMEOUT} "
        f"{shlex.quote(url)}"
    )


@contextmanager
def opened(paths: LabPaths, say: Callable[[str], None] = lambda _text: None) -> Iterator[LabSession]:
    """Connect to a running lab, make sure that its probe pods are there, and look at it."""
    lab = state.load(paths)
    setting = state.built_setting(lab, paths)
    versions = {**image.component_versions(), "image": lab.image[:12], "accel": lab.accel}
    front = workload.Front(
        get_controller(lab.ingress).ANNOTATIONS if lab.ingress != "none" else {},
        ensure_certificates(paths, workload.SITES),
    )
    with ExitStack() as stack:
        api = stack.enter_context(connect(paths, lab.netns, timeout_s=API_TIMEOUT))
        hosts = Hosts([node.name for node in lab.nodes], paths.ssh_config)
        served = stack.enter_context(external.serving(setting.gateway, lab.netns))
        served6 = stack.enter_context(external.serving(setting.ipv6.network[1], lab.netns)) if setting.ipv6 else None
        say("waiting for the pods that verification asks with")
        workload.ensure(api, front, announced=setting.load_balancer != "none")
        say("looking at the nodes")

        def look() -> Snapshot:
            return snapshot.take(setting, versions, hosts, lambda path: _output(api, path), known_parts())

        seen = _looked(look, api, SETTLE_DEADLINE * slowness())
        yield LabSession(seen, hosts, served, api, look, served6, paths.ca)


def _looked(look: Callable[[], Snapshot], api: KubernetesApi, patience: float) -> Snapshot:
    """Take the snapshot; again while kube-proxy has not yet followed the pods that became ready a moment ago.

    Where no pod has changed for a while, what is missing is missing, and is for the lessons to tell.
    """
    while True:
        seen = look()
        if settled(seen) or quiet_for(api.read("/api/v1/pods")["items"], datetime.now(UTC)) > patience:
            return seen
        time.sleep(1)


def quiet_for(pods: Iterable[Mapping[str, Any]], now: datetime) -> float:
    """Seconds since a pod last became ready, or ceased to be."""
    changes = [
        datetime.fromisoformat(condition["lastTransitionTime"])
        for pod in pods
        for condition in pod.get("status", {}).get("conditions", ())
        if condition["type"] == "Ready" and condition.get("lastTransitionTime")
    ]
    return min(((now - change).total_seconds() for change in changes), default=float("inf"))


def settled(seen: Snapshot) -> bool:
    """Whether the rules of every node lead to every ready endpoint."""
    clients: list[tuple[IPv4Address | IPv6Address, tuple[ServiceExpectation, ...]]] = [
        (seen.setting.pod_cidr[-2], proxy.expectations(seen))
    ]
    if seen.setting.ipv6:
        clients.append((seen.setting.ipv6.pod_cidr[-2], proxy.expectations6(seen)))
    return all(
        {each.to for each in service.endpoints} <= proxy.targets(node, client, service)
        for node in seen.nodes
        for client, services in clients
        for service in services
    )


def _output(api: KubernetesApi, path: str) -> Output:
    """Return the answer as a fact's command would print it."""
    status, text = api.request("GET", path)
    return Output(0, text) if status == 200 else Output(status, "", text)
