"""Imaginary labs with the Gateway API, served by the ingress controller or beside it, with a switch for each fault."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from hoplab.expectations.gateway import nginx
from hoplab.spec.model import AddressRange
from hoplab.verify import gateway_workload
from hoplab.verify.external import Reply
from hoplab.verify.observations import GATEWAY_NAME
from hoplab.verify.session import LabSession
from hoplab.verify.workload import APP1, APP2, NAMESPACE
from tests.support import fabric
from tests.support.imaginary import ingress
from tests.support.imaginary.ingress import FIRST, FRONTS, PATIENCE, PODS
from tests.support.lesson_functions import lessons

__all__ = ["FABRICS_FAULTS", "FAULTS", "PATIENCE", "RECORDED", "Fabric", "World", "names"]

HOST = gateway_workload.HOST
POOL = AddressRange(IPv4Address("192.168.77.245"), IPv4Address("192.168.77.254"))


def _recorded() -> Any:
    setting = replace(ingress.RECORDED.setting, gateway_api=True, load_balancer="none", pool=None)
    lab = replace(ingress.RECORDED, setting=setting)
    vars(lab)["pods"] = ingress.RECORDED.pods
    return lab


RECORDED = _recorded()


@dataclass
class World(ingress.World):
    """A lab with a Gateway and a route that only talk."""

    accepted: str = "True"
    programmed: str = "True"
    at_nodes: bool = True
    own: str = ""  # the address that a load balancer gave the Gateway; "" in a lab without one
    attached: int = 1
    route_accepted: str = "True"
    route_resolved: str = "True"
    login: str = APP2
    by_query: str = APP2
    query_before_path: bool = False
    configured: bool = True
    has_server: bool = True

    def fetch(self, url: str, to: IPv4Address, _timeout: float, _ca: Path | None = None, body: bytes = b"") -> Reply:
        asked = re.findall(r"\w+://[^/]+(/.*)", url)[0]
        if not self.answers or (self.own and str(to) != self.own):
            return Reply(why="connection refused")
        path, _, query = asked.partition("?")
        chosen = self.by_query if query == "version=2" else APP1
        if path.startswith("/login"):
            chosen = self.login
        elif path == gateway_workload.VERSION and not self.query_before_path:
            chosen = APP1
        node = FIRST if to == FIRST.address else ingress.SECOND
        return Reply(200, self._told(node.name, "http", HOST, asked, PODS[chosen][0]))

    def _configuration(self) -> str:
        rules = (APP1, APP2, APP1)
        pods = {APP1: PODS[APP1][:2], APP2: PODS[APP2][:1]}
        lines = [
            f"upstream {service} {{ {' '.join(f'server {pod}:8080;' for pod in ready)} }}"
            for service, ready in pods.items()
        ]
        locations = " ".join(
            f"location = {NAMESPACE}/{gateway_workload.NAME}/{number} {{ proxy_pass http://{service}$request_uri; }}"
            for number, service in enumerate(rules if self.configured else rules[:2])
        )
        return "\n".join([*lines, f"server {{ server_name {HOST if self.has_server else 'x'}; {locations} }}"])

    def api(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        if "gateway.networking.k8s.io" not in path:
            return super().api(method, path, body)
        if not self.there:
            return 404, {"message": "not found"}
        if "/gateways/" in path:
            nodes = [{"value": str(node.address)} for node in RECORDED.nodes] if self.at_nodes else []
            if self.own:
                nodes = [{"value": self.own}]
            given = {"Accepted": self.accepted, "Programmed": self.programmed}
            listeners = [{"name": gateway_workload.LISTENER, "attachedRoutes": self.attached}]
            return 200, {"status": {"addresses": nodes, "conditions": _conditions(given), "listeners": listeners}}
        given = {"Accepted": self.route_accepted, "ResolvedRefs": self.route_resolved}
        return 200, {"status": {"parents": [{"conditions": _conditions(given)}]}}

    def session(self) -> LabSession:
        lab = RECORDED
        if not self.fronts:
            lab = replace(RECORDED)
            vars(lab)["pods"] = (FRONTS[FIRST.name],)
        if self.own:
            lab = replace(RECORDED, setting=replace(RECORDED.setting, load_balancer="metallb", pool=POOL))
            vars(lab)["pods"] = RECORDED.pods
        return replace(super().session(), snapshot=lab)


def _of_fabric() -> Any:
    """The lab with a pod of the Gateway on its second node."""
    has = replace(RECORDED.setting, gateway_api=False, gateway_controller="nginx", load_balancer="metallb", pool=POOL)
    lab = replace(RECORDED, setting=has)
    front = FRONTS[ingress.SECOND.name]
    labels = {GATEWAY_NAME: gateway_workload.NAME, **(nginx.LABELS or {})}
    of_gateway = replace(
        front, api=replace(front.api, namespace=NAMESPACE, name="way-nginx-1", labels=tuple(labels.items()))
    )
    vars(lab)["pods"] = (*RECORDED.pods, of_gateway)
    return lab


@dataclass
class Fabric(World):
    """A lab where NGINX Gateway Fabric serves the Gateway, in a pod of its own."""

    own: str = "192.168.77.245"
    listed: bool = True  # the rule that asks for a query parameter, in matches.json
    of_another: bool = False  # whether the pod belongs to another Gateway

    def _configuration(self) -> str:
        of_app1, of_app2 = (f"{NAMESPACE}_{app}_80" for app in (APP1, APP2))
        by_query = {"params": ["version=Exact=2"], "redirectPath": "/_ngf-internal-rule2-route0"}
        every = {"any": True, "redirectPath": "/_ngf-internal-rule2-route1"}
        locations = [
            fabric.matching("/", "1_2"),
            fabric.location("/_ngf-internal-rule2-route0", of_app2),
            fabric.location("/_ngf-internal-rule2-route1", of_app1),
            *(fabric.location(words, of_app2) for words in ("/login/", "= /login")),
            *(fabric.location(words, of_app1) for words in ("/app/", "= /app") if self.configured),
        ]
        return fabric.http_conf(
            {HOST if self.has_server else "x": locations},
            fabric.upstream(of_app1, *(f"{pod}:8080" for pod in PODS[APP1][:2])),
            fabric.upstream(of_app2, *(f"{pod}:8080" for pod in PODS[APP2][:1])),
            matches={"1_2": [by_query, every] if self.listed else [every]},
        )

    def session(self) -> LabSession:
        lab = OF_FABRIC
        if not self.fronts or self.of_another:
            lab = replace(OF_FABRIC)
            *others, own = OF_FABRIC.pods
            named = replace(own, api=replace(own.api, labels=((GATEWAY_NAME, "other"), *own.api.labels[1:])))
            vars(lab)["pods"] = (*others, named) if self.of_another else tuple(others)
        return replace(super().session(), snapshot=lab)


OF_FABRIC = _of_fabric()


def _conditions(given: dict[str, str]) -> list[dict[str, str]]:
    return [{"type": name, "status": status} for name, status in given.items()]


SAYS, DECIDES, LOCATION = (
    "a_gateway_says_what_it_serves",
    "a_route_decides_by_more_than_the_path",
    "each_rule_of_a_route_is_a_location",
)
FAULTS = (
    ("accepted", "False", (SAYS,), "the Gateway way is not Accepted"),
    ("programmed", "False", (SAYS,), "the Gateway way is not Programmed"),
    ("at_nodes", False, (SAYS,), "way has the addresses nothing, not those of the nodes"),
    ("own", "10.0.0.1", (SAYS,), "way has the addresses 10.0.0.1, not one of the load balancer's, 192.168.77.245-192"),
    ("attached", 0, (SAYS,), "way has other routes than one at its listener"),
    ("route_accepted", "False", (SAYS,), "the HTTPRoute way is not Accepted by its Gateway"),
    ("route_resolved", "Unknown", (SAYS,), "the HTTPRoute way is not ResolvedRefs by its Gateway"),
    ("there", False, (SAYS,), "there is none of the gateways with the name way: not found"),
    ("login", APP1, (DECIDES,), "answers for way.yash.com/login, which is no pod of app2-service"),
    ("by_query", APP1, (DECIDES,), "answers for way.yash.com/?version=2, which is no pod of app2-service"),
    ("query_before_path", True, (DECIDES,), "answers for way.yash.com/app?version=2, which is no pod of app1-service"),
    ("answers", False, (DECIDES,), "http://way.yash.com/ gets no answer (connection refused)"),
    ("configured", False, (LOCATION,), "sends the rule hoplab-verify/way/2 to nothing, not to"),
    ("has_server", False, (LOCATION,), "has no server block for way.yash.com"),
    ("fronts", False, (LOCATION,), "no pod of the ingress controller runs on worker2"),
)


FABRICS_FAULTS = (
    ("own", "10.0.0.1", (SAYS,), "way has the addresses 10.0.0.1, not one of the load balancer's, 192.168.77.245-192"),
    ("by_query", APP1, (DECIDES,), "answers for way.yash.com/?version=2, which is no pod of app2-service"),
    ("configured", False, (LOCATION,), "way-nginx-1 sends the rule hoplab-verify/way/2 to nothing, not to"),
    ("listed", False, (LOCATION,), "way-nginx-1 sends the rule hoplab-verify/way/1 to nothing, not to"),
    ("has_server", False, (LOCATION,), "way-nginx-1 has no server block for way.yash.com"),
    ("fronts", False, (LOCATION,), "no pod that serves the Gateway way runs on any node"),
    ("of_another", True, (LOCATION,), "no pod that serves the Gateway way runs on any node"),
)


def names() -> tuple[str, ...]:
    """The lessons about the Gateway API."""
    return tuple(name for name, found in lessons().items() if "test_08_routes" in found.function.__code__.co_filename)
