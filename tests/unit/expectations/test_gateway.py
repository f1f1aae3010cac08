"""Where configurations of what serves the Gateway API lead the rules of a route."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from hoplab.core.errors import LabError
from hoplab.expectations import gateway
from hoplab.expectations.gateway import HttpRoute, ServedMatch, nginx, readable
from hoplab.expectations.ingress import nginx_conf
from hoplab.verify import gateway_workload
from hoplab.verify.workload import APP1, APP2, NAMESPACE
from tests.support.fabric import http_conf, location, matching, upstream
from tests.support.files import CAPTURED
from tests.support.imaginary.gateway import RECORDED


def rule(*matches: dict[str, Any]) -> dict[str, Any]:
    return {"matches": list(matches), "backendRefs": [{"name": "one", "port": 80}]}


def path(value: str, kind: str = "PathPrefix") -> dict[str, Any]:
    return {"path": {"type": kind, "value": value}}


def places(configuration: str, *rules: dict[str, Any]) -> list[tuple[int, str, tuple[str, ...]]]:
    found = nginx.served(configuration, HttpRoute("shop/web", "a.com", rules))
    return [(match.number, match.place, match.endpoints) for match in found]


ONE, TWO = ("10.244.0.3:8080", "10.244.1.3:8080"), ("10.244.1.4:8080",)
UPSTREAMS = (upstream("shop_one_80", *ONE), upstream("shop_two_80", *TWO))


def test_which_of_them_serves_a_lab() -> None:
    plain = replace(RECORDED.setting, gateway_api=False)
    assert gateway.of(plain) is None and not plain.has_gateways
    assert gateway.of(replace(plain, gateway_api=True)) is readable
    chosen = replace(plain, gateway_controller="nginx")
    assert gateway.of(chosen) is nginx and chosen.has_gateways


def test_an_unknown_one() -> None:
    with pytest.raises(LabError, match="there is no gateway controller 'envoy'; known: nginx"):
        gateway.get_controller("envoy")


def captured(name: str) -> str:
    return (CAPTURED / f"fabric-{name}.conf").read_text()


def test_what_it_makes_of_the_lessons_route() -> None:
    app1, app2 = "10.99.1.10:8080, 10.99.1.11:8080", "10.99.1.12:8080"
    route = gateway_workload.http_route(NAMESPACE, APP1, APP2)
    assert [str(match) for match in nginx.served(captured("way"), route)] == [
        f"hoplab-verify/way/0: location /, by matches.json to location /_ngf-internal-rule2-route1 -> {app1}",
        f"hoplab-verify/way/1: location /login/ -> {app2}",
        f"hoplab-verify/way/1: location = /login -> {app2}",
        f"hoplab-verify/way/1: location /, by matches.json to location /_ngf-internal-rule2-route0 -> {app2}",
        f"hoplab-verify/way/2: location /app/ -> {app1}",
        f"hoplab-verify/way/2: location = /app -> {app1}",
    ]


def test_what_it_makes_of_methods_regular_expressions_missing_pods_and_services() -> None:
    """app2-service has no pods there, and no service has the name missing."""
    app1 = ("10.99.1.10:8080", "10.99.1.11:8080")
    by_team = {"headers": [{"name": "X-Team", "type": "Exact", "value": "b"}], "method": "POST"}
    asked = (
        rule(path("/login"), {"queryParams": [{"name": "version", "value": "2"}]}),
        rule({**path("/form", "Exact"), **by_team}),
        rule(path("/none", "Exact")),
        rule(path("/v[0-9]+", "RegularExpression")),
    )
    found = nginx.served(captured("more"), HttpRoute(f"{NAMESPACE}/way", gateway_workload.HOST, asked))
    assert [(match.number, match.place, match.endpoints) for match in found] == [
        (0, "location /login/", ()),
        (0, "location = /login", ()),
        (0, "location /, by matches.json to location /_ngf-internal-rule5-route0", ()),
        (1, "location = /form, by matches.json to location /_ngf-internal-rule2-route0", ()),
        (2, "location = /none", ()),
        (3, "location ~ ^/v[0-9]+", app1),
    ]


def test_the_form_of_the_made_ones_is_the_captured_one() -> None:
    of_app1, of_app2 = (f"{NAMESPACE}_{app}_80" for app in (APP1, APP2))
    by_query, every = "/_ngf-internal-rule2-route0", "/_ngf-internal-rule2-route1"
    made = http_conf(
        {
            gateway_workload.HOST: [
                *(location(words, of_app2) for words in ("/login/", "= /login")),
                *(location(words, of_app1) for words in ("/app/", "= /app")),
                matching("/", "1_2"),
                location(by_query, of_app2),
                location(every, of_app1),
            ]
        },
        upstream(of_app1, "10.99.1.10:8080", "10.99.1.11:8080"),
        upstream(of_app2, "10.99.1.12:8080"),
        matches={
            "1_2": [
                {"redirectPath": by_query, "params": ["version=Exact=2"]},
                {"redirectPath": every, "any": True},
            ]
        },
    )
    assert nginx_conf.parse(made) == nginx_conf.parse(captured("way"))


def test_a_prefix_has_two_locations_and_an_exact_path_one() -> None:
    conf = http_conf(
        {
            "a.com": [
                *(location(words, "shop_one_80") for words in ("/api/", "= /api")),
                location("= /x", "shop_two_80"),
            ]
        },
        *UPSTREAMS,
    )
    assert places(conf, rule(path("/api")), rule(path("/x", "Exact"))) == [
        (0, "location /api/", ONE),
        (0, "location = /api", ONE),
        (1, "location = /x", TWO),
    ]
    assert str(nginx.served(conf, HttpRoute("shop/web", "a.com", [rule(path("/x", "Exact"))]))[0]) == (
        "shop/web/0: location = /x -> 10.244.1.4:8080"
    )


@pytest.mark.parametrize(
    ("match", "entry"),
    [
        ({"queryParams": [{"name": "version", "value": "2"}]}, {"params": ["version=Exact=2"]}),
        ({"headers": [{"name": "X-A", "type": "Exact", "value": "b"}]}, {"headers": ["X-A:Exact:b"]}),
        ({"method": "POST"}, {"method": "POST"}),
        ({"method": "POST", "headers": [{"name": "a", "value": "b"}]}, {"method": "POST", "headers": ["a:Exact:b"]}),
    ],
)
def test_what_is_more_than_a_path_is_in_the_list(match: dict[str, Any], entry: dict[str, Any]) -> None:
    conf = http_conf(
        {"a.com": [matching("/", "1_0"), location("/_i0", "shop_two_80"), location("/_i1", "shop_one_80")]},
        *UPSTREAMS,
        matches={"1_0": [{**entry, "redirectPath": "/_i0"}, {"any": True, "redirectPath": "/_i1"}]},
    )
    assert places(conf, rule(match), rule(path("/"))) == [
        (0, "location /, by matches.json to location /_i0", TWO),
        (1, "location /, by matches.json to location /_i1", ONE),
    ]
    other = {"queryParams": [{"name": "version", "value": "3"}]}
    assert places(conf, rule(other)) == [(0, "location /, which matches.json leads nowhere", ())]


def test_a_rule_without_matches_is_for_every_path() -> None:
    conf = http_conf({"a.com": [location("/", "shop_one_80")]}, *UPSTREAMS)
    assert places(conf, {"backendRefs": []}) == [(0, "location /", ONE)]
    assert places(conf, rule(path("/api"))) == [(0, "no location /api/", ()), (0, "no location = /api", ())]
    assert places(conf, rule(path("/[a-z]", "RegularExpression"))) == [(0, "no location ~ ^/[a-z]", ())]


def test_a_service_without_pods_and_a_reference_to_none() -> None:
    conf = http_conf(
        {"a.com": [location("/", "shop_one_80"), location("= /x", "invalid-backend-ref")]},
        upstream("shop_one_80", "unix:/var/run/nginx/nginx-503-server.sock"),
    )
    assert places(conf, rule(path("/")), rule(path("/x", "Exact"))) == [(0, "location /", ()), (1, "location = /x", ())]


def test_another_host_and_a_missing_list() -> None:
    conf = http_conf({"b.com": [matching("/", "1_0")]}, *UPSTREAMS)
    assert places(conf, rule(path("/"))) == []
    cut = http_conf({"a.com": [matching("/", "1_0")]}, *UPSTREAMS).partition('{"')[0].removesuffix("{}")
    assert places(cut, rule(path("/"))) == [(0, "location /, which matches.json leads nowhere", ())]


def test_readable_names_a_location_after_the_rule() -> None:
    conf = (
        "upstream one { server 10.244.0.3:8080; }\n"
        "server { server_name a.com; location = shop/web/0 { proxy_pass http://one$request_uri; } }"
    )
    route = HttpRoute("shop/web", "a.com", [rule(path("/")), rule(path("/x"))])
    assert readable.served(conf, route) == (
        ServedMatch(0, "shop/web/0", "location = shop/web/0", ("10.244.0.3:8080",)),
        ServedMatch(1, "shop/web/1", "location = shop/web/1", ()),
    )
    assert readable.served(conf, replace(route, host="b.com")) == ()
    assert str(readable.served(conf, route)[1]) == "shop/web/1: location = shop/web/1 -> nothing"


def test_the_list_may_follow_without_a_line_of_its_own() -> None:
    matches = {"1_0": [{"any": True, "redirectPath": "/_i0"}]}
    conf = http_conf({"a.com": [matching("/", "1_0"), location("/_i0", "shop_one_80")]}, *UPSTREAMS)
    joined = conf.rstrip().removesuffix("{}").rstrip() + json.dumps(matches)
    assert places(joined, rule(path("/"))) == [(0, "location /, by matches.json to location /_i0", ONE)]
