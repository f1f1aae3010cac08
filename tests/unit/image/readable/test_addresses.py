"""Where Gateways are reached: their Services, the ports of the pods, the addresses."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from typing import Any

import pytest

from hoplab.image.readable import addresses
from hoplab.image.readable.addresses import Home, addresses_of, doors, name, ports, service_changes
from hoplab.image.readable.api import key
from hoplab.image.readable.gateway import gateways, our_gateways
from hoplab.image.readable.status import gateway_statuses
from tests.support.gateway_objects import cluster, elsewhere, gateway
from tests.support.readable_objects import Seen

HOME = Home("ingress-readable", "app=ingress")
WHERE = "/api/v1/namespaces/ingress-readable/services"
BOTH = "[{name: a, port: 80, protocol: HTTP}, {name: b, port: 443, protocol: HTTPS, tls: {}}]"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
YOUNG = "2026-01-02T00:00:00Z"


def changes(seen: Seen) -> list[tuple[str, str, Any]]:
    return list(service_changes(our_gateways(seen), seen, HOME))


def followed(seen: Seen) -> Seen:
    """The same objects with all changes made."""
    services = dict(seen["Service"])
    for method, path, body in changes(seen):
        short = path.rpartition("/")[2]
        if method == "POST":
            services[key(body)] = body
        elif method == "PATCH":
            known = services[f"{HOME.namespace}/{short}"]
            services[f"{HOME.namespace}/{short}"] = {**known, "spec": {**known["spec"], **body["spec"]}}
        else:
            del services[f"{HOME.namespace}/{short}"]
    return {**seen, "Service": services}


def given(seen: Seen, gateway: str, *ips: str) -> Seen:
    """The same objects after the load balancer gave a Gateway's Service these addresses."""
    where = f"{HOME.namespace}/{name(gateway)}"
    status = {"loadBalancer": {"ingress": [{"ip": ip} for ip in ips]}}
    return {**seen, "Service": {**seen["Service"], where: {**seen["Service"][where], "status": status}}}


def test_of_two_protocols_the_first_has_the_port() -> None:
    given = ("{name: x, port: 1, protocol: TCP}", "{name: a, port: 80, protocol: HTTP}")
    text = f"[{', '.join(given)}, {{name: b, port: 80, protocol: HTTPS}}]"
    assert ports(gateway(listeners=text)) == {80: "HTTP"}
    found = gateways(cluster(gateway(listeners=text)), home=HOME).listeners
    assert [[problem.reason for problem in listener.problems] for listener in found] == [
        ["UnsupportedProtocol"],
        [],
        ["ProtocolConflict", "ProtocolConflict", "InvalidCertificateRef"],
    ]
    assert "another listener has the port 80 for HTTP" in found[2].problems[0].message


def test_each_gateway_has_doors_of_its_own() -> None:
    two = [gateway(listeners=BOTH), elsewhere(gateway(listeners=BOTH))]
    found = doors(two, HOME)
    assert set(found) == {("shop/way", 80), ("shop/way", 443), ("else/way", 80), ("else/way", 443)}
    assert len(set(found.values())) == 4
    assert all(addresses.FIRST <= door < addresses.FIRST + addresses.MOST for door in found.values())
    assert doors(two[:1], HOME).items() <= found.items(), "another Gateway changes nothing"


def test_of_equal_doors_the_older_gateway_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "MOST", 2)
    monkeypatch.setattr(zlib, "crc32", lambda _: 7)
    assert list(doors([gateway("old"), gateway("young")], HOME).values()) == [addresses.FIRST + 1, addresses.FIRST]


def test_without_a_home_all_share_the_nodes_ports() -> None:
    text = "[{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP}]"
    assert doors([gateway(listeners=text), gateway("two")], None) == {
        ("shop/way", 80): 8080,
        ("shop/way", 81): 0,
        ("shop/two", 80): 8080,
    }
    assert list(service_changes([gateway()], cluster(gateway()), None)) == []


def test_a_gateway_gets_a_service() -> None:
    seen = cluster(gateway(listeners=BOTH))
    ((method, path, body),) = changes(seen)
    assert (method, path) == ("POST", WHERE)
    assert body["spec"]["type"] == "LoadBalancer" and body["spec"]["selector"] == {"app": "ingress"}
    found = doors(our_gateways(seen), HOME)
    assert [(port["port"], port["targetPort"]) for port in body["spec"]["ports"]] == [
        (80, found["shop/way", 80]),
        (443, found["shop/way", 443]),
    ]
    assert changes(followed(seen)) == []


def test_a_gateway_with_other_ports_gets_them() -> None:
    seen = followed(cluster(gateway()))
    service = next(item for item in seen["Service"].values() if "annotations" in item["metadata"])
    service["spec"]["ports"][0]["nodePort"] = 30001
    assert changes(seen) == [], "what the API server adds is no difference"
    seen["Gateway"] = cluster(gateway(listeners=BOTH))["Gateway"]
    ((method, path, body),) = changes(seen)
    assert (method, path) == ("PATCH", f"{WHERE}/{name('shop/way')}")
    assert [port["port"] for port in body["spec"]["ports"]] == [80, 443]
    assert changes(followed(seen)) == []


@pytest.mark.parametrize("left", [(), (gateway(listeners="[{name: a, port: 80, protocol: TCP}]"),)])
def test_a_service_ends_with_its_gateway(left: tuple[Any, ...]) -> None:
    seen = followed(cluster(gateway(), gateway("stays")))
    seen["Gateway"] = cluster(gateway("stays"), *left)["Gateway"]
    assert changes(seen) == [("DELETE", f"{WHERE}/{name('shop/way')}", {})]


def test_services_of_others_are_left_alone() -> None:
    seen = followed(cluster(gateway()))
    theirs = elsewhere(next(item for item in seen["Service"].values() if "annotations" in item["metadata"]))
    seen["Service"] = {**seen["Service"], key(theirs): theirs}
    seen["Gateway"] = {}
    assert [path for _, path, _ in changes(seen)] == [f"{WHERE}/{name('shop/way')}"]


@pytest.mark.parametrize("short", ["way", "9.lives", f"{'long.' * 50}end"])
def test_names_of_services(short: str) -> None:
    found = name(f"shop/{short}")
    assert found != name(f"else/{short}") and len(found) <= 63
    assert found.startswith("gateway-") and set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_a_gateway_has_the_addresses_of_its_service() -> None:
    seen = followed(cluster(gateway(), gateway("two")))
    seen = given(seen, "shop/way", "192.168.77.245")
    assert addresses_of("shop/way", seen, HOME, ["192.168.77.20"]) == ["192.168.77.245"]
    assert addresses_of("shop/two", seen, HOME, ["192.168.77.20"]) == []
    assert addresses_of("shop/way", seen, None, ["192.168.77.20"]) == ["192.168.77.20"]


def test_the_status_has_them() -> None:
    seen = given(followed(cluster(gateway(), gateway("two"))), "shop/way", "192.168.77.245")
    found = gateway_statuses(gateways(seen, home=HOME), seen, ["192.168.77.20"], "", NOW, HOME)
    by_name = {path.split("/")[-2]: body["status"] for path, body in found.items()}
    assert by_name["way"]["addresses"] == [{"type": "IPAddress", "value": "192.168.77.245"}]
    programmed = {short: body["conditions"][1]["reason"] for short, body in by_name.items() if short != "readable"}
    assert programmed == {"way": "Programmed", "two": "AddressNotAssigned"}


def test_the_class_says_what_it_can() -> None:
    for home in (None, HOME):
        seen = cluster()
        (body,) = gateway_statuses(gateways(seen), seen, [], "", NOW, home).values()
        names = [feature["name"] for feature in body["status"]["supportedFeatures"]]
        assert names == sorted(names) and {"Gateway", "HTTPRoute", "ReferenceGrant"} <= set(names)
        assert ("GatewayPort8080" in names) == (home is not None)


def test_with_addresses_of_their_own_gateways_are_not_in_conflict() -> None:
    text = "[{name: a, port: 8080, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}]"
    found = gateways(cluster(gateway(listeners=text), gateway("two", text, creationTimestamp=YOUNG)), home=HOME)
    assert [listener.problems for listener in found.listeners] == [()] * 4
    assert len({host.listener.door for host in found.hosts}) == 4
