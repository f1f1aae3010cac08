"""`lab status`: machines by libvirt, nodes by Kubernetes, and what is healthy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hoplab.core.errors import ClusterError
from hoplab.core.paths import LabPaths
from hoplab.host import machines
from hoplab.lab import state, status
from hoplab.lab.spec_file import plan_lab
from hoplab.spec.model import LabSpec

NODES = ("worker1", "worker2", "cp1")


def kubernetes_node(name: str) -> dict[str, Any]:
    """A node as the API has it."""
    info = {"kubeletVersion": "v1.37.2", "containerRuntimeVersion": "containerd://2.4.2"}
    addresses = [{"type": "InternalIP", "address": "192.0.2.1"}]
    conditions = [{"type": "Ready", "status": "True"}]
    return {
        "metadata": {"name": name},
        "spec": {"podCIDR": "10.244.1.0/24"},
        "status": {"nodeInfo": info, "addresses": addresses, "conditions": conditions},
    }


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabPaths:
    paths = LabPaths("dev", tmp_path)
    plan = plan_lab(LabSpec("dev"), lab_id="dev-1a2b3c", accel="kvm")
    state.save(state.lab_state(plan, libvirt_uri="test:///", netns="", image="", image_bin=tmp_path), paths)
    names = [machines.domain_name("dev-1a2b3c", node) for node in NODES]
    monkeypatch.setattr(machines, "domain_states", lambda _: dict.fromkeys(names, "running"))
    return paths


def api_with(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    @contextmanager
    def connect(_paths: LabPaths, _netns: str) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(read=lambda _path: {"items": [kubernetes_node(name) for name in names]})

    monkeypatch.setattr(status, "connect_directly", connect)


def test_status_of_a_healthy_lab(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    api_with(monkeypatch, *NODES)
    found = status.status(paths)
    assert (found["healthy"], found["api"]) == (True, "ready")
    assert {row["kubelet"] for row in found["nodes"]} == {"v1.37.2"}


def test_status_of_a_node_that_did_not_join(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    api_with(monkeypatch, "worker1", "cp1")
    found = status.status(paths)
    assert not found["healthy"]
    assert [row["name"] for row in found["nodes"] if row["ready"] is None] == ["worker2"]


def test_status_without_an_api_server(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_paths: LabPaths, _netns: str) -> None:
        raise ClusterError("the API server does not answer")

    monkeypatch.setattr(status, "connect_directly", refuse)
    found = status.status(paths)
    assert (found["healthy"], found["api"]) == (False, "unreachable")
    assert {row["machine"] for row in found["nodes"]} == {"running"}


def lease(node: str, **spec: str) -> dict[str, Any]:
    return {"metadata": {"name": node}, "spec": spec}


def test_clocks_that_stood_still_are_in_the_leases() -> None:
    now = datetime(2026, 11, 28, 12, tzinfo=UTC)
    leases = [
        lease("worker1", renewTime="2026-11-28T11:59:55.123456Z"),  # 5 s old, as it should be
        lease("worker2", renewTime="2026-11-28T11:00:00.000000Z"),
        lease("worker3", renewTime="2026-11-28T12:01:00.000000Z"),
        lease("worker4"),
    ]
    assert status.clock_skews(leases, now) == {"worker2": -3540, "worker3": 60}
