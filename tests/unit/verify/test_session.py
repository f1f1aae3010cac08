"""Traffic lessons on answers that are told, not sent: each holds on healthy ones and fails on broken ones."""

from __future__ import annotations

import os
import subprocess
import threading
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hoplab.core.errors import ClusterError, HostError
from hoplab.core.wait import Timing
from hoplab.host import netns
from hoplab.observe import capture
from hoplab.observe.facts import Facts, nftables
from hoplab.observe.facts.cilium_services import CILIUM_SERVICES
from hoplab.observe.facts.conntrack import CONNTRACK
from hoplab.observe.facts.iptables import IPTABLES
from hoplab.observe.facts.nft_expressions import Nat
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.observe.ssh import Hosts
from hoplab.verify import external, observations, session, traffic, workload
from hoplab.verify.claims import ClaimFailed
from hoplab.verify.external import ExternalHost
from hoplab.verify.probe import ECHO
from hoplab.verify.traffic import Answer, Exchange
from tests.support import edits
from tests.support.edited import cilium as edited
from tests.support.recordings import RECORDED_LABS, recording

RECORDED = recording("flannel-vxlan")
ANSWER = '{"remote_addr":"10.244.0.5:41000","local_addr":"10.244.1.2:8080","node":"worker2","hostname":"echo-x"}'
LOOPBACK = IPv4Address("127.0.0.1")


def asked(output: Output, *, packets: int = 1) -> Exchange:
    def rules(count: int) -> Facts:
        text = f"*nat\n:POSTROUTING ACCEPT [0:0]\n[{count}:60] -A POSTROUTING -j MASQUERADE\nCOMMIT\n"
        return Facts("worker1", {"iptables": Output(0, text)})

    return Exchange("http://x/", output, CONNTRACK.parse(""), before=rules(0), after=rules(packets))


def test_an_echos_answer_is_read() -> None:
    expected = Answer(IPv4Address("10.244.0.5"), IPv4Address("10.244.1.2"), "worker2", "echo-x")
    assert asked(Output(0, ANSWER + "\n")).answer == expected
    assert asked(Output(0, f"{ANSWER}\n{ANSWER}\n")).answers == (expected, expected)


@pytest.mark.parametrize("text", ["", "<html>", "[]", "{}", '{"remote_addr": 5}', '{"remote_addr": "nobody:1"}'])
def test_another_answer_is_not_taken_for_an_echos(text: str) -> None:
    with pytest.raises(ClaimFailed, match="not from an echo pod"):
        traffic.parse_answer(text)


def test_no_answer_says_why() -> None:
    with pytest.raises(ClaimFailed, match=r"http://x/ did not answer: curl: .28. timed out"):
        _ = asked(Output(28, "", "curl: (28) timed out\n")).answer


def test_counters_before_and_after() -> None:
    found = asked(Output(0, ANSWER), packets=3)
    (rule,) = found.after[IPTABLES].rules("nat", "POSTROUTING")
    assert found.counted(rule) == 3
    assert found.counted(nftables.Rule("postrtg", (Nat("masquerade"),))) is None  # it has no counter


class Batches:
    """Nodes on which every command prints nothing, but curl the answer of an echo pod."""

    def __init__(self) -> None:
        self.commands: list[dict[str, str]] = []

    def batch(self, _name: str, commands: dict[str, str]) -> dict[str, Output]:
        self.commands.append(commands)
        return {key: Output(0, ANSWER if key == "answer" else "") for key in commands}

    def batches(self, commands: dict[str, str], *, in_pods: object) -> dict[str, dict[str, Output]]:
        return {node.name: self.batch(node.name, commands) for node in RECORDED.nodes}


def lab_with(hosts: Batches, **external: Any) -> session.LabSession:
    outside = cast(ExternalHost, SimpleNamespace(**external))
    return session.LabSession(RECORDED, cast(Hosts, hosts), outside, lambda *_: (200, {}), lambda: RECORDED)


def test_rules_are_listed_only_for_a_request_that_counts_in_them() -> None:
    hosts, pod = Batches(), RECORDED.pods[0]
    found = lab_with(hosts).request(pod, "http://x/")
    assert found.answer.node == "worker2" and set(hosts.commands[0]) == {"answer", "flows"}
    counted = lab_with(hosts).request_all({pod: "http://x/"}, rules=True)[pod]
    assert list(hosts.commands[1])[-1].startswith("after-") and IPTABLES.name in counted.before.outputs


def test_the_arp_packets_of_all_announced_addresses_are_captured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the lab is looked at again."""
    flushed: list[object] = []
    told = {"flush_neighbour": flushed.append, "get": lambda *_: None}
    monkeypatch.setattr(capture, "read", lambda found: {key.removeprefix("capture."): () for key in found})
    hosts = Batches()
    lab = lab_with(hosts, **told)
    addresses = [lab.announced(name) for name in workload.ANNOUNCED]
    for address in addresses:
        assert set(lab.who_has(address)) == set(RECORDED.nodes)
    assert flushed == addresses and len(hosts.commands) == 2 * len(RECORDED.nodes)
    lab.refreshed().who_has(addresses[0])
    assert flushed == 2 * addresses


def test_a_lab_is_settled_when_every_node_has_every_endpoint() -> None:
    assert session.settled(RECORDED)
    first = RECORDED.nodes[0].name
    facts = RECORDED.node_facts[first]
    text = "*nat\nCOMMIT\n"
    bare = replace(facts, outputs={**facts.outputs, "iptables": Output(0, text)}, _parsed={})
    assert not session.settled(replace(RECORDED, node_facts={**RECORDED.node_facts, first: bare}))


@pytest.mark.parametrize("name", RECORDED_LABS)
def test_a_healthy_lab_is_not_waited_for(name: str) -> None:
    assert session.settled(recording(name))


@pytest.mark.parametrize("lab", [edited.ALONE, edited.VXLAN], ids=["without kube-proxy", "beside kube-proxy"])
def test_a_lab_is_settled_when_every_map_has_every_endpoint(lab: Snapshot) -> None:
    frontend = next(found for found in lab.nodes[0][CILIUM_SERVICES] if len(found.backends) == 2)
    assert session.settled(lab)
    for slot in (2, 0):  # a backend; what says that the frontend is there
        assert not session.settled(edited.in_map("cilium_services", f"{frontend.where.upper()} ({slot})", lab=lab)())


@pytest.mark.parametrize(
    ("fact", "lost"),
    [("routes", {"dev": "flannel.1"}), ("neighbours", {"dev": "flannel.1"}), ("fdb", {"ifname": "flannel.1"})],
    ids=["route", "neighbour", "FDB entry"],
)
def test_a_lab_is_settled_when_every_node_reaches_the_others(fact: str, lost: dict[str, str]) -> None:
    assert not session.settled(edits.on_node(fact, edits.without(**lost)))


def test_a_node_that_has_not_announced_its_tunnel_is_about_to() -> None:
    def bare(text: str) -> str:
        return text.replace("flannel.alpha.coreos.com/backend-data", "other")

    assert not session.settled(edits.in_api("nodes", bare))


def test_a_cluster_with_an_unknown_part_is_taken_as_it_is() -> None:
    assert session.settled(replace(RECORDED, setting=replace(RECORDED.setting, cni="weave")))


def test_commands_go_into_the_pods_namespace() -> None:
    pod = RECORDED.pods[0]
    command = traffic.in_pod(pod, ECHO.command("http://x/[1-2]"))
    assert command.startswith(f"nsenter --net=/run/netns/{pod.netns} curl ")
    assert "'http://x/[1-2]'" in command


def test_the_outside_remembers_who_asked() -> None:
    with external.serving(LOOPBACK, "") as served:
        body = served.get(served.url("abc"), 5)
        assert body and traffic.parse_answer(body).remote == LOOPBACK
        assert served.client_of("abc") == LOOPBACK
        assert served.client_of("never") is None
        url = served.url("abc")
    assert served.get(url, 1) is None
    assert "outside" not in {thread.name for thread in threading.enumerate()}


def test_an_address_that_is_not_here_is_named() -> None:
    with (
        pytest.raises(HostError, match=r"can't listen on 127\.0\.0\.1"),
        external.serving(LOOPBACK, "") as served,
        external.serving(LOOPBACK, "", port=served.port),
    ):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")
def test_the_outside_knows_and_forgets_a_mac() -> None:
    name, far, mac = f"hoplab-unit-n{os.getpid()}", IPv4Address("192.0.2.9"), "02:00:00:00:00:09"
    netns.create(name)
    try:
        for words in ("link add d0 type veth peer name d1", "link set d0 up", "address add 192.0.2.1/24 dev d0"):
            subprocess.run(["ip", "-n", name, *words.split()], check=True)
        subprocess.run(
            ["ip", "-n", name, "neigh", "add", str(far), "lladdr", mac, "dev", "d0", "nud", "reachable"], check=True
        )
        with external.serving(LOOPBACK, name) as served:
            assert served.neighbour(far) == mac
            served.flush_neighbour(far)
            assert served.neighbour(far) == ""
    finally:
        netns.delete(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")
def test_a_route_from_outside_is_there_for_as_long_as_it_is_needed() -> None:
    name, address = f"hoplab-unit-{os.getpid()}", IPv4Address("203.0.113.80")

    def way() -> str:
        found = subprocess.run(
            ["ip", "-n", name, "route", "show", f"{address}/32"], capture_output=True, text=True, check=True
        )
        return found.stdout.strip()

    netns.create(name)
    try:
        for words in ("link add d0 type veth peer name d1", "address add 192.0.2.1/24 dev d0", "link set d0 up"):
            subprocess.run(["ip", "-n", name, *words.split()], check=True)
        with external.serving(LOOPBACK, name) as served:
            with served.routed(address, IPv4Address("192.0.2.7")):
                assert way().startswith("203.0.113.80 via 192.0.2.7 dev d0")
            assert way() == ""
    finally:
        netns.delete(name)


class Kubernetes:
    """A deployment whose pods come and go at once, or never."""

    def __init__(self, *, obeys: bool = True, refuses: bool = False) -> None:
        self.obeys, self.refuses = obeys, refuses
        self.replicas = 1
        self.objects: list[str] = []

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        if self.refuses and method in {"PUT", "POST"}:
            return 403, {"message": "not you"}
        if "endpointslices" in path:
            ports, metadata = [{"port": 8080}], {"labels": {"kubernetes.io/service-name": "single"}}
            found = [{"addresses": [f"10.244.0.{n}"], "conditions": {"ready": True}} for n in range(self.replicas)]
            slice_ = {"addressType": "IPv4", "metadata": metadata, "ports": ports, "endpoints": found}
            return 200, {"items": [slice_]}
        if method == "PUT" and body and self.obeys:
            self.replicas = body["spec"]["replicas"]
        if method == "POST" and body:
            self.objects.append(body["metadata"]["name"])
            return 201, {}
        if method == "DELETE":
            self.objects.remove(path.rpartition("/")[2])
        return 200, {"spec": {}}


def lab(kubernetes: Kubernetes) -> session.LabSession:
    mute = cast("external.ExternalHost", None)
    return session.LabSession(RECORDED, cast("Hosts", None), mute, kubernetes, lambda: RECORDED)


def test_a_deployment_is_scaled_and_scaled_back() -> None:
    kubernetes = Kubernetes()
    with pytest.raises(ZeroDivisionError), lab(kubernetes).scaled("single", 3) as endpoints:
        assert endpoints == {"10.244.0.0:8080", "10.244.0.1:8080", "10.244.0.2:8080"}
        _ = 1 / 0
    assert kubernetes.replicas == 1


def test_scaling_that_is_refused_or_never_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(ClusterError, match="deployment single can't be scaled: not you"),
        lab(Kubernetes(refuses=True)).scaled("single", 2),
    ):
        pass
    monkeypatch.setattr(workload, "DEADLINE", 0.0)
    with (
        pytest.raises(ClusterError, match="1 of 2 pods of single are ready after 0 s"),
        lab(Kubernetes(obeys=False)).scaled("single", 2),
    ):
        pass


def test_an_object_is_made_for_a_while() -> None:
    kubernetes, body = Kubernetes(), {"kind": "NetworkPolicy", "metadata": {"name": "deny-all"}}
    with pytest.raises(ZeroDivisionError), lab(kubernetes).created("/policies", body):
        assert kubernetes.objects == ["deny-all"]
        _ = 1 / 0
    assert kubernetes.objects == []
    with (
        pytest.raises(ClusterError, match="NetworkPolicy can't be made: not you"),
        lab(Kubernetes(refuses=True)).created("/policies", body),
    ):
        pass


def test_a_workload_without_namespaces_is_told() -> None:
    bare = replace(lab(Kubernetes()), snapshot=replace(RECORDED, netns_facts={}))
    with pytest.raises(ClaimFailed, match="no pod `echo` of the verification workload has a network namespace"):
        _ = bare.echo_pods
    with pytest.raises(ClaimFailed, match="the pod `single` of the verification workload has no network namespace"):
        _ = bare.single


def test_the_client_is_beside_the_server() -> None:
    healthy = lab(Kubernetes())
    assert healthy.client.node is healthy.single.node
    assert healthy.client in healthy.echo_pods
    home = healthy.single.node.name
    kept = {netns: facts for netns, facts in RECORDED.netns_facts[home].items() if netns == healthy.single.netns}
    alone = replace(RECORDED, netns_facts={**RECORDED.netns_facts, home: kept})
    with pytest.raises(ClaimFailed, match=f"no pod `echo` of the verification workload runs on {home}"):
        _ = replace(healthy, snapshot=alone).client


def test_looking_again_gives_the_lab_as_it_is_now() -> None:
    first = lab(Kubernetes())
    later = replace(RECORDED, versions={"kubernetes": "later"})
    assert replace(first, look=lambda: later).refreshed().snapshot is later


def test_a_lab_on_a_slow_host_has_more_time_to_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules of all nodes and the facts of one wait by the same clock, and as much longer as the host is slower."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    class Nodes:
        def batch(self, _node: str, _commands: object) -> dict[str, Output]:
            return {}

    monkeypatch.setattr(observations, "SETTLE_DEADLINE", 10.0)
    timing = Timing(lambda: now[0], sleep, lambda: 3.0)
    slow = replace(lab(Kubernetes()), hosts=cast("Hosts", Nodes()), timing=timing)
    slow.facts_when(RECORDED.nodes[0], lambda _facts: False, IPTABLES)
    assert now[0] == pytest.approx(30)
    slow.until(lambda: 0, bool)
    assert now[0] == pytest.approx(60)


def test_quiet_is_counted_from_the_pod_that_changed_last() -> None:
    def pod(at: str, kind: str = "Ready") -> dict[str, object]:
        return {"status": {"conditions": [{"type": kind, "lastTransitionTime": at}]}}

    now = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
    pods = [pod("2026-11-23T11:00:00Z"), pod("2026-11-23T11:59:30Z"), pod("2026-11-23T11:59:59Z", "PodScheduled"), {}]
    assert session.seconds_since_change(pods, now) == 30.0
    assert session.seconds_since_change([], now) == float("inf")
