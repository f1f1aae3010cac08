"""What a real nginx does with the configurations of Gateways, in the cases of upstream's conformance tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hoplab.image.readable.addresses import Home, doors
from hoplab.image.readable.controller import Nginx
from hoplab.verify import gateway_workload
from tests.support.api_server import self_signed
from tests.support.gateway_objects import cluster, elsewhere, gateway, grant, route
from tests.support.nginx_server import Front, Pods, running
from tests.support.readable_objects import Seen, endpoints, ingress, listed, rules, secret

pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx: apt-get install nginx-light")


@pytest.fixture(scope="module")
def pods() -> Iterator[Pods]:
    with running("one", "two", "far") as found:
        yield found


@pytest.fixture
def front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    monkeypatch.setattr(Nginx, "_watch", lambda _: None)  # the test ends nginx, and must not end with it
    found = Front(tmp_path / "run", monkeypatch)
    try:
        yield found
    finally:
        found.controller.nginx.stop()


def with_pods(pods: Pods, *items: Any, **more: Any) -> Seen:
    slices = listed(pods.slice("one"), pods.slice("two"), pods.slice("far", "else"))
    return cluster(*items, EndpointSlice=slices, **more)


def test_paths_methods_headers_and_queries(front: Front, pods: Pods) -> None:
    text = """
    rules:
    - matches: [{path: {type: Exact, value: /exact}}]
      backendRefs: [{name: two, port: 80}]
    - matches: [{path: {type: PathPrefix, value: /pre/fix/}}]
      backendRefs: [{name: two, port: 80}]
    - matches:
      - {method: POST}
      - {headers: [{name: Version, value: "2 $b;"}]}
      - {queryParams: [{name: a.b, value: "x y&z"}]}
      backendRefs: [{name: two, port: 80}]
    - backendRefs: [{name: one, port: 80}]
    """
    front.serve(with_pods(pods, gateway(), route("web", text)))
    wanted: dict[str, str] = {
        "/": "one",
        "/exact": "two",
        "/exact/": "one",
        "/Exact": "one",
        "/exact?q": "two",
        "/pre/fix": "two",
        "/pre/fix/": "two",
        "/pre/fix/more": "two",
        "/pre/fixes": "one",
        "/pre//fix": "two",
        "/x/../exact": "two",
        "/%65xact": "two",
        "/exact%0Amore": "one",
        "/?a.b=x+y%26z": "two",
        "/?a.b=x%20y%26z&a.b=other": "two",
        "/?c=d&a.b=x%20y%26z": "two",
        "/?a.b=other&a.b=x%20y%26z": "one",
        "/?A.b=x%20y%26z": "one",
        "/?aXb=x%20y%26z": "one",
        "/?a.b=x%20y%26z2": "one",
        "/shop/web/0": "one",
        "/none": "one",
    }
    got = {path: front.get("a.com", path).pod for path in wanted}
    assert got == wanted
    assert front.get("a.com", method="POST").pod == "two"
    assert front.get("a.com", version="2 $b;").pod == "two"
    assert front.get("a.com", version="2 $B;").pod == "one"
    asked = "/pre//fix/%2F..;a?b=%20&c"
    assert front.get("a.com", asked).path == asked, "the pod gets what was asked"


def test_hosts(front: Front, pods: Pods) -> None:
    one = route("one", "{hostnames: [a.com, '*.b.com'], rules: [{backendRefs: [{name: one, port: 80}]}]}")
    two = route("two", "{hostnames: [x.b.com], rules: [{backendRefs: [{name: two, port: 80}]}]}")
    front.serve(with_pods(pods, gateway(), one, two))
    hosts = ("a.com", "A.com", "b.com", "y.b.com", "z.y.b.com", "x.b.com", "x.b.com:8080", "c.com")
    assert [front.get(host).pod for host in hosts] == ["one", "one", "", "one", "one", "two", "two", ""]
    assert front.get("c.com").status == 404


def test_a_path_that_no_rule_matches(front: Front, pods: Pods) -> None:
    front.serve(
        with_pods(
            pods,
            gateway(),
            route("a", "{rules: [{matches: [{path: {value: /a}}], backendRefs: [{name: one, port: 80}]}]}"),
        )
    )
    assert [front.get("a.com", path).status for path in ("/a", "/", "/b")] == [200, 404, 404]


def test_of_equal_rules_the_first_answers(front: Front, pods: Pods) -> None:
    text = """
    rules:
    - matches: [{headers: [{name: version, value: one}, {name: color, value: blue}]}]
      backendRefs: [{name: one, port: 80}]
    - matches: [{headers: [{name: color, value: blue}, {name: version, value: one}]}]
      backendRefs: [{name: two, port: 80}]
    - matches: [{path: {type: Exact, value: /gone}}]
      backendRefs: [{name: gone, port: 80}]
    - matches: [{path: {type: Exact, value: /gone}}]
      backendRefs: [{name: two, port: 80}]
    """
    front.serve(with_pods(pods, gateway(), route("web", text)))
    assert front.get("a.com", color="blue", version="one").pod == "one"
    assert front.get("a.com", "/gone").status == 500


def test_weights(front: Front, pods: Pods) -> None:
    text = """
    rules:
    - backendRefs:
      - {name: one, port: 80, weight: 70}
      - {name: two, port: 80, weight: 30}
      - {name: none, port: 80, weight: 0}
    """
    front.serve(with_pods(pods, gateway(), route("web", text)))
    got = [front.get("a.com").pod for _ in range(400)]
    assert set(got) == {"one", "two"} and 0.6 < got.count("one") / len(got) < 0.8


def test_backends_that_are_not_to_be_had(front: Front, pods: Pods) -> None:
    def rule(path: str, *refs: str) -> str:
        return f"{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{', '.join(refs)}]}}"

    text = ", ".join(
        [
            rule("/gone", "{name: gone, port: 80}"),
            rule("/kind", "{kind: Other, group: example.org, name: one}"),
            rule("/far", "{name: far, namespace: else, port: 80}"),
            rule("/empty", "{name: none, port: 80}"),
            rule("/zero", "{name: one, port: 80, weight: 0}"),
            rule("/half", "{name: one, port: 80}", "{name: gone, port: 80}"),
            rule("/nothing"),
        ]
    )
    front.serve(with_pods(pods, gateway(), route("web", f"{{rules: [{text}]}}")))
    paths = ("/gone", "/kind", "/far", "/empty", "/zero", "/nothing")
    assert [front.get("a.com", path).status for path in paths] == [500, 500, 500, 503, 500, 500]
    half = [front.get("a.com", "/half").status for _ in range(60)]
    assert set(half) == {200, 500}


def test_another_namespace_with_a_grant(front: Front, pods: Pods) -> None:
    asked = route("web", "{rules: [{backendRefs: [{name: far, namespace: else, port: 80}]}]}")
    front.serve(with_pods(pods, gateway(), asked, grant("else", "HTTPRoute", "shop", "Service", "far")))
    assert front.get("a.com").pod == "far"


def test_headers_of_requests_and_responses(front: Front, pods: Pods) -> None:
    text = """
    rules:
    - filters:
      - type: RequestHeaderModifier
        requestHeaderModifier:
          set: [{name: X-Set, value: 'a "$b" ${c} \\ ;'}, {name: X-Forwarded-Proto, value: mine}]
          add: [{name: X-Add, value: two}]
          remove: [X-Gone]
      - type: ResponseHeaderModifier
        responseHeaderModifier:
          set: [{name: X-Reply, value: $a}]
          add: [{name: X-More, value: b}]
          remove: [X-Unwanted]
      backendRefs: [{name: one, port: 80}]
    """
    front.serve(with_pods(pods, gateway(), route("web", text)))
    reply = front.get("a.com", X_Gone="here", X_Add="one", X_Set="old", X_Other="same")
    assert reply.got["x-set"] == 'a "$b" ${c} \\ ;'
    assert reply.got["x-add"].replace(", ", ",") == "one,two"
    assert "x-gone" not in reply.got and reply.got["x-other"] == "same"
    assert (reply.got["host"], reply.got["x-forwarded-proto"]) == ("a.com", "mine")
    assert reply.got["x-forwarded-for"] == "127.0.0.1", "what every request has is there too"
    assert (reply.headers["x-reply"], reply.headers["x-more"]) == ("$a", "b")
    assert front.get("a.com").got["x-add"] == "two"


@pytest.mark.parametrize(
    ("redirect", "location"),
    [
        ("{hostname: b.com}", "302 http://b.com/a/b?c=d"),
        ("{statusCode: 301}", "301 http://a.com/a/b?c=d"),
        ("{scheme: https}", "302 https://a.com/a/b?c=d"),
        ("{scheme: https, port: 8443}", "302 https://a.com:8443/a/b?c=d"),
        ("{scheme: https, port: 443, statusCode: 308}", "308 https://a.com/a/b?c=d"),
        ("{port: 8080}", "302 http://a.com:8080/a/b?c=d"),
        ("{port: 443}", "302 http://a.com:443/a/b?c=d"),
        ("{path: {type: ReplaceFullPath, replaceFullPath: /new$x}}", "302 http://a.com/new$x?c=d"),
        ("{path: {type: ReplacePrefixMatch, replacePrefixMatch: /new/}}", "302 http://a.com/new/b?c=d"),
        ("{path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}", "302 http://a.com/b?c=d"),
        ("{path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}}", "302 http://a.com/b?c=d"),
    ],
)
def test_redirects(front: Front, pods: Pods, redirect: str, location: str) -> None:
    rule = f"{{matches: [{{path: {{value: /a}}}}], filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]}}"
    front.serve(with_pods(pods, gateway(), route("web", f"{{rules: [{rule}]}}")))
    reply = front.get("a.com", "/a/b?c=d")
    assert f"{reply.status} {reply.location}" == location


def test_a_prefix_alone_is_replaced_by_the_new_one(front: Front, pods: Pods) -> None:
    redirect = "{path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}"
    rule = f"{{matches: [{{path: {{value: /a}}}}], filters: [{{type: RequestRedirect, requestRedirect: {redirect}}}]}}"
    front.serve(with_pods(pods, gateway(), route("web", f"{{rules: [{rule}]}}")))
    assert [front.get("a.com", path).location for path in ("/a", "/a/", "/a?b")] == [
        "http://a.com/new",
        "http://a.com/new/",
        "http://a.com/new?b",
    ]


def test_gateways_with_addresses_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pods: Pods) -> None:
    """Each of two Gateways has all hosts of port 80; one has a port more, for TLS and for a single host."""
    monkeypatch.setattr(Nginx, "_watch", lambda _: None)
    home = Home("ingress-readable", "app=ingress")
    front = Front(tmp_path / "run", monkeypatch, home)
    more = """
    - {name: http, port: 80, protocol: HTTP}
    - {name: one, port: 81, protocol: HTTP, hostname: a.com}
    - {name: https, port: 443, protocol: HTTPS, hostname: a.com, tls: {certificateRefs: [{name: real}]}}
    """
    both = (gateway("way"), gateway("two", more))
    to = "rules: [{backendRefs: [{name: %s, port: 80}]}]"
    first = route("first", f"{{{to % 'one'}}}")
    second = route("second", f"{{parentRefs: [{{name: two}}], {to % 'two'}}}")
    asked = ingress("x", rules("a.com", ("/", "Prefix", "none")))
    certificate, mark, private = self_signed("127.0.0.1").partition("-----BEGIN PRIVATE KEY")
    pair = secret("real", certificate, mark + private)
    at = doors(both, home)
    places = (("way", 80), ("two", 80), ("two", 81), ("two", 443))
    try:
        front.serve(with_pods(pods, *both, first, second, ingresses=(asked,), Secret=listed(pair)))
        way, two, single, tls = (at[f"shop/{name}", port] for name, port in places)
        assert [front.get("a.com", door=door).pod for door in (way, two, single)] == ["one", "two", "two"]
        assert front.get("b.com", door=way).pod == "one"
        assert front.get("b.com", door=single).status == 404, "no listener of that port is for this host"
        assert front.get("a.com").status == 503, "Ingresses have their own port"
        assert front.get("a.com", scheme="https", door=tls).pod == "two"
        with pytest.raises(OSError, match="unrecognized name"):
            front.get("b.com", scheme="https", door=tls)
    finally:
        front.controller.nginx.stop()


def test_beside_ingresses(front: Front, pods: Pods) -> None:
    asked = ingress("x", rules("a.com", ("/", "Prefix", "two")))
    web = route("web", "{hostnames: [a.com, b.com], rules: [{backendRefs: [{name: one, port: 80}]}]}")
    front.serve(with_pods(pods, gateway(), web, ingresses=(asked,)))
    assert [front.get(host).pod for host in ("a.com", "b.com", "c.com")] == ["two", "one", ""]


def test_the_route_of_the_verification_workload(front: Front, pods: Pods) -> None:
    made = [body for _, body in gateway_workload.manifests("readable", "shop", "one", "two")]
    for body in made:
        body["metadata"]["namespace"] = "shop"
    front.serve(with_pods(pods, *made))
    wanted = gateway_workload.ways("one", "two")
    assert {asked: front.get(gateway_workload.HOST, asked).pod for asked in wanted} == wanted
    assert front.get("unknown.yash.com").status == 404


def test_endpoints_are_followed(front: Front, pods: Pods) -> None:
    web = route("web", "{rules: [{backendRefs: [{name: one, port: 80}]}]}")
    seen = with_pods(pods, gateway(), web)
    seen["EndpointSlice"] = listed(elsewhere(endpoints("one", "127.0.0.1")))
    front.serve(seen)
    assert front.get("a.com").status == 503
    front.serve(with_pods(pods, gateway(), web))
    assert _until(lambda: front.get("a.com").pod) == "one"


def _until(look: Any) -> Any:
    import time  # noqa: PLC0415

    end = time.monotonic() + 20
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.02)
    return found
