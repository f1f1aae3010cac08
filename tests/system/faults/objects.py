"""Faults of Kubernetes objects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import Any

from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS
from hoplab.observe.snapshot import Node
from hoplab.verify.session import LabSession
from tests.system.faults.fault import Broken
from tests.system.faults.site import Site, wait


def edited(path: str, edit: Callable[[dict[str, Any]], None], noticed: Callable[[LabSession, Node], bool]) -> Broken:
    """An object is another one, and the ingress controller of every node has noticed."""

    @contextmanager
    def hurt(site: Site) -> Iterator[None]:
        with site.session.edited(path, edit):
            for node in site.session.snapshot.nodes:
                wait(lambda node=node: noticed(site.session, node))  # type: ignore[misc]
            yield

    return hurt


def made(
    path: str, body: Callable[[LabSession], dict[str, Any]], noticed: Callable[[LabSession, Node], bool]
) -> Broken:
    """There is an object more, and the ingress controller of every node has noticed."""

    @contextmanager
    def hurt(site: Site) -> Iterator[None]:
        with site.session.created(path, body(site.session)):
            for node in site.session.snapshot.nodes:
                wait(lambda node=node: noticed(site.session, node))  # type: ignore[misc]
            yield

    return hurt


def posted(path: str, body: Mapping[str, Any], status: Mapping[str, Any]) -> Broken:
    """An object that nobody made, with a status that nobody reported, on a node whose kubelet stands still."""

    @contextmanager
    def hurt(site: Site) -> Iterator[None]:
        filled = _filled(body, site.words)
        name = filled["metadata"]["name"]
        site.run("kill -STOP $(pidof kubelet)")
        try:
            code, made = site.session.api("POST", path, filled)
            assert code == 201, made
            code, answer = site.session.api(
                "PUT", f"{path}/{name}/status", {**made, "status": _filled(status, site.words)}
            )
            assert code == 200, answer
            yield
        finally:
            site.session.api("DELETE", f"{path}/{name}?gracePeriodSeconds=0")
            site.run("kill -CONT $(pidof kubelet)")

    return hurt


def _filled(value: Any, words: Mapping[str, object]) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, words) for item in value]
    return value.format(**words) if isinstance(value, str) else value


def moved_service(namespace: str, name: str, address: str) -> Broken:
    """A service has another ClusterIP. (Services can't be changed so: it is deleted and made anew, twice.)"""

    @contextmanager
    def hurt(site: Site) -> Iterator[None]:
        path = f"/api/v1/namespaces/{namespace}/services"
        code, before = site.session.api("GET", f"{path}/{name}")
        assert code == 200, before
        again = {key: value for key, value in before.items() if key != "status"}
        again["metadata"] = {key: before["metadata"].get(key, {}) for key in ("name", "labels", "annotations")}

        def endpoints() -> set[IPv4Address]:
            code, found = site.session.api("GET", API_ENDPOINTS.command)
            assert code == 200, found
            return {
                endpoint.address
                for endpoint in API_ENDPOINTS.parse(json.dumps(found))
                if (endpoint.namespace, endpoint.service) == (namespace, name) and endpoint.ready
            }

        behind = endpoints()

        def replace(to: str) -> None:
            site.session.api("DELETE", f"{path}/{name}")
            spec = {**again["spec"], "clusterIP": to, "clusterIPs": [to]}
            code, answer = site.session.api("POST", path, {**again, "spec": spec})
            assert code == 201, answer
            wait(lambda: endpoints() == behind)

        replace(address)
        try:
            yield
        finally:
            replace(before["spec"]["clusterIP"])

    return hurt


@contextmanager
def not_ready(site: Site) -> Iterator[None]:
    """The API says that the node is not Ready, and its kubelet can't object."""
    path = f"/api/v1/nodes/{site.node.name}"
    site.run("kill -STOP $(pidof kubelet)")
    try:
        _, node = site.session.api("GET", path)
        conditions = [condition for condition in node["status"]["conditions"] if condition["type"] != "Ready"]
        broken = {"type": "Ready", "status": "False", "reason": "Broken", "message": "broken by hand"}
        status = {**node["status"], "conditions": [*conditions, broken]}
        code, answer = site.session.api("PUT", f"{path}/status", {**node, "status": status})
        assert code == 200, answer
        yield
    finally:
        site.run("kill -CONT $(pidof kubelet)")
