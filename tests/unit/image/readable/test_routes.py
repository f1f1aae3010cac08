"""Rules of HTTPRoutes: what they say, what is wrong with them, and which comes first."""

from __future__ import annotations

from typing import Any

import pytest

from hoplab.image.readable.objects import Backend
from hoplab.image.readable.routes import Headers, Match, Problem, Redirect, Rule, ordered, rules
from tests.support.gateway_objects import cluster, elsewhere, grant, route


def asked(text: str, *more: Any) -> tuple[list[Rule], list[tuple[str, str]]]:
    """The rules of a route, and condition and reason of what is wrong."""
    found, problems = rules(route("web", text), cluster(*more))
    return found, [(problem.condition, problem.reason) for problem in problems]


def test_a_rule() -> None:
    (rule,), problems = asked("""
    rules:
    - matches:
      - path: {type: Exact, value: /a/}
        method: GET
        headers: [{name: Version, value: "2"}, {name: VERSION, value: "3"}]
        queryParams: [{name: Q, value: a}, {name: q, value: b}]
      - path: {type: PathPrefix, value: /b/}
      backendRefs: [{name: one, port: 80, weight: 3}, {name: two, port: 80}]
    """)
    assert problems == []
    assert rule.matches == (
        Match("/a/", True, "GET", (("version", "2"),), (("Q", "a"), ("q", "b"))),
        Match("/b"),
    )
    assert rule.shares == ((Backend("shop", "one", "80"), 3), (Backend("shop", "two", "80"), 1))
    assert rule.name == "shop/web/0"


def test_filters() -> None:
    (rule, other), problems = asked("""
    rules:
    - filters:
      - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: A, value: b}], remove: [C]}}
      - {type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: D, value: e}]}}
    - matches: [{path: {value: /old}}]
      filters:
      - type: RequestRedirect
        requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 301, hostname: b.com}
    """)
    assert problems == []
    assert rule.request == Headers(set=(("a", "b"),), remove=("c",)) and rule.response == Headers(add=(("d", "e"),))
    assert other.redirect == Redirect(301, host="b.com", path="/new", prefix="/old")


@pytest.mark.parametrize(
    "rule",
    [
        "{filters: [{type: URLRewrite, urlRewrite: {}}]}",
        "{filters: [{type: ExtensionRef, extensionRef: {}}]}",
        "{backendRefs: [{name: one, port: 80, filters: [{type: RequestHeaderModifier}]}]}",
        "{matches: [{path: {type: RegularExpression, value: a}}]}",
        "{matches: [{headers: [{type: RegularExpression, name: a, value: a}]}]}",
        "{matches: [{queryParams: [{type: RegularExpression, name: a, value: a}]}]}",
    ],
)
def test_what_is_not_supported_is_not_served(rule: str) -> None:
    assert asked(f"{{rules: [{rule}, {{backendRefs: [{{name: one, port: 80}}]}}]}}") == (
        [],
        [("Accepted", "UnsupportedValue")],
    )


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("{name: gone, port: 80}", "BackendNotFound"),
        ("{name: one, port: 81}", "BackendNotFound"),
        ("{name: one, kind: Pod}", "InvalidKind"),
        ("{name: one, group: example.org, kind: Service}", "InvalidKind"),
        ("{name: far, namespace: else, port: 80}", "RefNotPermitted"),
    ],
)
def test_a_backend_that_is_not_to_be_had(ref: str, reason: str) -> None:
    found, problems = asked(f"{{rules: [{{backendRefs: [{{name: one, port: 80}}, {ref}]}}]}}")
    assert problems == [("ResolvedRefs", reason)]
    assert [backend for backend, _ in found[0].shares] == [Backend("shop", "one", "80"), None]


def test_a_grant_for_a_backend() -> None:
    text = "{rules: [{backendRefs: [{name: far, namespace: else, port: 80}]}]}"
    (rule,), problems = asked(text, grant("else", "HTTPRoute", "shop", "Service", "far"))
    assert problems == [] and rule.shares == ((Backend("else", "far", "80"), 1),)
    assert asked(text, grant("else", "HTTPRoute", "shop", "Service", "other"))[1] != []
    assert asked(text, elsewhere(grant("else", "HTTPRoute", "shop", "Service"), "third"))[1] != []


ORDER = [  # every one comes before all below it
    ("a.com", Match("/a", exact=True)),
    ("a.com", Match("/a/b", method="GET", headers=(("a", "b"),))),
    ("a.com", Match("/a/b", method="GET", query=(("a", "b"), ("c", "d")))),
    ("a.com", Match("/a/b", method="GET")),
    ("a.com", Match("/a/b", headers=(("a", "b"), ("c", "d")))),
    ("a.com", Match("/a/b", headers=(("a", "b"),), query=(("a", "b"),))),
    ("a.com", Match("/a/b", headers=(("a", "b"),))),
    ("a.com", Match("/a/b", query=(("a", "b"), ("c", "d")))),
    ("a.com", Match("/a/b", query=(("a", "b"),))),
    ("a.com", Match("/a/b")),
    ("a.com", Match("/a", method="GET", headers=(("a", "b"),), query=(("a", "b"),))),
    ("a.com", Match("/")),
    ("*.longer.com", Match("/a/b/c", exact=True)),
    ("*.com", Match("/a/b/c", exact=True, method="GET")),
    ("", Match("/a/b/c/d", exact=True, method="GET")),
]


def test_the_order_of_the_specification() -> None:
    by_host: dict[str, list[Rule]] = {}
    for number, (host, match) in reversed(list(enumerate(ORDER))):
        by_host.setdefault(host, []).append(Rule(f"shop/{number}", 0, "", (match,)))
    assert [match for match, _ in ordered(by_host)] == [match for _, match in ORDER]


def test_between_equals_the_older_route_the_name_and_the_first_rule() -> None:
    match = (Match("/a"),)
    wanted = [
        Rule("shop/z", 0, "2026-01-01T00:00:00Z", match),
        Rule("shop/a", 0, "2026-01-02T00:00:00Z", match),
        Rule("shop/a", 1, "2026-01-02T00:00:00Z", match),
        Rule("shop/b", 0, "2026-01-02T00:00:00Z", match),
    ]
    assert [rule for _, rule in ordered({"a.com": wanted[::-1]})] == wanted


def test_problems_are_in_the_words_of_the_object() -> None:
    _, (problem,) = rules(route("web", "{rules: [{backendRefs: [{name: gone, port: 80}]}]}"), cluster())
    assert problem == Problem("ResolvedRefs", "BackendNotFound", "there is no port 80 of a service shop/gone")
