"""Kubernetes objects that lessons read, create, edit and scale through the API of the running lab."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from hoplab.core.errors import ClusterError
from hoplab.core.wait import Expired, NotYet
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS
from hoplab.verify import workload
from hoplab.verify.claims import ClaimFailed
from hoplab.verify.observations import Observations

API_TIMEOUT = 30  # seconds for one response of the Kubernetes API
EDIT_TRIES = 5
INGRESSES = f"/apis/networking.k8s.io/v1/namespaces/{workload.NAMESPACE}/ingresses"
GATEWAY_API = f"/apis/gateway.networking.k8s.io/v1/namespaces/{workload.NAMESPACE}"


@dataclass(frozen=True)
class Ingress:
    """An Ingress as the API returns it."""

    name: str
    ingress_class: str
    addresses: frozenset[IPv4Address]  # of its controller, from its status
    routes: Mapping[str, Mapping[str, str]]  # host -> path -> service
    secrets: Mapping[str, tuple[str, ...]]  # TLS secret -> hosts


def parse_ingress(raw: Mapping[str, Any]) -> Ingress:
    """Return an Ingress from its JSON."""
    spec, status = raw["spec"], raw.get("status", {})
    return Ingress(
        name=raw["metadata"]["name"],
        ingress_class=spec.get("ingressClassName", ""),
        addresses=frozenset(
            IPv4Address(entry["ip"]) for entry in status.get("loadBalancer", {}).get("ingress", ()) if entry.get("ip")
        ),
        routes={
            rule.get("host", ""): {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]}
            for rule in spec.get("rules", ())
        },
        secrets={entry["secretName"]: tuple(entry.get("hosts", ())) for entry in spec.get("tls", ())},
    )


@dataclass(frozen=True)
class Gateway:
    """The status of a Gateway."""

    addresses: frozenset[str]
    conditions: Mapping[str, str]  # type -> "True", "False" or "Unknown"
    routes: Mapping[str, int]  # listener -> how many routes are attached


def conditions(given: Mapping[str, Any]) -> dict[str, str]:
    """Return the conditions of a status, type -> status."""
    return {condition["type"]: condition["status"] for condition in given.get("conditions", ())}


class Objects(Observations):
    """The Kubernetes objects of a running lab. Each change is undone when the ``with`` block ends."""

    def ingress(self, name: str) -> Ingress:
        """Return the present state of an Ingress of the verification workload; raise ClaimFailed when there is none."""
        status, found = self.api("GET", f"{INGRESSES}/{name}")
        if status != 200:
            raise ClaimFailed(f"there is no Ingress {name}: {found.get('message', status)}")
        return parse_ingress(found)

    def gateway(self, name: str) -> Gateway:
        """Return the present status of a Gateway of the verification workload; raise ClaimFailed when there is none."""
        status = self._gateway_api("gateways", name)
        return Gateway(
            frozenset(address["value"] for address in status.get("addresses", ())),
            conditions(status),
            {listener["name"]: listener["attachedRoutes"] for listener in status.get("listeners", ())},
        )

    def route_conditions(self, name: str) -> dict[str, str]:
        """Return the present conditions of an HTTPRoute of the workload at its Gateway; {} before it has any."""
        parents = self._gateway_api("httproutes", name).get("parents", ())
        return conditions(parents[0]) if parents else {}

    def _gateway_api(self, kind: str, name: str) -> Mapping[str, Any]:
        status, found = self.api("GET", f"{GATEWAY_API}/{kind}/{name}")
        if status != 200:
            raise ClaimFailed(f"there is none of the {kind} with the name {name}: {found.get('message', status)}")
        given: Mapping[str, Any] = found.get("status", {})
        return given

    def endpoints(self, service: str, *, ending: bool = False) -> set[str]:
        """Return the ready endpoints of a service of the workload, ``10.244.1.2:8080``; with ``ending`` all of them."""
        query = f"labelSelector=kubernetes.io%2Fservice-name%3D{service}"
        _, found = self.api("GET", f"/apis/discovery.k8s.io/v1/namespaces/{workload.NAMESPACE}/endpointslices?{query}")
        known = API_ENDPOINTS.parse(json.dumps(found))
        return {f"{endpoint.address}:{endpoint.port}" for endpoint in known if endpoint.ready or ending}

    @contextmanager
    def scaled(self, deployment: str, replicas: int) -> Iterator[set[str]]:
        """Scale a deployment of the workload while the body runs; yield its endpoints once all are ready."""
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
        """Create an object and delete it when the body ends; raise ClusterError when the API refuses it."""
        status, answer = self.api("POST", path, body)
        if status not in {201, 409}:  # 409: left by a killed run
            raise ClusterError(
                f"{body['kind']} can't be made: {answer.get('message', status)}", remedy="see `./lab status`"
            )
        try:
            yield
        finally:
            self.api("DELETE", f"{path}/{body['metadata']['name']}")

    @contextmanager
    def edited(self, path: str, edit: Callable[[dict[str, Any]], None]) -> Iterator[None]:
        """Edit an object and restore its spec, data and annotations when the body ends."""
        before = self._edit(path, edit)

        def restore(found: dict[str, Any]) -> None:
            found.update({key: before[key] for key in ("spec", "data") if key in before})
            found.setdefault("metadata", {})["annotations"] = before.get("metadata", {}).get("annotations", {})

        try:
            yield
        finally:
            self._edit(path, restore)

    def _edit(self, path: str, edit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Edit an object, and retry after a conflict with another writer; return the object before the edit."""
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
