"""The namespaces of the tests are deleted, and waited for."""

from __future__ import annotations

from typing import Any

import pytest

from hoplab.cluster.api import Requests
from hoplab.conformance import namespaces
from hoplab.core.errors import ClusterError
from hoplab.core.wait import Timing


class Cluster(Requests):
    """An API server with namespaces, each of which ends after some looks at it; None: never."""

    def __init__(self, looks: dict[str, int | None], status: int = 200) -> None:
        self.looks, self.status = looks, status
        self.deleted: list[str] = []
        self.now = 0.0

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        if method == "DELETE":
            self.deleted.append(path)
            return self.status, {"message": "no"}
        assert path == "/api/v1/namespaces?labelSelector=e2e-run"
        found = [name for name, looks in self.looks.items() if looks is None or looks > 0]
        if self.deleted:
            self.looks = {name: looks and looks - 1 for name, looks in self.looks.items()}
        return 200, {"items": [{"metadata": {"name": name}} for name in found]}

    def timing(self) -> Timing:
        def sleep(seconds: float) -> None:
            self.now += seconds

        return Timing(clock=lambda: self.now, sleep=sleep, slowness=lambda: 1.0)


def test_namespaces_are_deleted_and_gone() -> None:
    cluster, said = Cluster({"services-1": 1, "dns-2": 2}), list[str]()
    assert namespaces.remove(cluster, said.append, cluster.timing()) == ("services-1", "dns-2")
    assert cluster.deleted == ["/api/v1/namespaces/services-1", "/api/v1/namespaces/dns-2"]
    assert said == ["waiting for the end of services-1, dns-2", "waiting for the end of dns-2"]


def test_without_namespaces_nothing_is_deleted() -> None:
    cluster = Cluster({})
    assert namespaces.remove(cluster, print, cluster.timing()) == ()
    assert cluster.deleted == []


@pytest.mark.parametrize("status", [202, 404, 409])
def test_one_that_ends_already_is_no_error(status: int) -> None:
    cluster = Cluster({"dns-1": 1}, status)
    assert namespaces.remove(cluster, lambda _: None, cluster.timing()) == ("dns-1",)


def test_a_refusal_is_an_error() -> None:
    cluster = Cluster({"dns-1": 1}, 403)
    with pytest.raises(ClusterError, match="the namespace dns-1 of the tests can't be deleted: no") as caught:
        namespaces.remove(cluster, print, cluster.timing())
    assert "-l e2e-run" in caught.value.remedy


def test_one_that_does_not_end_is_an_error() -> None:
    cluster = Cluster({"dns-1": None})
    with pytest.raises(ClusterError, match="do not end within 120 s: dns-1") as caught:
        namespaces.remove(cluster, lambda _: None, cluster.timing())
    assert "describe namespace" in caught.value.remedy
