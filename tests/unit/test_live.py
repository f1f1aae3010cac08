"""Traffic lessons on answers that are told, not sent: each holds on healthy ones and fails on broken ones."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import cast

import pytest
from kubernetes.client import ApiClient

from hoplab import live, outside
from hoplab.batch import Output
from hoplab.claims import ClaimFailed
from hoplab.errors import ClusterError, HostError
from hoplab.facts.conntrack import CONNTRACK
from hoplab.facts.iptables import IPTABLES
from hoplab.live import Answer, Asked
from hoplab.paths import PROJECT
from hoplab.snapshot import load

RECORDED = load(PROJECT / "tests" / "recordings" / "flannel-vxlan.json")
ANSWER = '{"remote_addr":"10.244.0.5:41000","local_addr":"10.244.1.2:8080","node":"worker2","hostname":"echo-x"}'
LOOPBACK = IPv4Address("127.0.0.1")


def asked(output: Output, *, packets: int = 1) -> Asked:
    def rules(count: int) -> str:
        return f"*nat\n:POSTROUTING ACCEPT [0:0]\n[{count}:60] -A POSTROUTING -j MASQUERADE\nCOMMIT\n"

    return Asked("http://x/", output, IPTABLES.parse(rules(0)), IPTABLES.parse(rules(packets)), CONNTRACK.parse(""))


def test_an_echos_answer_is_read() -> None:
    expected = Answer(IPv4Address("10.244.0.5"), IPv4Address("10.244.1.2"), "worker2", "echo-x")
    assert asked(Output(0, ANSWER + "\n")).answer == expected
    assert asked(Output(0, f"{ANSWER}\n{ANSWER}\n")).answers == (expected, expected)


@pytest.mark.parametrize("text", ["", "<html>", "[]", "{}", '{"remote_addr": 5}', '{"remote_addr": "nobody:1"}'])
def test_another_answer_is_not_taken_for_an_echos(text: str) -> None:
    with pytest.raises(ClaimFailed, match="no echo of ours"):
        live.parse_answer(text)


def test_no_answer_says_why() -> None:
    with pytest.raises(ClaimFailed, match=r"http://x/ did not answer: curl: .28. timed out"):
        _ = asked(Output(28, "", "curl: (28) timed out\n")).answer


def test_counters_before_and_after() -> None:
    found = asked(Output(0, ANSWER), packets=3)
    (rule,) = found.after.rules("nat", "POSTROUTING")
    assert found.counted(rule, "nat") == 3


def test_a_lab_is_settled_when_every_node_has_every_endpoint() -> None:
    assert live.settled(RECORDED)
    first = RECORDED.nodes[0].name
    facts = RECORDED.node_facts[first]
    text = "*nat\nCOMMIT\n"
    bare = replace(facts, outputs={**facts.outputs, "iptables": Output(0, text)}, _parsed={})
    assert not live.settled(replace(RECORDED, node_facts={**RECORDED.node_facts, first: bare}))


def test_commands_go_into_the_pods_namespace() -> None:
    pod = RECORDED.pods[0]
    command = live.in_pod(pod, live.http_get("http://x/[1-2]"))
    assert command.startswith(f"nsenter --net=/run/netns/{pod.netns} curl ")
    assert "'http://x/[1-2]'" in command


def test_the_outside_remembers_who_asked() -> None:
    with outside.serving(LOOPBACK, "") as served:
        body = served.ask(served.url("abc"), 5)
        assert body and live.parse_answer(body).remote == LOOPBACK
        assert served.asker("abc") == LOOPBACK
        assert served.asker("never") is None
        url = served.url("abc")
    assert served.ask(url, 1) is None
    assert "outside" not in {thread.name for thread in threading.enumerate()}


def test_an_address_that_is_not_here_is_named() -> None:
    with (
        pytest.raises(HostError, match=r"can't listen on 127\.0\.0\.1"),
        outside.serving(LOOPBACK, "") as served,
        outside.serving(LOOPBACK, "", port=served.port),
    ):
        pass


class Client:
    """The part of the kubernetes client that requests go through."""

    def __init__(self, *, status: int = 200, body: bytes = b"{}", broken: bool = False) -> None:
        self.configuration = SimpleNamespace(host="https://192.0.2.1:6443")
        self.status, self.body, self.broken = status, body, broken
        self.asked: list[tuple[str, str]] = []

    def call_api(self, method: str, url: str, *_rest: object, **_options: object) -> SimpleNamespace:
        self.asked.append((method, url))
        if self.broken:
            raise ConnectionRefusedError("connection refused")
        return SimpleNamespace(status=self.status, read=lambda: self.body)


def test_requests_go_through_the_client_library() -> None:
    kube = Client(status=201, body=b'{"kind": "Pod"}')
    assert live.requester(cast("ApiClient", kube))("POST", "/api/v1/pods", {}) == (201, {"kind": "Pod"})
    assert kube.asked == [("POST", "https://192.0.2.1:6443/api/v1/pods")]
    plain = Client(status=503, body=b"busy")
    assert live.requester(cast("ApiClient", plain))("GET", "/x") == (503, {"message": "busy"})


def test_an_api_that_does_not_answer_is_named() -> None:
    with pytest.raises(ClusterError, match="does not answer GET /api/v1/nodes: connection refused") as caught:
        live.requester(cast("ApiClient", Client(broken=True)))("GET", "/api/v1/nodes")
    assert "lab status" in caught.value.remedy


def test_quiet_is_counted_from_the_pod_that_changed_last() -> None:
    def pod(at: str, kind: str = "Ready") -> dict[str, object]:
        return {"status": {"conditions": [{"type": kind, "lastTransitionTime": at}]}}

    now = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
    pods = [pod("2026-11-23T11:00:00Z"), pod("2026-11-23T11:59:30Z"), pod("2026-11-23T11:59:59Z", "PodScheduled"), {}]
    assert live.quiet_for(pods, now) == 30.0
    assert live.quiet_for([], now) == float("inf")
