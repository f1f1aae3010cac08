"""An imaginary lab that answers requests as a healthy one does, with a switch for each fault."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any, cast

from hoplab.expectations import proxy
from hoplab.expectations.cni.flannel import vtep_mac
from hoplab.expectations.loadbalancer import metallb
from hoplab.expectations.proxy import ServiceExpectation, iptables
from hoplab.observe import capture
from hoplab.observe.facts import Facts
from hoplab.observe.pcap import CapturedPacket
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Node, Pod, Snapshot
from hoplab.observe.ssh import Hosts
from hoplab.verify import workload
from hoplab.verify.external import ExternalHost, Reply
from hoplab.verify.session import LabSession
from tests.support.edits import added, address_of, announced_by, on_node
from tests.support.recordings import recording
from tests.support.timing import UNSCALED

RECORDED, NFTABLES = (recording(f"{name}") for name in ("flannel-vxlan", "flannel-vxlan-nftables"))
GATEWAY = RECORDED.setting.gateway
OUTSIDE_PORT = 36511
PATIENCE = 0.0  # seconds: what is not there at the first look will never be


ANNOUNCED, ANNOUNCED_LOCAL = IPv4Address("192.168.77.245"), IPv4Address("192.168.77.246")
ECHO_POD = next(pod for pod in RECORDED.pods if pod.api.label("app") == "echo")
SINGLE_POD = next(pod for pod in RECORDED.pods if pod.api.label("app") == "single")


def _mac(node: Node) -> str:
    eth0 = node.link("eth0")
    assert eth0
    return eth0.mac


def _only_eth0(text: str) -> str:
    return json.dumps([link for link in json.loads(text) if link["ifname"] == "eth0"])


WITHOUT_ADDRESSES = announced_by(lab=announced_by(name="announced-local", lab=RECORDED))


@dataclass
class World:
    """A lab that only talks. Each switch is one fault."""

    masquerades: bool = True
    counts: bool = True
    remembers: bool = True  # conntrack
    keeps_pod_addresses: bool = True
    chooses: bool = True  # per connection
    translates: bool = True  # DNAT shows in conntrack
    dns: str = "10.96.0.1"
    masks_node_ports: bool = True
    every_node_answers: bool = True
    local_keeps_client: bool = True
    local_is_local: bool = True
    refuses: bool = True
    balances: bool = True  # answers on the load balancer's address
    remembers_balancing: bool = True
    follows_up: bool = True  # kube-proxy, when pods come
    follows_down: bool = True  # ... and when they go
    enforces: bool = False  # network policies
    wraps: bool = True  # VXLAN
    wraps_for: str = ""  # the outer packet's destination, where it is another than the other node
    stays: bool = True  # pod to pod on one node
    hops: int = 0  # ... takes so many
    changes_on_the_way: bool = True  # DNAT on the wire
    changes_back: bool = True
    inner_from: str = ""  # the inner packet's source, where it is another than the pod
    inner_macs: bool = True  # the inner packet is from flannel.1 to flannel.1
    sees: bool = True  # captures see anything
    plugged: bool = True  # pods' interfaces have another end
    tells_node: str = ""  # where an echo says it runs, where that is not so
    keeps_clients: bool = True  # of a ClusterIP
    stranger_answers: bool = False  # a pod that is not behind the service
    loses: bool = False  # one of many connections
    home_answers: bool = True  # the node of a pod behind a Local service
    remembers_local: bool = True
    owned: bool = False  # an interface has the load balancer's address
    forgets_chains: bool = True  # kube-proxy, of pods that are gone
    unreachable_from: str = ""  # who tells a client of a service without endpoints, where it is not its node
    answers: bool = True
    checks: Mapping[bool, int] = field(default_factory=lambda: {True: 200, False: 503})  # health, by: has a pod
    given: bool = True  # addresses, by the load balancer
    who_has: bool = True  # anybody asks by ARP
    announcers: int = 1  # nodes that answer
    announcer: str = ""  # who does, where it is another than MetalLB's choice
    announces_where_pods_are: bool = True
    believed: str = ""  # the MAC that the outside takes for an announced address, where it is another
    reaches: bool = True  # what is sent to an announced address, a pod
    masks_announced: bool = True
    remembers_announced: bool = True
    local_reaches: bool = True
    local_announced_keeps_client: bool = True
    remembers_local_announced: bool = True
    sticks: bool = True  # a client, to a pod of a service with session affinity
    fits: int = 1500  # bytes of the largest packet that arrives in one piece
    lab: Snapshot = RECORDED
    asked: dict[str, IPv4Address] = field(default_factory=dict, init=False)  # who asked the outside, by path
    replicas: int = field(default=1, init=False)
    peak: int = field(default=1, init=False)
    policies: int = field(default=0, init=False)
    _services: tuple[Snapshot | None, dict[str, ServiceExpectation]] = field(default=(None, {}), init=False)

    @property
    def services(self) -> dict[str, ServiceExpectation]:
        lab, found = self._services
        if lab is not self.lab:
            found = {service.service: service for service in proxy.expectations(self.lab)}
            self._services = self.lab, found
        return found

    def batch(self, node: str, commands: Mapping[str, str]) -> dict[str, Output]:
        """What a node prints."""
        assert not re.search(r"[\s/]", "".join(commands)), "a key of a script is one word"
        if all("ping " in command for command in commands.values()):
            sizes = {key: int(re.findall(r"-s (\d+) ", command)[0]) + 28 for key, command in commands.items()}
            return {key: Output(int(size > self.fits), "1 packets transmitted") for key, size in sizes.items()}
        if "it" in commands:
            return {"it": Output(0, f"{self.dns}\n" if self.dns else "")}
        if set(commands) == {"flows"}:
            balanced = _flow(GATEWAY, BALANCED, 80, self.single.address, next(iter(self.lab.nodes)).address)
            client = GATEWAY if self.local_keeps_client else self.lab.nodes[0].pod_cidr[0]
            local = _flow(GATEWAY, self.lab.nodes[0].address, 30081, self.single.address, client)
            known = [(local, self.remembers_local), (balanced, self.remembers_balancing)]
            known += [
                (_flow(GATEWAY, ANNOUNCED, 80, ECHO_POD.address, ECHO_POD.node.address), self.remembers_announced),
                (_flow(GATEWAY, ANNOUNCED_LOCAL, 80, self.single.address, GATEWAY), self.remembers_local_announced),
            ]
            return {"flows": Output(0, "".join(flow for flow, remembered in known if remembered))}
        rules, nft = (self.lab.node_facts[node].outputs[fact].out for fact in ("iptables", "nftables"))
        after = re.sub(r"^\[(\d+):", lambda found: f"[{int(found[1]) + 1}:", rules, flags=re.MULTILINE)
        netns, url = re.findall(r"netns/(\S+) curl .* '?(http\S+?)'?$", commands["answer"])[0]
        pod = next(pod for pod in self.lab.pods if pod.netns == netns and pod.node.name == node)
        self.sent = pod, IPv4Address(re.findall(r"//([\d.]+):", url)[0])
        answer, flows = self.request(pod, *re.findall(r"//([\d.]+):(\d+)/(.*)", url)[0])
        return {
            "before-iptables": Output(0, rules),
            "before-ipset": Output(0, ""),
            "before-nftables": Output(0, nft),
            "answer": answer if self.answers else Output(28, "", "curl: (28) timed out"),
            "flows": Output(0, flows if self.remembers else ""),
            "after-iptables": Output(0, after if self.counts else rules),
            "after-ipset": Output(0, ""),
            "after-nftables": Output(0, nft),
        }

    @property
    def single(self) -> Pod:
        return next(
            pod for pod in self.lab.pods if pod.address == self.services["hoplab-verify/single"].endpoints[0].address
        )

    @property
    def answering(self) -> Pod:
        """Who answers for the services of `single`."""
        other = next(pod for pod in self.lab.pods if pod.address != self.single.address)
        return other if self.stranger_answers else self.single

    def request(self, pod: Pod, host: str, port: str, path: str) -> tuple[Output, str]:
        """The answer to a pod's request, and the connection it leaves."""
        to, number = IPv4Address(host), int(port)
        masked = pod.node.address
        if to == GATEWAY:
            self.asked[path] = masked if self.masquerades else pod.address
            return Output(0, "{}"), _flow(pod.address, to, number, to, self.asked[path])
        service = next((service for service in self.services.values() if service.cluster_ip == to), None)
        if service is None:
            seen = pod.address if self.keeps_pod_addresses else masked
            target = next(other for other in self.lab.pods if other.address == to)
            return _answers([(seen, target)], self.tells_node), _flow(pod.address, to, number, to, seen)
        if not service.endpoints:
            return Output(7 if self.refuses else 28, "", "curl: (7) Failed to connect"), ""
        behind = [other for other in self.lab.pods if other.address in {end.address for end in service.endpoints}]
        if self.stranger_answers:
            behind = [next(other for other in self.lab.pods if other not in behind)]
        seen = pod.address if self.keeps_clients else masked
        chooses = self.chooses and not (service.affinity and self.sticks)
        chosen = [behind[turn % len(behind) if chooses else 0] for turn in range(23 if self.loses else 24)]
        reply = behind[0].address if self.translates else to
        return _answers([(seen, target) for target in chosen]), _flow(pod.address, to, number, reply, pod.address)

    def url(self, path: str) -> str:
        return f"http://{GATEWAY}:{OUTSIDE_PORT}/{path}"

    address, port = GATEWAY, OUTSIDE_PORT

    def client_of(self, path: str) -> IPv4Address | None:
        return self.asked.get(path)

    def get(self, url: str, _timeout: float) -> str | None:
        """From outside to a NodePort."""
        host, port = re.findall(r"//([\d.]+):?(\d*)/", url)[0]
        if host == str(ANNOUNCED):
            way = self.arp_answers(ANNOUNCED)
            seen = way[0].address if way and self.masks_announced else GATEWAY
            return echo_answer(seen, SINGLE_POD if self.stranger_answers else ECHO_POD) if self.reaches else None
        if host == str(ANNOUNCED_LOCAL):
            seen = GATEWAY if self.local_announced_keeps_client else self.single.node.address
            return echo_answer(seen, self.single) if self.local_reaches else None
        if host == str(BALANCED):
            return echo_answer(self.routed_to, self.answering) if self.balances and self.routed_to else None
        node = next(node for node in self.lab.nodes if str(node.address) == host)
        home = node.name == self.single.node.name
        if port == "30081":
            seen = GATEWAY if self.local_keeps_client else node.address
            answers = self.home_answers if home else not self.local_is_local
            return echo_answer(seen, self.single) if answers else None
        if not self.every_node_answers and not home:
            return None
        return echo_answer(node.address if self.masks_node_ports else GATEWAY, self.answering)

    def read(self, outputs: Mapping[str, Output]) -> dict[str, tuple[CapturedPacket, ...]]:
        """What captures saw of the request that was made last."""
        if node := next((node for node in RECORDED.nodes if node.name in outputs), None):
            return {str(address): self.arp(node, address) for address in (ANNOUNCED, ANNOUNCED_LOCAL)}
        pod, to = self.sent
        packet = CapturedPacket(0.0, "eth0", protocol="tcp", src=pod.address, dst=to, sport=4000, dport=8080, ttl=64)
        found: dict[str, tuple[CapturedPacket, ...]] = {
            "sent": (packet,),
            "arrived": (replace(packet, ttl=64 - self.hops),),
        }
        found["left"] = () if self.stays else (packet,)
        if target := next((other for other in self.lab.pods if other.address == to), None):
            inner = replace(
                packet, eth_src=vtep_mac(pod.node), eth_dst=vtep_mac(target.node if self.inner_macs else pod.node)
            )
            inner = replace(inner, src=IPv4Address(self.inner_from) if self.inner_from else pod.address)
            outer = IPv4Address(self.wraps_for or target.node.address)
            wrapped = CapturedPacket(0.0, "eth0", protocol="udp", src=pod.node.address, dst=outer, vni=1)
            found["outer"] = (replace(wrapped, inner=inner),) if self.wraps else (packet,)
        to_service, to_pod = replace(packet, dport=80), replace(packet, dst=self.single.address)
        reply = replace(packet, src=to, dst=pod.address, sport=80 if self.changes_back else 8080)
        found["pod"] = (to_service, reply)
        teller = IPv4Address(self.unreachable_from or pod.node.address)
        found["answers"] = (CapturedPacket(0.0, "veth", protocol="icmp", src=teller, dst=pod.address, icmp_type=3),)
        found["node"] = (to_pod if self.changes_on_the_way else to_service,)
        return found if self.sees else dict.fromkeys(found, ())

    def fetch(self, _url: str, to: IPv4Address, _timeout: float) -> Reply:
        """Of health checks."""
        return Reply(self.checks[to == self.single.node.address])

    def flush_neighbour(self, address: IPv4Address) -> None:
        """Nothing is remembered here."""

    def neighbour(self, address: IPv4Address) -> str:
        answers = self.arp_answers(address)
        return self.believed or (_mac(answers[-1]) if answers else "")

    def arp_answers(self, address: IPv4Address) -> list[Node]:
        """The nodes that answer ARP for an announced address."""
        home = self.single.node
        away = next(node for node in RECORDED.nodes if node is not home)
        if address == ANNOUNCED_LOCAL:
            chosen = home if self.announces_where_pods_are else away
        else:
            name = self.announcer or metallb.announcer(address, [node.name for node in RECORDED.nodes])
            chosen = next(node for node in RECORDED.nodes if node.name == name)
        return [chosen, *(node for node in RECORDED.nodes if node is not chosen)][: self.announcers]

    def arp(self, node: Node, address: IPv4Address) -> tuple[CapturedPacket, ...]:
        """What a node sees of it."""
        request = CapturedPacket(0.0, "eth0", protocol="arp", arp_op=1, src=GATEWAY, dst=address)
        reply = CapturedPacket(0.0, "eth0", _mac(node), protocol="arp", arp_op=2, src=address, dst=GATEWAY)
        answers = node in self.arp_answers(address)
        return (*((request,) if self.who_has else ()), *((reply,) if answers else ()))

    namespace = "hoplab-test"

    @contextmanager
    def routed(self, _address: IPv4Address, via: IPv4Address) -> Iterator[None]:
        self.routed_to: IPv4Address | None = via
        yield
        self.routed_to = None

    def batches(self, commands: Mapping[str, str], *, in_pods: Mapping[str, str]) -> dict[str, dict[str, Output]]:
        """The rules of both nodes, with as many endpoints behind `single` as kube-proxy has followed."""
        if any(name.startswith(capture.PREFIX) for name in commands):
            return {node.name: {node.name: Output(0, "")} for node in RECORDED.nodes}
        edit = _nftables if self.lab.setting.proxy_mode == "nftables" else _iptables
        return {node: edit(self, facts) for node, facts in self.lab.node_facts.items()}

    @property
    def single_service(self) -> ServiceExpectation:
        return self.services["hoplab-verify/single"]

    @property
    def followed(self) -> bool:
        """Whether the rules have the second pod of `single`."""
        return (self.replicas > 1 and self.follows_up) or (self.peak > 1 and not self.follows_down)

    def api(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """As much of Kubernetes as lessons use: endpoints, scaling, and making and deleting a policy."""
        if "endpointslices" in path:
            return 200, _slices([self.single_service.endpoints[0].to, SECOND][: self.replicas])
        if path.endswith("/scale"):
            self.replicas = body["spec"]["replicas"] if body else self.replicas
            self.peak = max(self.peak, self.replicas)
            return 200, {"spec": {"replicas": self.replicas}}
        self.policies += {"POST": 1, "DELETE": -1}[method]
        return 201, {}

    def session(self) -> LabSession:
        lab = self.lab if self.given else WITHOUT_ADDRESSES
        if self.owned:
            lab = on_node("addresses", added(address_of("lo", workload.BALANCED_IP)), lab)
        for node in () if self.plugged else self.lab.nodes:
            lab = on_node("links", _only_eth0, lab, node.name)
        lab = replace(lab, setting=replace(lab.setting, ingress="none"))  # scaled is `single`: no app is asked for
        return LabSession(lab, cast("Hosts", self), cast("ExternalHost", self), self.api, lambda: lab, timing=UNSCALED)


BALANCED = IPv4Address(workload.BALANCED_IP)
SECOND = "10.244.0.99:8080"  # another endpoint of `single`


def _iptables(world: World, facts: Facts) -> dict[str, Output]:
    service, rules = world.single_service, facts.outputs["iptables"].out
    chain, first = iptables.endpoint_chain(service.service, service.protocol, SECOND), f"-A {service.chain} "
    if world.followed:
        dice = "-m statistic --mode random --probability 0.50000000000"
        rules = rules.replace(first, f"{first}{dice} -j {chain}\n{first}", 1)
        dnat = f"-A {chain} -p tcp -m tcp -j DNAT --to-destination {SECOND}"
        rules = rules.replace("*nat\n", f"*nat\n:{chain} - [0:0]\n{dnat}\n")
    elif world.peak > 1 and not world.forgets_chains:
        rules = rules.replace("*nat\n", f"*nat\n:{chain} - [0:0]\n")
    if world.policies and world.enforces:
        rules = rules.replace("*nat\n", "*nat\n:cali-deny - [0:0]\n")
    return {"iptables": Output(0, rules), "nftables": facts.outputs["nftables"]}


def _nftables(world: World, facts: Facts) -> dict[str, Output]:
    document = json.loads(facts.outputs["nftables"].out.splitlines()[0])
    for rule in (item["rule"] for item in document["nftables"] if "rule" in item):
        if rule["chain"] == world.single_service.chain and world.followed:
            both = [to.partition(":") for to in (world.single_service.endpoints[0].to, SECOND)]
            drawn = {"numgen": {"mode": "random", "mod": 2, "offset": 0}}
            held = [[turn, {"concat": [address, int(port)]}] for turn, (address, _, port) in enumerate(both)]
            rule["expr"][-1] = {"dnat": {"family": "ip", "addr": {"map": {"key": drawn, "data": {"set": held}}}}}
    return {"iptables": facts.outputs["iptables"], "nftables": Output(0, json.dumps(document))}


def _slices(endpoints: Iterable[str]) -> dict[str, Any]:
    """An EndpointSliceList."""
    ports = [{"name": "", "port": 8080, "protocol": "TCP"}]
    addresses = [{"addresses": [endpoint.partition(":")[0]], "conditions": {"ready": True}} for endpoint in endpoints]
    metadata = {"namespace": workload.NAMESPACE, "labels": {"kubernetes.io/service-name": "single"}}
    return {"items": [{"addressType": "IPv4", "metadata": metadata, "ports": ports, "endpoints": addresses}]}


def echo_answer(seen: IPv4Address, pod: Pod, node: str = "") -> str:
    """An echo's answer."""
    found = {"remote_addr": f"{seen}:4000", "local_addr": f"{pod.address}:8080", "node": node or pod.node.name}
    return json.dumps({**found, "hostname": pod.api.name})


def _answers(told: list[tuple[IPv4Address, Pod]], node: str = "") -> Output:
    return Output(0, "".join(f"{echo_answer(seen, pod, node)}\n" for seen, pod in told))


def _flow(src: IPv4Address, dst: IPv4Address, port: int, reply_src: IPv4Address, reply_dst: IPv4Address) -> str:
    """A line of `conntrack -L`."""
    original = f"src={src} dst={dst} sport=4000 dport={port}"
    return f"tcp 6 119 TIME_WAIT {original} src={reply_src} dst={reply_dst} sport={port} dport=4000 [ASSURED] mark=0\n"
