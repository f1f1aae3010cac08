"""What every ingress controller has to do, whichever one runs: the features of ingress-controller-conformance as data.

That project is not kept up any more; its list of behaviours is: host rules, path rules, classes, default backend, load
balancing, TLS. A case is an Ingress and what requests get while it exists: a service, or a status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hoplab.observe.snapshot import Node
from hoplab.verify import workload
from hoplab.verify.session import LabSession
from hoplab.verify.traffic import parse_answer
from hoplab.verify.workload import APP1, APP2

Got = str | int  # the service that answered, or the status; 0 when nobody answered
HOST = "conformance.yash.com"


@dataclass(frozen=True)
class Case:
    name: str
    ingress: Mapping[str, Any]
    gets: Mapping[str, Got]  # by URL
    also: tuple[tuple[str, Mapping[str, Any]], ...] = ()  # other objects: path, body


def paths(*given: tuple[str, str, str], host: str = HOST) -> dict[str, Any]:
    """An Ingress with one rule: (path, "Exact" or "Prefix", service)."""
    found = workload.ingress("conformance", {host: {}})
    found["spec"]["rules"][0]["http"]["paths"] = [
        {"path": path, "pathType": kind, "backend": {"service": {"name": service, "port": {"number": 80}}}}
        for path, kind, service in given
    ]
    return found


def on_host(gets: Mapping[str, Got], host: str = HOST) -> dict[str, Got]:
    return {f"http://{host}{path}": got for path, got in gets.items()}


def with_default(**more: Any) -> dict[str, Any]:
    """An Ingress with a default backend."""
    found = workload.ingress("conformance", {})
    backend = {"service": {"name": APP2, "port": {"number": 80}}}
    found["spec"] = {"ingressClassName": workload.INGRESS_CLASS, "defaultBackend": backend, **more}
    return found


def wildcard() -> dict[str, Any]:
    found = paths(("/", "Prefix", APP1), host="*.foo.com")
    found["spec"]["rules"] += paths(("/", "Prefix", APP2), host="exact.foo.com")["spec"]["rules"]
    return found


CASES = (
    Case("an exact host", paths(("/", "Prefix", APP1)), {**on_host({"/": APP1}), f"http://x{HOST}/": 404}),
    Case(
        "a wildcard is for one label, and an exact host comes first",
        wildcard(),
        {
            "http://bar.foo.com/": APP1,
            "http://exact.foo.com/": APP2,
            "http://baz.bar.foo.com/": 404,
            "http://foo.com/": 404,
        },
    ),
    Case("hosts know no case", paths(("/", "Prefix", APP1)), {f"http://{HOST.upper()}/": APP1}),
    Case(
        "an exact path",
        paths(("/foo", "Exact", APP1)),
        on_host({"/foo": APP1, "/foo/": 404, "/bar": 404, "/FOO": 404, "/foo/bar": 404, "/": 404}),
    ),
    Case(
        "the prefix / is for everything", paths(("/", "Prefix", APP1)), on_host({"/": APP1, "/a": APP1, "/a/b": APP1})
    ),
    Case(
        "a prefix goes by elements",
        paths(("/aaa/bb", "Prefix", APP1)),
        on_host({"/aaa/bb": APP1, "/aaa/bb/": APP1, "/aaa/bb/c": APP1, "/aaa/bbb": 404, "/aaa": 404, "/AAA/bb": 404}),
    ),
    Case("a prefix may end with a slash", paths(("/foo/", "Prefix", APP1)), on_host({"/foo": APP1, "/foo/": APP1})),
    Case(
        "the longest prefix wins, in any order",
        paths(("/a", "Prefix", APP1), ("/a/b/c", "Prefix", APP1), ("/a/b", "Prefix", APP2)),
        on_host({"/a/x": APP1, "/a/b": APP2, "/a/b/x": APP2, "/a/b/c/d": APP1, "/x": 404}),
    ),
    Case(
        "exact comes before prefix",
        paths(("/foo", "Prefix", APP1), ("/foo", "Exact", APP2)),
        on_host({"/foo": APP2, "/foo/": APP1, "/foo/bar": APP1}),
    ),
    Case(
        "what is no word of nginx.conf stays a path",
        paths(("/a;b", "Exact", APP1), ('/c"{d}', "Exact", APP2), ("/$e", "Exact", APP1)),
        on_host({"/a;b": APP1, "/c%22%7Bd%7D": APP2, "/$e": APP1, "/a": 404}),
    ),
    Case(
        "a rule without a host is for hosts that nobody names",
        workload.ingress("conformance", {"": {"/any": APP1}}),
        {"http://whoever.yash.com/any": APP1, "http://whoever.yash.com/": 404, f"http://{workload.HOST1}/any": APP1},
    ),
    Case(
        "a default backend is for what no rule names",
        with_default(),
        {"http://whoever.yash.com/any": APP2, f"http://{workload.HOST1}/": APP1},
    ),
    Case(
        "a default backend beside rules",
        with_default(rules=paths(("/one", "Prefix", APP1))["spec"]["rules"]),
        on_host({"/one": APP1, "/two": APP2}),
    ),
    Case(
        "a class of another controller is not ours",
        workload.ingress("conformance", {HOST: {"/": APP1}}, ingress_class="other"),
        on_host({"/": 404}),
        also=(
            (
                "/apis/networking.k8s.io/v1/ingressclasses",
                {
                    "apiVersion": "networking.k8s.io/v1",
                    "kind": "IngressClass",
                    "metadata": {"name": "other"},
                    "spec": {"controller": "example.org/other"},
                },
            ),
        ),
    ),
    Case("a service without pods", paths(("/", "Prefix", "nobody")), on_host({"/": 503})),
)


def got(session: LabSession, url: str, node: Node) -> Got:
    """What a request gets from a node."""
    reply = session.http_get(url, node)
    if reply.status != 200:
        return reply.status
    to = parse_answer(reply.body).to
    return next((service for service in (APP1, APP2) if to in session.endpoints(service)), 200)
