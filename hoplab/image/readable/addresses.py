"""Where each Gateway is reached: a Service of type LoadBalancer of its own, in front of all our pods; pure.

    Gateway -> ports()           -> the ports of its listeners that can be served
            -> doors()           -> for each of them a port of our pods, where nginx listens for this Gateway alone
            -> service_changes() -> the requests to the API that make its Service right
    Service -> addresses_of()    -> the addresses that the load balancer gave it

So two Gateways may both have the port 80, each with an address of its own. A lab without a load balancer has no such
Services (``home`` is None): its Gateways share the nodes' addresses and their ports 80 and 443 with the Ingresses.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hoplab.image.readable.api import Object, key
from hoplab.image.readable.objects import CONTROLLER, HTTP, HTTPS, Objects

PORTS = {"HTTP": 80, "HTTPS": 443}  # the protocols of listeners that are served; with the nodes' addresses, their ports
SHARED = {80: HTTP, 443: HTTPS}  # the doors of all Gateways that share the nodes' addresses
FIRST, MOST = 10_000, 20_000  # the doors of all others: the first one, and how many there are
OWNER = f"{CONTROLLER}-gateway"  # the annotation of a Service with the Gateway that it is for


@dataclass(frozen=True)
class Home:
    """The namespace of our pods, where the Services of Gateways are made, and the label of these pods."""

    namespace: str
    selector: str  # "app=ingress"


Change = tuple[str, str, Object]  # method, path and body of a request to the API
Doors = Mapping[tuple[str, int], int]  # a Gateway's "namespace/name" and port -> the port of our pods


def ports(gateway: Object) -> dict[int, str]:
    """The ports of a Gateway with their protocols: of two protocols the first one has the port."""
    found: dict[int, str] = {}
    for listener in gateway["spec"]["listeners"]:
        if listener["protocol"] in PORTS:
            found.setdefault(listener["port"], listener["protocol"])
    return found


def doors(gateways: Iterable[Object], home: Home | None) -> Doors:
    """The doors of all Gateways, which come with the oldest first.

    A door follows from names, so all pods find the same. Where two are equal, the older Gateway keeps its own.
    """
    found: dict[tuple[str, int], int] = {}
    for gateway in gateways:
        for port in sorted(ports(gateway)):
            place = (key(gateway), port)
            if home is None:
                found[place] = SHARED.get(port, 0)
                continue
            start, used = zlib.crc32(f"{place}".encode()), set(found.values())
            tried = (FIRST + (start + step) % MOST for step in range(MOST))
            found[place] = next(door for door in tried if door not in used)
    return found


def name(gateway: str) -> str:
    """The name of a Gateway's Service. Names of Services are shorter, and those of two namespaces meet here."""
    _, _, short = gateway.partition("/")
    return f"gateway-{re.sub('[^a-z0-9]+', '-', short)[:40]}-{hashlib.sha256(gateway.encode()).hexdigest()[:8]}"


def service_changes(gateways: Iterable[Object], seen: Objects, home: Home | None) -> Iterator[Change]:
    """The requests that make the Services of all Gateways right, and remove those of Gateways that are gone."""
    if home is None:
        return
    every = list(gateways)
    at = doors(every, home)
    path = f"/api/v1/namespaces/{home.namespace}/services"
    wanted = set()
    for gateway in every:
        own = [_port(port, at[key(gateway), port]) for port in sorted(ports(gateway))]
        if not own:
            continue
        wanted.add(key(gateway))
        service = seen["Service"].get(f"{home.namespace}/{name(key(gateway))}")
        if service is None:
            yield "POST", path, _service(key(gateway), own, home)
        elif [_port(given["port"], given["targetPort"]) for given in service["spec"].get("ports", ())] != own:
            yield "PATCH", f"{path}/{service['metadata']['name']}", {"spec": {"ports": own}}
    for service in seen["Service"].values():
        owner = service["metadata"].get("annotations", {}).get(OWNER)
        if owner and owner not in wanted and service["metadata"]["namespace"] == home.namespace:
            yield "DELETE", f"{path}/{service['metadata']['name']}", {}


def _port(port: int, door: int) -> dict[str, Any]:
    return {"name": f"port-{port}", "port": port, "targetPort": door, "protocol": "TCP"}


def _service(gateway: str, own: list[dict[str, Any]], home: Home) -> dict[str, Any]:
    label, _, value = home.selector.partition("=")
    return {
        "metadata": {"name": name(gateway), "namespace": home.namespace, "annotations": {OWNER: gateway}},
        "spec": {"type": "LoadBalancer", "selector": {label: value}, "ports": own},
    }


def addresses_of(gateway: str, seen: Objects, home: Home | None, nodes: Iterable[str]) -> list[str]:
    """The addresses of a Gateway: those of the nodes, or what the load balancer gave its Service."""
    if home is None:
        return list(nodes)
    service = seen["Service"].get(f"{home.namespace}/{name(gateway)}", {})
    given = service.get("status", {}).get("loadBalancer", {}).get("ingress", ())
    return [address["ip"] for address in given if address.get("ip")]
