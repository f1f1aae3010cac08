"""Listeners, attachment of routes, and the hosts that are served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from hoplab.image.readable import conf
from hoplab.image.readable.gateway import Gateways, gateways, selects
from hoplab.image.readable.ingress import wishes
from hoplab.image.readable.objects import HTTP, certificate_of
from tests.support.gateway_objects import cluster, elsewhere, gateway, grant, namespace, route, to
from tests.support.readable_objects import Seen, ingress, rules

HTTPS = "name: https, port: 443, protocol: HTTPS"


def simple(name: str = "web", **spec: Any) -> Any:
    return route(name, yaml.safe_dump({"rules": [to("one")], **spec}))


def reasons(found: Gateways) -> list[tuple[str, str]]:
    """(Condition, reason) of all that is wrong with listeners and routes."""
    problems = [listener.problems for listener in found.listeners]
    problems += [attachment.problems for attachment in found.attachments]
    return [(problem.condition, problem.reason) for group in problems for problem in group]


def names(seen: Seen, **more: Any) -> list[tuple[int, str]]:
    return [(host.listener.port, host.name) for host in gateways(seen, **more).hosts]


def test_without_the_gateway_api_there_is_none() -> None:
    seen = cluster(gateway(), simple())
    del seen["Gateway"]
    assert gateways(seen) == Gateways()


def test_only_our_class() -> None:
    other = gateway("theirs")
    other["spec"]["gatewayClassName"] = "other"
    nobody = gateway("nobodys")
    nobody["spec"]["gatewayClassName"] = "nobody"
    found = gateways(cluster(gateway(), other, nobody, simple(parentRefs=[{"name": "theirs"}, {"name": "way"}])))
    assert [listener.gateway for listener in found.listeners] == ["shop/way"]
    assert [attachment.parent["name"] for attachment in found.attachments] == ["way"]


def test_a_parent_of_another_kind_is_none_of_ours() -> None:
    found = gateways(cluster(gateway(), simple(parentRefs=[{"kind": "Service", "group": "", "name": "way"}])))
    assert found.attachments == ()


@pytest.mark.parametrize(
    ("listener", "wrong"),
    [
        ("{name: a, port: 8080, protocol: HTTP}", ("Accepted", "PortUnavailable")),
        ("{name: a, port: 443, protocol: HTTP}", ("Accepted", "PortUnavailable")),
        ("{name: a, port: 80, protocol: TCP}", ("Accepted", "UnsupportedProtocol")),
        (
            f"{{{HTTPS}, tls: {{mode: Passthrough, certificateRefs: [{{name: my-tls-secret}}]}}}}",
            ("Accepted", "UnsupportedValue"),
        ),
        (f"{{{HTTPS}, tls: {{certificateRefs: [{{name: gone}}]}}}}", ("ResolvedRefs", "InvalidCertificateRef")),
        (f"{{{HTTPS}, tls: {{}}}}", ("ResolvedRefs", "InvalidCertificateRef")),
        (
            f"{{{HTTPS}, tls: {{certificateRefs: [{{kind: ConfigMap, name: my-tls-secret}}]}}}}",
            ("ResolvedRefs", "InvalidCertificateRef"),
        ),
        (
            f"{{{HTTPS}, tls: {{certificateRefs: [{{namespace: else, name: far-secret}}]}}}}",
            ("ResolvedRefs", "RefNotPermitted"),
        ),
        (
            "{name: a, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: TCPRoute}]}}",
            ("ResolvedRefs", "InvalidRouteKinds"),
        ),
    ],
)
def test_listeners_that_are_not_served(listener: str, wrong: tuple[str, str]) -> None:
    found = gateways(cluster(gateway(listeners=f"[{listener}]")))
    assert reasons(found) == [wrong]
    assert not found.listeners[0].served and found.hosts == ()


def test_a_listener_for_https_has_its_certificate() -> None:
    text = f"[{{{HTTPS}, tls: {{certificateRefs: [{{namespace: else, name: far-secret}}]}}}}]"
    seen = cluster(gateway(listeners=text), grant("else", "Gateway", "shop", "Secret"))
    (found,) = gateways(seen).listeners
    assert found.served and found.certificate and found.certificate.secret == "else/far-secret"
    certificate = certificate_of("else/far-secret", seen)
    assert certificate
    refused = gateways(seen, unusable={certificate})
    assert reasons(refused) == [("ResolvedRefs", "InvalidCertificateRef")]


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        (grant("else", "Gateway", "shop", "Secret", "far-secret"), True),
        (grant("else", "Gateway", "shop", "Secret", "another"), False),
        (grant("else", "Gateway", "third", "Secret"), False),
        (grant("else", "HTTPRoute", "shop", "Secret"), False),
        (grant("else", "Gateway", "shop", "Service"), False),
        (grant("shop", "Gateway", "shop", "Secret"), False),
    ],
)
def test_a_grant_allows_what_it_names_only(given: Any, allowed: bool) -> None:
    text = f"[{{{HTTPS}, tls: {{certificateRefs: [{{namespace: else, name: far-secret}}]}}}}]"
    (found,) = gateways(cluster(gateway(listeners=text), given)).listeners
    assert found.served == allowed


def test_the_older_gateway_has_the_port_and_the_host() -> None:
    young = gateway("a-young", creationTimestamp="2026-01-02T00:00:00Z")
    found = gateways(cluster(gateway("old"), young))
    assert [(listener.gateway, listener.served) for listener in found.listeners] == [
        ("shop/old", True),
        ("shop/a-young", False),
    ]
    assert reasons(found) == [("Conflicted", "HostnameConflict"), ("Accepted", "HostnameConflict")]
    assert "shop/old has the port 80 and the host * already" in found.listeners[1].problems[0].message


def test_a_route_goes_to_the_listeners_that_it_names() -> None:
    two = "[{name: a, port: 80, protocol: HTTP, hostname: a.com}, {name: b, port: 80, protocol: HTTP, hostname: b.com}]"
    both, one = simple("both"), simple("one", parentRefs=[{"name": "way", "sectionName": "b"}])
    port = simple("port", parentRefs=[{"name": "way", "port": 81}])
    wrong = simple("wrong", parentRefs=[{"name": "way", "sectionName": "c"}])
    found = gateways(cluster(gateway(listeners=two), both, one, port, wrong))
    taken = {each.route: [listener.name for listener, _ in each.listeners] for each in found.attachments}
    assert taken == {"shop/both": ["a", "b"], "shop/one": ["b"], "shop/port": [], "shop/wrong": []}
    assert reasons(found) == [("Accepted", "NoMatchingParent"), ("Accepted", "NoMatchingParent")]


def allowing(text: str) -> Any:
    return gateway(listeners=f"[{{name: http, port: 80, protocol: HTTP, allowedRoutes: {text}}}]")


@pytest.mark.parametrize(
    ("allowed", "takes"),
    [
        ("{}", False),
        ("{namespaces: {from: Same}}", False),
        ("{namespaces: {from: All}}", True),
        ("{namespaces: {from: None}}", False),
        ("{namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}", True),
        ("{namespaces: {from: Selector, selector: {matchLabels: {team: b}}}}", False),
        ("{namespaces: {from: All}, kinds: [{kind: HTTPRoute}, {kind: TCPRoute}]}", True),
        ("{namespaces: {from: All}, kinds: [{kind: TCPRoute}]}", False),
        ("{namespaces: {from: All}, kinds: [{kind: HTTPRoute, group: example.org}]}", False),
    ],
)
def test_namespaces_and_kinds_that_a_listener_allows(allowed: str, takes: bool) -> None:
    far = elsewhere(simple(parentRefs=[{"name": "way", "namespace": "shop"}]))
    found = gateways(cluster(allowing(allowed), far, namespace("else", team="a")))
    (attachment,) = found.attachments
    assert bool(attachment.listeners) == takes
    assert (("Accepted", "NotAllowedByListeners") in reasons(found)) == (not takes)


def test_selectors() -> None:
    labels = {"team": "a"}
    for operator, values, expected in (
        ("In", ["a", "b"], True),
        ("In", ["b"], False),
        ("NotIn", ["b"], True),
        ("NotIn", ["a"], False),
        ("Exists", None, True),
        ("DoesNotExist", None, False),
    ):
        part = {"key": "team", "operator": operator, **({"values": values} if values else {})}
        assert selects({"matchExpressions": [part]}, labels) == expected, part
    assert selects({}, labels)
    assert not selects({"matchLabels": {"team": "a", "more": "b"}}, labels)


@pytest.mark.parametrize(
    ("listener", "hostnames", "served"),
    [
        ("", None, [""]),
        ("", ["a.com"], ["", "a.com"]),
        ("a.com", None, ["a.com"]),
        ("*.a.com", ["x.a.com", "x.y.a.com", "a.com", "b.com"], ["*.a.com", "x.a.com", "x.y.a.com"]),
        ("x.a.com", ["*.a.com"], ["x.a.com"]),
        ("*.a.com", ["*.com"], ["*.a.com"]),
    ],
)
def test_hosts_are_those_of_both(listener: str, hostnames: Any, served: list[str]) -> None:
    text = f"[{{name: http, port: 80, protocol: HTTP, hostname: '{listener}'}}]"
    asked = simple(**({"hostnames": hostnames} if hostnames else {}))
    assert names(cluster(gateway(listeners=text), asked)) == [(80, name) for name in served]


def test_a_route_for_other_hosts_is_not_taken() -> None:
    text = "[{name: http, port: 80, protocol: HTTP, hostname: a.com}]"
    found = gateways(cluster(gateway(listeners=text), simple(hostnames=["b.com", "*.a.com"])))
    assert reasons(found) == [("Accepted", "NoMatchingListenerHostname")]
    assert [host.matches for host in found.hosts] == [()], "the listener itself answers with 404"


def led(seen: Seen) -> dict[str, list[str]]:
    """By host: route and path of what is tried, in order."""
    return {
        host.name: [f"{rule.route.partition('/')[2]}{match.path}" for match, rule in host.matches]
        for host in gateways(seen).hosts
    }


def test_each_listener_has_its_own_routes() -> None:
    """A request for a host of one listener never goes to the routes of a wider one."""
    http = "port: 80, protocol: HTTP"
    listeners = f"[{{name: wide, {http}, hostname: '*.a.com'}}, {{name: x, {http}, hostname: x.a.com}}]"
    wide = simple("wide", parentRefs=[{"name": "way", "sectionName": "wide"}])
    asking = simple("asking", parentRefs=[{"name": "way", "sectionName": "wide"}], hostnames=["x.a.com", "y.a.com"])
    narrow = simple("narrow", parentRefs=[{"name": "way", "sectionName": "x"}])
    assert led(cluster(gateway(listeners=listeners), wide, asking, narrow)) == {
        "*.a.com": ["wide/"],
        "x.a.com": ["narrow/"],
        "y.a.com": ["asking/", "wide/"],
    }


def test_the_more_specific_host_is_tried_first() -> None:
    exact = route("exact", yaml.safe_dump({"hostnames": ["x.a.com"], "rules": [to("one", "/only")]}))
    wild = route("wild", yaml.safe_dump({"hostnames": ["*.a.com"], "rules": [to("one", "/only/longer"), to("one")]}))
    every = simple("every")
    assert led(cluster(gateway(), exact, wild, every))["x.a.com"] == [
        "exact/only",
        "wild/only/longer",
        "wild/",
        "every/",
    ]


def test_a_host_is_as_specific_as_its_route_says() -> None:
    """Upstream's GatewayRouteHostnameIntersectionPrecedence: all of these are for one host at that listener."""
    text = "[{name: http, port: 80, protocol: HTTP, hostname: x.a.com}]"
    wild = route("wild", yaml.safe_dump({"hostnames": ["*.com"], "rules": [to("one", "/long")]}))
    wider = route("wider", yaml.safe_dump({"rules": [to("one", "/long/longer")]}))
    nearer = route("nearer", yaml.safe_dump({"hostnames": ["*.a.com"], "rules": [to("one", "/l"), to("one")]}))
    exact = simple("young", hostnames=["x.a.com"])
    assert led(cluster(gateway(listeners=text), wild, wider, nearer, exact)) == {
        "x.a.com": ["young/", "nearer/l", "nearer/", "wild/long", "wider/long/longer"]
    }


def test_of_equal_rules_the_first_is_tried_first() -> None:
    """Upstream's HTTPRouteRuleOrder: headers are a set."""
    one, two = {"name": "x-one", "value": "1"}, {"name": "x-two", "value": "2"}
    equal = [to("two", "/", headers=[two, one]), to("one", "/", headers=[one, two])]
    found = gateways(cluster(gateway(), route("web", yaml.safe_dump({"rules": equal}))))
    assert [[rule.number for _, rule in host.matches] for host in found.hosts] == [[0, 1]]


def test_a_route_at_two_sections_is_there_once() -> None:
    twice = simple(parentRefs=[{"name": "way"}, {"name": "way", "sectionName": "http"}])
    found = gateways(cluster(gateway(), twice))
    assert len(found.attachments) == 2 and [len(host.matches) for host in found.hosts] == [1]


def test_ingresses_keep_their_hosts() -> None:
    asked = ingress("x", rules("a.com", ("/", "Prefix", "one")))
    seen = cluster(gateway(), simple(hostnames=["a.com", "b.com"]), ingresses=(asked,))
    sites, _ = wishes(seen)
    assert conf.taken(sites) == {(HTTP, "a.com")}
    assert names(seen, taken=conf.taken(sites)) == [(80, ""), (80, "b.com")]
    default = ingress("y", rules("", ("/", "Prefix", "one")))
    assert conf.taken(wishes(cluster(ingresses=(default,)))[0]) == {(HTTP, "")}


def test_configuration(golden: Callable[[str, str], None]) -> None:
    """A bit of everything."""
    listeners = f"""
    - {{name: http, port: 80, protocol: HTTP}}
    - {{{HTTPS}, hostname: '*.yash.com', tls: {{certificateRefs: [{{name: my-tls-secret}}]}}}}
    """
    text = """
    hostnames: [app1.yash.com]
    rules:
    - matches:
      - {path: {type: Exact, value: /login}, method: POST}
      - {path: {type: PathPrefix, value: /beta}, headers: [{name: X-Version, value: "2"}]}
      filters:
      - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Price, value: $5}], remove: [X-Debug]}}
      backendRefs: [{name: one, port: 80, weight: 9}, {name: two, port: 80}]
    - matches: [{path: {type: PathPrefix, value: /old}}]
      filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}]
    - backendRefs: [{name: two, port: 80}]
    """
    seen = cluster(gateway(listeners=listeners), route("apps", text))
    golden("readable-gateway.nginx.conf", conf.configuration([], seen, gateways(seen)))
