"""The proof that a restored lab works, with an API that is played."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from typing import Any

import pytest

from hoplab.cluster import readiness
from hoplab.core.errors import ClusterError
from hoplab.core.paths import LabPaths
from hoplab.core.wait import Timing
from hoplab.lab.checkpoint import usable
from hoplab.spec.model import AddressRange
from tests.support.labs import MADE

NODES = ("worker1", "worker2")
POOL = AddressRange.parse("192.0.2.0/28")


class Api:
    """An API server whose kubelets run a pod at the second look, and remove it at the second."""

    def __init__(self, *, runs: bool = True, goes: bool = True, refuses: str = "", image: str = "pause:3.10.2") -> None:
        self.runs, self.goes, self.refuses, self.image = runs, goes, refuses, image
        self.pods: dict[str, dict[str, Any]] = {}
        self.looks: dict[str, int] = {}
        self.deleted: list[str] = []
        self.services: list[dict[str, Any]] = []

    def read(self, path: str) -> dict[str, Any]:
        if path == "/api/v1/services":
            return {"items": self.services}
        assert path.startswith("/api/v1/nodes/")
        return {"status": {"images": [{"names": ["x/y:1"]}, {"names": [f"registry.k8s.io/{self.image}"]}]}}

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        name = path.rpartition("/")[2]
        if method == "POST":
            assert body
            if self.refuses:
                return 403, {"message": self.refuses}
            self.pods[body["metadata"]["name"]] = body
            return 201, body
        if method == "DELETE":
            self.deleted.append(name)
            self.looks[name] = 0
            return 200, {}
        self.looks[name] = self.looks.get(name, 0) + 1
        if name in self.deleted:
            return (404, {}) if self.goes and self.looks[name] > 1 else (200, {})
        running = self.runs and self.looks[name] > 1
        return 200, {"status": {"phase": "Running", "podIP": "10.244.1.9"} if running else {"phase": "Pending"}}


class Quiet:
    def task(self, text: str) -> None: ...


def timing() -> Timing:
    """A clock that goes on by a second a look."""
    seconds = itertools.count()
    return Timing(clock=lambda: float(next(seconds)), sleep=lambda _s: None, slowness=lambda: 1.0)


def try_pods(api: Api) -> None:
    clock = timing()
    usable.try_pods(api, NODES, clock.deadline(60), Quiet(), clock)  # type: ignore[arg-type]


def test_a_pod_on_every_node_is_made_and_removed() -> None:
    api = Api()
    try_pods(api)
    assert [pod["spec"]["nodeSelector"]["kubernetes.io/hostname"] for pod in api.pods.values()] == list(NODES)
    assert {pod["spec"]["containers"][0]["image"] for pod in api.pods.values()} == {"registry.k8s.io/pause:3.10.2"}
    assert set(api.deleted) == set(api.pods)


@pytest.mark.parametrize(
    ("api", "why"),
    [
        (Api(runs=False), "a pod on worker1 is Pending"),
        (Api(goes=False), "a pod on worker1 is still being removed"),
        (Api(refuses="no service account"), "is refused: no service account"),
        (Api(image="other:1"), "node worker1 lists no image registry.k8s.io/pause:"),
    ],
)
def test_a_pod_that_does_not_work(api: Api, why: str) -> None:
    with pytest.raises(ClusterError, match=f"the restored lab is not usable after 60 s: .*{why}") as caught:
        try_pods(api)
    assert "./lab kubectl get events" in caught.value.remedy
    assert set(api.pods) <= set(api.deleted), "a pod is left"


def test_nodes_are_looked_at_after_their_pods_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before that, what the API has of them may be older than the restore."""
    order: list[str] = []
    monkeypatch.setattr(usable, "connect_directly", lambda *_: nullcontext(Api()))
    monkeypatch.setattr(usable, "try_pods", lambda *_: order.append("pods"))
    monkeypatch.setattr(readiness, "wait_usable_nodes", lambda *_, **__: order.append("nodes"))
    usable.prove(MADE, LabPaths("dev"), Quiet(), {})  # type: ignore[arg-type]
    assert order == ["pods", "nodes"]


def service(address: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], **spec},
        "status": {"loadBalancer": {"ingress": [{"ip": address}] if address else []}},
    }


def test_addresses_of_load_balancers() -> None:
    others = [service("192.0.2.9", type="NodePort"), service(""), service("203.0.113.80"), service("a.example")]
    assert usable.balanced([service("192.0.2.7"), *others], POOL) == [("web", "192.0.2.7", 80)]


def test_an_address_that_nobody_announces(monkeypatch: pytest.MonkeyPatch) -> None:
    api, clock, answers = Api(), timing(), iter([False, True])
    api.services = [service("192.0.2.7")]
    monkeypatch.setattr(usable, "_answers", lambda *_: next(answers, False))
    usable.wait_announced(api, "", POOL, clock.deadline(60), Quiet(), clock)  # type: ignore[arg-type]
    with pytest.raises(ClusterError, match=r"nobody announces 192\.0\.2\.7 of service web"):
        usable.wait_announced(api, "", POOL, clock.deadline(60), Quiet(), clock)  # type: ignore[arg-type]


def test_a_closed_port_is_an_answer_and_a_neighbour_is_one() -> None:
    assert usable._answers("", "127.0.0.1", 1)
    assert not usable.known_neighbour("")
