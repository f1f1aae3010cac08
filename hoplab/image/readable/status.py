"""What people are told: the status of Ingresses, GatewayClasses, Gateways and HTTPRoutes, and Events; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hoplab.image.readable.addresses import Home, addresses_of
from hoplab.image.readable.api import Object, key
from hoplab.image.readable.gateway import Attachment, Gateways, Listener, our_classes, our_gateways
from hoplab.image.readable.ingress import Complaint, ours
from hoplab.image.readable.objects import CONTROLLER, Objects
from hoplab.image.readable.routes import GROUP, Problem

# The names by which upstream's conformance tests know what we can (GatewayClass.status), in alphabetical order.
FEATURES = (
    "Gateway",
    "GatewayHTTPListenerIsolation",
    "GatewayPort8080",
    "GatewayRouteHostnameIntersectionPrecedence",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
    "ReferenceGrant",
)
WRONG = ("Conflicted",)  # the conditions that are true where something is wrong
GRACE = 5.0  # seconds that something has to be wrong before people are told


@dataclass(frozen=True)
class Told:
    """What is to be told: the status of each of our Ingresses, and Events."""

    statuses: Mapping[str, list[dict[str, str]]]
    complaints: tuple[Complaint, ...]
    addresses: tuple[str, ...] = ()  # where all is served: those of the nodes


def told(seen: Objects, complaints: Iterable[Complaint], pod: str, written: Iterable[str] = ()) -> Told | None:
    """What this pod has to tell the API; None when another one does it: the first that is ready, by name.

    An Ingress whose status was ``written`` and that is ours no more loses it, unless somebody else wrote it since.
    """
    ready = [
        each
        for each in seen["Pod"].values()
        if "deletionTimestamp" not in each["metadata"]
        for condition in each.get("status", {}).get("conditions", ())
        if (condition["type"], condition["status"]) == ("Ready", "True")
    ]
    if not ready or min(each["metadata"]["name"] for each in ready) != pod:
        return None
    addresses = [{"ip": address} for address in sorted({each["status"]["hostIP"] for each in ready})]
    statuses: dict[str, list[dict[str, str]]] = {}
    for name, each in seen["Ingress"].items():
        given = each.get("status", {}).get("loadBalancer", {}).get("ingress", ())
        right = [{"ip": known.get("ip")} for known in given] == addresses
        if ours(each, seen["IngressClass"]):
            if not right:
                statuses[name] = addresses
        elif right and name in written:
            statuses[name] = []
    return Told(statuses, tuple(complaints), tuple(address["ip"] for address in addresses))


def due(complaints: Iterable[Complaint], since: dict[Complaint, float], now: float) -> list[Complaint]:
    """Those that have stood for a while; ``since`` is kept up to date.

    Each kind has a watch of its own: for a moment an Ingress may be known and the service made before it not yet.
    """
    standing = {each: since.get(each, now) for each in complaints}
    since.clear()
    since.update(standing)
    return [each for each, began in standing.items() if now - began >= GRACE]


def event(ingress: Object, complaint: Complaint, now: datetime) -> dict[str, Any]:
    """An Event on an Ingress, as `kubectl describe ingress` shows it."""
    meta = ingress["metadata"]
    at = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "namespace": meta["namespace"],
            "name": meta["name"],
            "uid": meta["uid"],
        },
        "type": "Warning",
        "reason": complaint.reason,
        "message": complaint.message,
        "source": {"component": CONTROLLER},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }


# --- The Gateway API


def gateway_statuses(
    found: Gateways, seen: Objects, nodes: Iterable[str], refused: str, now: datetime, home: Home | None = None
) -> dict[str, dict[str, Any]]:
    """The bodies of the PATCH requests that make each status right, by their paths; only of those that are not.

    ``nodes`` are the addresses of the nodes; ``refused`` is what nginx has against the configuration, "" where it
    serves it. A list of a status may have entries of others, and a PATCH replaces the whole list: each names the
    version that it is made of, so that the API server refuses it where somebody wrote since.
    """
    if "Gateway" not in seen:
        return {}
    features = [name for name in FEATURES if home or name != "GatewayPort8080"]
    wanted = [(f"gatewayclasses/{name}", item, _class(item, features, now)) for name, item in our_classes(seen).items()]
    for gateway in our_gateways(seen):
        own = [listener for listener in found.listeners if listener.gateway == key(gateway)]
        at = addresses_of(key(gateway), seen, home, nodes)
        body = _gateway(gateway, own, found.attachments, at, refused, now)
        wanted.append((_path(gateway, "gateways"), gateway, body))
    for route in seen["HTTPRoute"].values():
        body = _route(route, [each for each in found.attachments if each.route == key(route)], now)
        wanted.append((_path(route, "httproutes"), route, body))
    return {
        f"/apis/{GROUP}/v1/{path}/status": {
            "metadata": {"resourceVersion": item["metadata"].get("resourceVersion", "")},
            "status": body,
        }
        for path, item, body in wanted
        if any(item.get("status", {}).get(field) != value for field, value in body.items())
    }


def _path(item: Object, kind: str) -> str:
    return f"namespaces/{item['metadata']['namespace']}/{kind}/{item['metadata']['name']}"


def _class(item: Object, features: Iterable[str], now: datetime) -> dict[str, Any]:
    known = item.get("status", {}).get("conditions", ())
    return {
        "conditions": conditions({"Accepted": "Accepted"}, (), item, known, now),
        "supportedFeatures": [{"name": name} for name in features],
    }


def _gateway(
    gateway: Object,
    listeners: list[Listener],
    attachments: Iterable[Attachment],
    at: list[str],
    refused: str,
    now: datetime,
) -> dict[str, Any]:
    status = gateway.get("status", {})
    problems = []
    if gateway["spec"].get("addresses"):
        problems.append(Problem("Accepted", "UnsupportedAddress", "a Gateway cannot choose its addresses"))
    wrong = [listener.name for listener in listeners if not listener.served]
    if len(wrong) == len(listeners):
        problems.append(Problem("Accepted", "ListenersNotValid", "no listener is valid"))
        problems.append(Problem("Programmed", "Invalid", "no listener is valid"))
    elif refused:
        problems.append(Problem("Programmed", "Invalid", f"nginx refuses the configuration: {refused}"))
    elif not at:
        text = "no pod of the controller is ready, or the load balancer gave no address"
        problems.append(Problem("Programmed", "AddressNotAssigned", text))
    good = {"Accepted": "ListenersNotValid" if wrong else "Accepted", "Programmed": "Programmed"}
    known = {entry["name"]: entry for entry in status.get("listeners", ())}
    attached = [listener for attachment in attachments for listener, _ in attachment.listeners]
    return {
        "addresses": [{"type": "IPAddress", "value": address} for address in at],
        "conditions": conditions(good, problems, gateway, status.get("conditions", ()), now),
        "listeners": [
            {
                "name": listener.name,
                "supportedKinds": [{"group": GROUP, "kind": kind} for kind in listener.kinds],
                "attachedRoutes": attached.count(listener),
                "conditions": _listener(listener, gateway, known.get(listener.name, {}).get("conditions", ()), now),
            }
            for listener in listeners
        ],
    }


def _listener(listener: Listener, gateway: Object, known: Iterable[Object], now: datetime) -> list[dict[str, Any]]:
    names = {
        "Accepted": "Accepted",
        "ResolvedRefs": "ResolvedRefs",
        "Programmed": "Programmed",
        "Conflicted": "NoConflicts",
    }
    problems = list(listener.problems)
    if not listener.served:
        problems.append(Problem("Programmed", "Invalid", "it is not served"))
    return conditions(names, problems, gateway, known, now)


def _route(route: Object, attachments: Iterable[Attachment], now: datetime) -> dict[str, Any]:
    """The parents of a route: those of other controllers as they are, ours as they are now."""
    known = route.get("status", {}).get("parents", [])
    others = [entry for entry in known if entry["controllerName"] != CONTROLLER]
    good = {"Accepted": "Accepted", "ResolvedRefs": "ResolvedRefs"}
    mine = []
    for attachment in attachments:
        before: Object = next(
            (entry for entry in known if entry not in others and entry["parentRef"] == attachment.parent), {}
        )
        found = conditions(good, attachment.problems, route, before.get("conditions", ()), now)
        mine.append({"parentRef": attachment.parent, "controllerName": CONTROLLER, "conditions": found})
    return {"parents": [*others, *mine]} if [*others, *mine] != known else {}


def conditions(
    names: Mapping[str, str], problems: Iterable[Problem], item: Object, known: Iterable[Object], now: datetime
) -> list[dict[str, Any]]:
    """Conditions with their reasons where nothing is wrong; with the first problem of each in its place.

    Those that are ``known`` of other types follow as they are: somebody else writes them.
    """
    first: dict[str, Problem] = {}
    for problem in problems:
        first.setdefault(problem.condition, problem)
    ours = [
        _condition(name, (name in first) == (name in WRONG), first.get(name, reason), item, known, now)
        for name, reason in names.items()
    ]
    return [*ours, *(dict(entry) for entry in known if entry["type"] not in names)]


def _condition(
    name: str, true: bool, why: Problem | str, item: Object, known: Iterable[Object], now: datetime
) -> dict[str, Any]:
    """A condition; its time is that of the last change from true to false or back."""
    status = "True" if true else "False"
    before = next((entry for entry in known if (entry["type"], entry["status"]) == (name, status)), None)
    return {
        "type": name,
        "status": status,
        "reason": why.reason if isinstance(why, Problem) else why,
        "message": why.message if isinstance(why, Problem) else "",
        "observedGeneration": item["metadata"].get("generation", 0),
        "lastTransitionTime": before["lastTransitionTime"] if before else now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
