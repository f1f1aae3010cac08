"""The verification workload against an API server that is a dictionary."""

from __future__ import annotations

from typing import Any

import pytest

from hoplab.core.errors import ClusterError
from hoplab.core.wait import Timing
from hoplab.pki.certificates import Pair
from hoplab.verify import workload

APP1 = ("Deployment", workload.APP1)


class FakeApi:
    """Keeps what is posted; pods get ready after a number of looks."""

    def __init__(self, *, ready_after: int = 2, refuse: str = "", announced_after: int = 0) -> None:
        self.made: list[str] = []
        self.namespace: dict[str, Any] | None = None
        self.looks = 0
        self.ready_after = ready_after
        self.refuse = refuse
        self.announced_after = announced_after  # looks at an address of the lab's load balancer
        self.deleted = 0
        self.addresses: list[dict[str, Any]] = []  # what was written into the status of `balanced`, in order

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        if method == "POST" and body:
            if body["kind"] == self.refuse:
                return 403, {"message": "not you"}
            if body["kind"] == "Namespace":
                self.namespace = body
            self.made.append(body["metadata"]["name"])
            return 201, body
        if method == "DELETE":
            found, self.namespace = self.namespace, None
            self.made.clear()
            self.deleted += 1
            return (200 if found else 404), {}
        if path.endswith(f"/namespaces/{workload.NAMESPACE}"):
            return (200, self.namespace) if self.namespace else (404, {})
        name = path.rpartition("/")[2]
        if method == "GET" and path.count("/") > 4 and "?" not in path and name not in self.made:
            return 404, {}
        if path.endswith("/services/balanced/status") and body:
            if self.refuse == "Address":
                return 422, {"message": "not this one"}
            self.addresses.append(body["status"]["loadBalancer"])
            return 200, body
        if path.endswith("/services/balanced") and "balanced" in self.made:
            return 200, {"status": {"loadBalancer": self.addresses[-1] if self.addresses else {}}}
        if name in workload.ANNOUNCED:
            self.announced_after -= 1
            given = [{"ip": "192.168.77.245"}] if self.announced_after < 0 else []
            return 200, {"status": {"loadBalancer": {"ingress": given}}}
        if path.endswith("/daemonsets/echo"):
            self.looks += 1
            ready = 2 if self.looks > self.ready_after else 1
            return 200, {"status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "numberReady": ready}}
        if "/deployments/" in path:
            return 200, {"status": {"observedGeneration": 1, "replicas": 1, "readyReplicas": 1}}
        waiting = {"reason": "ErrImageNeverPull", "message": "no image"}
        pod = {"metadata": {"name": "echo-x"}, "status": {"containerStatuses": [{"state": {"waiting": waiting}}]}}
        return 200, {"items": [pod]}


class Clock:
    """Time passes only in pauses."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def timing(self, slowness: float = 1.0) -> Timing:
        return Timing(self, self.pause, lambda: slowness)


def test_a_load_balancer_is_waited_for_where_there_is_one() -> None:
    api, clock = FakeApi(announced_after=3), Clock()
    workload.ensure(api, announced=True, timing=clock.timing())
    assert api.announced_after < 0
    with pytest.raises(ClusterError, match="the load balancer has given announced no address"):
        workload.ensure(FakeApi(announced_after=10_000), announced=True, timing=clock.timing())
    workload.ensure(FakeApi(announced_after=10_000), timing=clock.timing())  # where there is none, nobody waits


def test_it_is_made_once_and_then_kept() -> None:
    api, clock = FakeApi(), Clock()
    assert workload.ensure(api, timing=clock.timing()) is True
    assert {"hoplab-verify", "echo", "single", "single-local", "nobody"} <= set(api.made)
    before = clock.now
    assert workload.ensure(api, timing=clock.timing()) is False
    assert clock.now == before and api.deleted == 1  # the first look found nothing to delete


def test_another_versions_workload_is_made_anew() -> None:
    api, clock = FakeApi(), Clock()
    workload.ensure(api, timing=clock.timing())
    assert api.namespace
    api.namespace["metadata"]["labels"][workload.DIGEST] = "another"
    assert workload.ensure(api, timing=clock.timing()) is True
    assert api.deleted == 2 and api.namespace["metadata"]["labels"][workload.DIGEST] == workload.digest()


def test_a_workload_that_is_being_deleted_is_made_anew() -> None:
    """`verify --cleanup` and the next `verify` right after it: Kubernetes makes nothing in a namespace that goes."""
    api, clock = FakeApi(), Clock()
    workload.ensure(api, timing=clock.timing())
    assert api.namespace
    api.namespace["metadata"]["deletionTimestamp"] = "2026-11-23T03:28:33Z"
    assert workload.ensure(api, timing=clock.timing()) is True
    assert api.namespace and "deletionTimestamp" not in api.namespace["metadata"]


def test_pods_that_never_get_ready_are_named_with_the_reason() -> None:
    api, clock = FakeApi(ready_after=10**6), Clock()
    with pytest.raises(
        ClusterError, match="1 of 2 pods of echo are ready; echo-x: ErrImageNeverPull no image"
    ) as caught:
        workload.ensure(api, timing=clock.timing())
    assert "describe pods" in caught.value.remedy
    assert clock.now >= workload.DEADLINE


def test_a_slow_machine_gets_more_time() -> None:
    api, clock = FakeApi(ready_after=10**6), Clock()
    with pytest.raises(ClusterError, match="is not ready after 900 s"):
        workload.ensure(api, timing=clock.timing(slowness=3.0))
    assert clock.now >= 3 * workload.DEADLINE


def test_a_refusal_is_shown() -> None:
    clock = Clock()
    with pytest.raises(ClusterError, match="DaemonSet echo can't be made: not you"):
        workload.ensure(FakeApi(refuse="DaemonSet"), timing=clock.timing())


def test_the_load_balancers_address_is_written_once() -> None:
    api, clock = FakeApi(), Clock()
    workload.ensure(api, timing=clock.timing())
    workload.ensure(api, timing=clock.timing())
    assert api.addresses == [{"ingress": [{"ip": workload.BALANCED_IP, "ipMode": "VIP"}]}]


def test_a_refused_address_is_shown() -> None:
    with pytest.raises(ClusterError, match=r"can't be given 203\.0\.113\.80: not this one"):
        workload.ensure(FakeApi(refuse="Address"))


def test_the_manifests_fit_together() -> None:
    objects = [body for _, body in workload.manifests()]
    apps = {body["metadata"]["name"] for body in objects if body["kind"] != "Service"}
    services = {body["metadata"]["name"]: body["spec"] for body in objects if body["kind"] == "Service"}
    routed = {to for paths in workload.ROUTES.values() for to in paths.values()}
    assert routed == {workload.APP1, workload.APP2} and routed <= set(services)
    assert services["nobody"]["selector"]["app"] not in apps
    assert {services[name]["selector"]["app"] for name in ("echo", "single", "single-local")} <= apps
    assert services["single-local"]["externalTrafficPolicy"] == "Local"


def test_certificates_make_secrets_and_change_the_digest() -> None:
    front = workload.IngressOptions({"a": "b"}, {name: Pair("certificate", "key") for name in workload.SITES})
    objects = {(body["kind"], body["metadata"]["name"]): body for _, body in workload.manifests(front)}
    assert objects["Secret", "my-tls-secret"]["stringData"] == {"tls.crt": "certificate", "tls.key": "key"}
    apps = objects["Ingress", "apps"]
    assert {site["secretName"] for site in apps["spec"]["tls"]} == set(workload.SITES)
    assert apps["metadata"]["annotations"] == {"a": "b"}
    assert workload.digest(front) != workload.digest()


def test_apps_answer_while_they_end() -> None:
    (app,) = [body for _, body in workload.manifests() if (body["kind"], body["metadata"]["name"]) == APP1]
    pod = app["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]


def test_every_longer_path_leads_elsewhere() -> None:
    """So that an answer tells which rule was meant."""
    for paths in workload.ROUTES.values():
        for path, to in paths.items():
            shorter = [prefix for prefix in paths if prefix != path and path.startswith(prefix)]
            assert not shorter or paths[max(shorter, key=len)] != to


def test_gateways_are_of_labs_that_have_them() -> None:
    plain, more = (workload.manifests(workload.IngressOptions(gateway_class=given)) for given in ("", "readable"))
    assert [body["kind"] for _, body in more[len(plain) :]] == ["Gateway", "HTTPRoute"]
    assert more[: len(plain)] == plain
    assert {path for path, _ in more[len(plain) :]} == {
        f"/apis/gateway.networking.k8s.io/v1/namespaces/hoplab-verify/{kind}" for kind in ("gateways", "httproutes")
    }
    assert workload.digest() != workload.digest(workload.IngressOptions(gateway_class="readable"))
