"""Every lesson that sends packets, in a small world that answers as a healthy lab does, then with one thing wrong."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address
from typing import cast

import pytest

from hoplab.batch import Output
from hoplab.claims import Claim, ClaimFailed
from hoplab.hosts import Hosts
from hoplab.live import Live
from hoplab.outside import Outside
from hoplab.paths import PROJECT
from hoplab.proxy import iptables as kube_proxy
from hoplab.snapshot import Pod, load

RECORDED = load(PROJECT / "tests" / "recordings" / "flannel-vxlan.json")
GATEWAY = RECORDED.setting.gateway
SERVICES = {service.service: service for service in kube_proxy.promises(RECORDED)}
OUTSIDE_PORT = 36511


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
    answers: bool = True

    def batch(self, node: str, commands: Mapping[str, str]) -> dict[str, Output]:
        """What a node prints."""
        if "it" in commands:
            return {"it": Output(0, f"{self.dns}\n" if self.dns else "")}
        if set(commands) == {"flows"}:
            client = GATEWAY if self.local_keeps_client else RECORDED.nodes[0].pod_cidr[0]
            return {"flows": Output(0, _flow(GATEWAY, RECORDED.nodes[0].address, 30081, self.single.address, client))}
        rules = RECORDED.node_facts[node].outputs["iptables"].out
        after = re.sub(r"^\[(\d+):", lambda found: f"[{int(found[1]) + 1}:", rules, flags=re.MULTILINE)
        netns, url = re.findall(r"netns/(\S+) curl .* '?(http\S+?)'?$", commands["answer"])[0]
        pod = next(pod for pod in RECORDED.pods if pod.netns == netns and pod.node.name == node)
        answer, flows = self.request(pod, *re.findall(r"//([\d.]+):(\d+)/(.*)", url)[0])
        return {
            "before": Output(0, rules),
            "answer": answer if self.answers else Output(28, "", "curl: (28) timed out"),
            "flows": Output(0, flows if self.remembers else ""),
            "after": Output(0, after if self.counts else rules),
        }

    @property
    def single(self) -> Pod:
        return next(
            pod for pod in RECORDED.pods if pod.address == SERVICES["hoplab-verify/single"].endpoints[0].address
        )

    def request(self, pod: Pod, host: str, port: str, path: str) -> tuple[Output, str]:
        """The answer to a pod's request, and the connection it leaves."""
        to, number = IPv4Address(host), int(port)
        masked = pod.node.address
        if to == GATEWAY:
            self.asked[path] = masked if self.masquerades else pod.address
            return Output(0, "{}"), _flow(pod.address, to, number, to, self.asked[path])
        service = next((each for each in SERVICES.values() if each.cluster_ip == to), None)
        if service is None:
            seen = pod.address if self.keeps_pod_addresses else masked
            target = next(each for each in RECORDED.pods if each.address == to)
            return _answers([(seen, target)]), _flow(pod.address, to, number, to, seen)
        if not service.endpoints:
            return Output(7 if self.refuses else 28, "", "curl: (7) Failed to connect"), ""
        behind = [each for each in RECORDED.pods if each.address in {end.address for end in service.endpoints}]
        chosen = [behind[turn % len(behind) if self.chooses else 0] for turn in range(24)]
        reply = behind[0].address if self.translates else to
        return _answers([(pod.address, each) for each in chosen]), _flow(pod.address, to, number, reply, pod.address)

    def url(self, path: str) -> str:
        return f"http://{GATEWAY}:{OUTSIDE_PORT}/{path}"

    port = OUTSIDE_PORT

    def asker(self, path: str) -> IPv4Address | None:
        return self.asked.get(path)

    def ask(self, url: str, _timeout: float) -> str | None:
        """From outside to a NodePort."""
        host, port = re.findall(r"//([\d.]+):(\d+)/", url)[0]
        node = next(node for node in RECORDED.nodes if str(node.address) == host)
        home = node.name == self.single.node.name
        if port == "30081":
            seen = GATEWAY if self.local_keeps_client else node.address
            return _told(seen, self.single) if home or not self.local_is_local else None
        if not self.every_node_answers and not home:
            return None
        return _told(node.address if self.masks_node_ports else GATEWAY, self.single)

    def __post_init__(self) -> None:
        self.asked: dict[str, IPv4Address] = {}

    def live(self) -> Live:
        return Live(RECORDED, cast("Hosts", self), cast("Outside", self))


def _told(seen: IPv4Address, pod: Pod) -> str:
    """An echo's answer."""
    found = {"remote_addr": f"{seen}:4000", "local_addr": f"{pod.address}:8080", "node": pod.node.name}
    return json.dumps({**found, "hostname": pod.api.name})


def _answers(told: list[tuple[IPv4Address, Pod]]) -> Output:
    return Output(0, "".join(f"{_told(seen, pod)}\n" for seen, pod in told))


def _flow(src: IPv4Address, dst: IPv4Address, port: int, reply_src: IPv4Address, reply_dst: IPv4Address) -> str:
    """A line of `conntrack -L`."""
    original = f"src={src} dst={dst} sport=4000 dport={port}"
    return f"tcp 6 119 TIME_WAIT {original} src={reply_src} dst={reply_dst} sport={port} dport=4000 [ASSURED] mark=0\n"


@cache
def lessons() -> Mapping[str, Callable[..., None]]:
    """The lessons that send packets."""
    found = {}
    for path in sorted((PROJECT / "tests" / "lessons").glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("test_") and "live" in inspect.signature(function).parameters:
                found[name.removeprefix("test_")] = function
    return found


def failures(world: World) -> dict[str, str]:
    found = {}
    for name, lesson in lessons().items():
        given = {"live": world.live(), "lab": RECORDED, "claim": Claim()}
        try:
            lesson(**{key: given[key] for key in inspect.signature(lesson).parameters})
            assert cast("Claim", given["claim"]).seen, f"{name} holds but does not say what it saw"
        except ClaimFailed as error:
            found[name] = error.why
    return found


OUTSIDE, POD_TO_POD = "the_outside_sees_the_nodes_address", "pod_to_pod_is_never_translated"
CLUSTER_IP, DNS = "a_cluster_ip_is_a_pod_chosen_per_connection", "kube_dns_answers_a_pod"
NODE_PORT, LOCAL = "a_node_port_answers_on_every_node", "the_local_policy_keeps_the_clients_address"
REFUSED = "a_refused_service_says_so_at_once"

FAULTS = (
    ("masquerades", False, (OUTSIDE,), "the outside saw 10.244."),
    ("counts", False, (OUTSIDE,), "counted the packet"),
    ("remembers", False, (OUTSIDE, POD_TO_POD, CLUSTER_IP), "has no entry that sends replies for"),
    ("keeps_pod_addresses", False, (POD_TO_POD,), "saw 192.168.77."),
    ("chooses", False, (CLUSTER_IP,), "all 24 connections reached"),
    ("translates", False, (CLUSTER_IP,), "has no translated entry for hoplab-verify/echo"),
    ("dns", "", (DNS,), "and got: nothing"),
    ("dns", "10.96.0.2", (DNS,), "and got: 10.96.0.2"),
    ("masks_node_ports", False, (NODE_PORT,), "the pod saw 192.168.77.1, which is no address of"),
    ("every_node_answers", False, (NODE_PORT,), "does not answer on 30080"),
    ("local_keeps_client", False, (LOCAL,), "not 192.168.77.1"),
    ("local_is_local", False, (LOCAL,), "answers on 30081 without a pod of it"),
    ("refuses", False, (REFUSED,), "was not refused"),
    ("answers", False, (OUTSIDE, POD_TO_POD, CLUSTER_IP, REFUSED), "gets no answer from the outside: curl: (28)"),
)


@pytest.fixture(autouse=True)
def _marker(pytestconfig: pytest.Config) -> None:
    """The marker that the lessons' own conftest makes known."""
    pytestconfig.addinivalue_line("markers", "needs")


def test_all_hold_in_a_healthy_world() -> None:
    assert failures(World()) == {}


@pytest.mark.parametrize(("switch", "value", "caught_by", "says"), FAULTS)
def test_a_fault_fails_exactly_its_lessons(switch: str, value: object, caught_by: tuple[str, ...], says: str) -> None:
    world = World()
    setattr(world, switch, value)
    found = failures(world)
    assert set(found) == set(caught_by)
    assert says in found[caught_by[0]]


def test_every_lesson_catches_some_fault() -> None:
    assert set(lessons()) == {name for _, _, caught_by, _ in FAULTS for name in caught_by}
