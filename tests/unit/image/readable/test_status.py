"""The status of GatewayClasses, Gateways and HTTPRoutes: conditions, addresses, numbers of routes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import yaml

from hoplab.image.readable.gateway import gateways
from hoplab.image.readable.status import gateway_statuses
from tests.support.gateway_objects import cluster, elsewhere, gateway, route, to
from tests.support.readable_objects import Seen

API = "/apis/gateway.networking.k8s.io/v1"
WAY, WEB = f"{API}/namespaces/shop/gateways/way/status", f"{API}/namespaces/shop/httproutes/web/status"
CLASS = f"{API}/gatewayclasses/readable/status"
NOW, LATER = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC)
NODES = ("192.168.77.20", "192.168.77.21")


def web(name: str = "web", **spec: Any) -> Any:
    return route(name, yaml.safe_dump({"rules": [to("one")], **spec}))


def told(seen: Seen, addresses: tuple[str, ...] = NODES, refused: str = "", now: datetime = NOW) -> dict[str, Any]:
    found = gateway_statuses(gateways(seen), seen, addresses, refused, now)
    return {path: body["status"] for path, body in found.items()}


def short(conditions: list[dict[str, Any]]) -> dict[str, str]:
    """Type -> "True Reason"."""
    return {found["type"]: f"{found['status']} {found['reason']}" for found in conditions}


def test_all_is_well() -> None:
    found = told(cluster(gateway(), web()))
    assert set(found) == {CLASS, WAY, WEB}
    assert short(found[CLASS]["conditions"]) == {"Accepted": "True Accepted"}
    way = found[WAY]
    assert way["addresses"] == [{"type": "IPAddress", "value": address} for address in NODES]
    assert short(way["conditions"]) == {"Accepted": "True Accepted", "Programmed": "True Programmed"}
    (listener,) = way["listeners"]
    assert (listener["name"], listener["attachedRoutes"]) == ("http", 1)
    assert listener["supportedKinds"] == [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}]
    assert short(listener["conditions"]) == {
        "Accepted": "True Accepted",
        "ResolvedRefs": "True ResolvedRefs",
        "Programmed": "True Programmed",
        "Conflicted": "False NoConflicts",
    }
    (parent,) = found[WEB]["parents"]
    assert (parent["parentRef"], parent["controllerName"]) == ({"name": "way"}, "hoplab.local/readable")
    assert short(parent["conditions"]) == {"Accepted": "True Accepted", "ResolvedRefs": "True ResolvedRefs"}
    assert way["conditions"][0] == {
        "type": "Accepted",
        "status": "True",
        "reason": "Accepted",
        "message": "",
        "observedGeneration": 3,
        "lastTransitionTime": "2026-01-02T00:00:00Z",
    }


def written(seen: Seen, statuses: dict[str, Any]) -> None:
    """Put statuses into the objects, as the API server does."""
    for path, kind, name in (
        (CLASS, "GatewayClass", "/readable"),
        (WAY, "Gateway", "shop/way"),
        (WEB, "HTTPRoute", "shop/web"),
    ):
        seen[kind][name]["status"] = statuses.get(path, seen[kind][name].get("status", {}))


def test_what_is_right_is_not_written_again() -> None:
    seen = cluster(gateway(), web())
    written(seen, told(seen))
    assert told(seen, now=LATER) == {}


def test_a_condition_keeps_its_time_while_it_is_what_it_was() -> None:
    seen = cluster(gateway(), web())
    written(seen, told(seen))
    seen["Gateway"]["shop/way"]["metadata"]["generation"] = 4
    found = told(seen, now=LATER)
    assert set(found) == {WAY}
    times = {condition["lastTransitionTime"] for condition in found[WAY]["conditions"]}
    assert times == {"2026-01-02T00:00:00Z"} and found[WAY]["conditions"][0]["observedGeneration"] == 4
    refused = told(seen, refused="bad", now=LATER)[WAY]["conditions"]
    assert [condition["lastTransitionTime"] for condition in refused] == [
        "2026-01-02T00:00:00Z",
        "2026-01-03T00:00:00Z",
    ]


def test_a_gateway_with_a_wrong_listener() -> None:
    listeners = "[{name: http, port: 80, protocol: HTTP}, {name: tcp, port: 90, protocol: TCP}]"
    found = told(cluster(gateway(listeners=listeners), web()))[WAY]
    assert short(found["conditions"]) == {"Accepted": "True ListenersNotValid", "Programmed": "True Programmed"}
    good, wrong = found["listeners"]
    assert (good["attachedRoutes"], wrong["attachedRoutes"], wrong["supportedKinds"]) == (1, 0, [])
    assert short(good["conditions"])["Programmed"] == "True Programmed"
    assert short(wrong["conditions"]) == {
        "Accepted": "False UnsupportedProtocol",
        "ResolvedRefs": "True ResolvedRefs",
        "Programmed": "False Invalid",
        "Conflicted": "False NoConflicts",
    }


def test_a_gateway_without_a_right_listener() -> None:
    found = told(cluster(gateway(listeners="[{name: tcp, port: 90, protocol: TCP}]")))[WAY]
    assert short(found["conditions"]) == {"Accepted": "False ListenersNotValid", "Programmed": "False Invalid"}


def test_a_listener_in_conflict() -> None:
    young = gateway("young", creationTimestamp="2026-01-02T00:00:00Z")
    found = told(cluster(gateway(), young))[f"{API}/namespaces/shop/gateways/young/status"]
    conditions = short(found["listeners"][0]["conditions"])
    assert (conditions["Conflicted"], conditions["Accepted"]) == ("True HostnameConflict", "False HostnameConflict")


def test_gateways_that_are_not_programmed() -> None:
    seen = cluster(gateway())
    assert short(told(seen, addresses=())[WAY]["conditions"])["Programmed"] == "False AddressNotAssigned"
    refused = told(seen, refused="unknown directive")[WAY]["conditions"][1]
    assert (refused["reason"], refused["message"]) == ("Invalid", "nginx refuses the configuration: unknown directive")


def test_addresses_are_the_nodes() -> None:
    asking = gateway()
    asking["spec"]["addresses"] = [{"value": "10.0.0.1"}]
    assert short(told(cluster(asking))[WAY]["conditions"])["Accepted"] == "False UnsupportedAddress"


def test_routes_that_are_not_accepted_are_not_counted() -> None:
    listeners = "[{name: http, port: 80, protocol: HTTP, hostname: a.com}]"
    found = told(cluster(gateway(listeners=listeners), web(hostnames=["b.com"])))
    assert found[WAY]["listeners"][0]["attachedRoutes"] == 0
    conditions = found[WEB]["parents"][0]["conditions"]
    assert short(conditions)["Accepted"] == "False NoMatchingListenerHostname"
    assert conditions[0]["message"] == "no listener of shop/way is for a host of this route"


def test_parents_of_other_controllers_stay() -> None:
    asked = web()
    other = {"parentRef": {"name": "theirs"}, "controllerName": "example.org/other", "conditions": []}
    ours = {"parentRef": {"name": "gone"}, "controllerName": "hoplab.local/readable", "conditions": []}
    asked["status"] = {"parents": [ours, other]}
    names = [parent["parentRef"]["name"] for parent in told(cluster(gateway(), asked))[WEB]["parents"]]
    assert names == ["theirs", "way"]
    asked["spec"]["parentRefs"] = []
    assert told(cluster(gateway(), asked))[WEB] == {"parents": [other]}, "what is ours no more is taken away"


def test_conditions_of_others_stay() -> None:
    """Upstream's suite calls these tests provisional: GatewayPreserveForeignConditions and the one of HTTPRoutes."""
    seen = cluster(gateway(), web())
    written(seen, told(seen))
    theirs = {"type": "example.org/Seen", "status": "True", "observedGeneration": 1, "lastTransitionTime": "2026-01-01"}
    way, asked = seen["Gateway"]["shop/way"], seen["HTTPRoute"]["shop/web"]
    status = way["status"], way["status"]["listeners"][0], asked["status"]["parents"][0]
    for each in (*status, seen["GatewayClass"]["/readable"]["status"]):
        each["conditions"].append(theirs)
    assert told(seen, now=LATER) == {}, "it is right as it is"
    for item in (way, asked, seen["GatewayClass"]["/readable"]):
        item["metadata"]["generation"] = 9
    found = told(seen, now=LATER)
    ours = found[WAY], found[WAY]["listeners"][0], found[WEB]["parents"][0], found[CLASS]
    for each in ours:
        *own, last = each["conditions"]
        assert last == theirs and {condition["observedGeneration"] for condition in own} == {9}


def test_a_status_is_written_on_the_version_that_it_was_made_of() -> None:
    """What somebody writes in between is in the list that replaces theirs, or nothing is written."""
    seen = cluster(gateway(resourceVersion="17"), web())
    bodies = gateway_statuses(gateways(seen), seen, NODES, "", NOW)
    assert bodies[WAY]["metadata"] == {"resourceVersion": "17"}


def test_nothing_is_written_on_what_is_not_ours() -> None:
    theirs = gateway("way")
    theirs["spec"]["gatewayClassName"] = "other"
    assert set(told(cluster(theirs, elsewhere(web())))) == {CLASS}
    seen = cluster(gateway(), web())
    del seen["Gateway"]
    assert told(seen) == {}
