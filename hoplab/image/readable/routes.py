"""What an HTTPRoute asks for: rules, each with its matches, filters and backends; pure.

`order` has the precedence of the Gateway API's specification (HTTPRouteRule.matches): where several rules match a
request, the first of the order decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hoplab.image.readable.api import Object, key
from hoplab.image.readable.objects import Backend, Objects, service_port

GROUP = "gateway.networking.k8s.io"
FILTERS = ("RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect")


@dataclass(frozen=True)
class Match:
    """A condition on requests: all of its parts hold."""

    path: str = "/"  # without a slash at its end, unless it is exact
    exact: bool = False
    method: str = ""  # "" for every method
    headers: tuple[tuple[str, str], ...] = ()  # name in lower case, value
    query: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Headers:
    """Changes to the headers of a request or a response."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True)
class Redirect:
    """An answer that sends the client elsewhere. What is "" or 0 is as in the request."""

    code: int = 302
    scheme: str = ""
    host: str = ""
    port: int = 0
    path: str | None = None
    prefix: str = ""  # the prefix that ``path`` replaces; "" where it replaces the whole path


@dataclass(frozen=True)
class Rule:
    """One rule of a route."""

    route: str  # "namespace/name"
    number: int
    made: str  # when the route was made
    matches: tuple[Match, ...]
    shares: tuple[tuple[Backend | None, int], ...] = ()  # backend and weight; None for what is not to be had
    request: Headers = Headers()
    response: Headers = Headers()
    redirect: Redirect | None = None

    @property
    def name(self) -> str:
        """Its name in nginx.conf. It does not begin with a slash, so that no client can request it."""
        return f"{self.route}/{self.number}"


@dataclass(frozen=True)
class Problem:
    """What is wrong with an object: a condition of it is False, for this reason."""

    condition: str
    reason: str
    message: str


def rules(route: Object, seen: Objects) -> tuple[list[Rule], list[Problem]]:
    """The rules of a route, and what is wrong with it. A route with a wrong "Accepted" has no rules."""
    problems: list[Problem] = []
    found = [_rule(route, number, given, seen, problems) for number, given in enumerate(route["spec"].get("rules", ()))]
    accepted = all(problem.condition != "Accepted" for problem in problems)
    return (found if accepted else []), problems


def _rule(route: Object, number: int, given: Object, seen: Objects, problems: list[Problem]) -> Rule:
    conditions: Iterable[Object] = given.get("matches") or ({},)
    matches = tuple(_match(match, problems) for match in conditions)
    changes = {"RequestHeaderModifier": Headers(), "ResponseHeaderModifier": Headers()}
    redirect = None
    for filter_ in given.get("filters", ()):
        kind = filter_["type"]
        if kind in changes:
            changes[kind] = _headers(filter_[kind[0].lower() + kind[1:]])
        elif kind == "RequestRedirect":
            redirect = _redirect(filter_["requestRedirect"], matches)
        else:
            problems.append(Problem("Accepted", "UnsupportedValue", f"there is no filter {kind} here"))
    namespace = route["metadata"]["namespace"]
    shares = []
    for ref in given.get("backendRefs", ()):
        if ref.get("filters"):
            problems.append(Problem("Accepted", "UnsupportedValue", "filters of a backend are not supported"))
        backend = _backend(ref, namespace, seen)
        if isinstance(backend, Problem):
            problems.append(backend)
        shares.append((None if isinstance(backend, Problem) else backend, ref.get("weight", 1)))
    return Rule(
        key(route),
        number,
        route["metadata"].get("creationTimestamp", ""),
        matches,
        tuple(shares),
        changes["RequestHeaderModifier"],
        changes["ResponseHeaderModifier"],
        redirect,
    )


def _match(given: Object, problems: list[Problem]) -> Match:
    path = given.get("path") or {}
    parts = [path, *given.get("headers", ()), *given.get("queryParams", ())]
    if any(part.get("type") == "RegularExpression" for part in parts):
        problems.append(Problem("Accepted", "UnsupportedValue", "regular expressions are not supported"))
    text, exact = path.get("value", "/"), path.get("type") == "Exact"
    return Match(
        text if exact else text.rstrip("/") or "/",
        exact,
        given.get("method", ""),
        _pairs(given.get("headers", ()), lower=True),
        _pairs(given.get("queryParams", ()), lower=False),
    )


def _pairs(given: Iterable[Object], *, lower: bool) -> tuple[tuple[str, str], ...]:
    """Names and values; of a name that is there twice the first counts."""
    found: dict[str, str] = {}
    for item in given:
        found.setdefault(item["name"].lower() if lower else item["name"], item["value"])
    return tuple(found.items())


def _headers(given: Object) -> Headers:
    to_set, to_add = (_pairs(given.get(action, ()), lower=True) for action in ("set", "add"))
    return Headers(to_set, to_add, tuple(name.lower() for name in given.get("remove", ())))


def _redirect(given: Object, matches: tuple[Match, ...]) -> Redirect:
    path = given.get("path") or {}
    by_prefix = path.get("type") == "ReplacePrefixMatch"  # the API server lets it be with a single PathPrefix only
    return Redirect(
        given.get("statusCode", 302),
        given.get("scheme", ""),
        given.get("hostname", ""),
        given.get("port", 0),
        path.get("replacePrefixMatch", path.get("replaceFullPath")),
        matches[0].path if by_prefix else "",
    )


def _backend(ref: Object, namespace: str, seen: Objects) -> Backend | Problem:
    group, kind, name = ref.get("group", ""), ref.get("kind", "Service"), ref["name"]
    where = ref.get("namespace", namespace)
    if (group, kind) != ("", "Service"):
        return Problem("ResolvedRefs", "InvalidKind", f"{kind} {name} is no Service")
    if not granted(("HTTPRoute", namespace), ("Service", where, name), seen):
        return Problem("ResolvedRefs", "RefNotPermitted", f"no ReferenceGrant in {where} allows the service {name}")
    backend = Backend(where, name, str(ref.get("port", "")))
    if service_port(backend, seen) is None:
        return Problem(
            "ResolvedRefs", "BackendNotFound", f"there is no port {backend.port} of a service {where}/{name}"
        )
    return backend


def granted(source: tuple[str, str], target: tuple[str, str, str], seen: Objects) -> bool:
    """Whether an object (its kind and namespace) may refer to another of the core group (kind, namespace, name).

    In its own namespace always; in another one where a ReferenceGrant there allows it.
    """
    (kind, namespace), (target_kind, where, name) = source, target
    return namespace == where or any(
        (entry["group"], entry["kind"], entry["namespace"]) == (GROUP, kind, namespace)
        and (to["group"], to["kind"]) == ("", target_kind)
        and to.get("name", name) == name
        for grant in seen["ReferenceGrant"].values()
        if grant["metadata"]["namespace"] == where
        for entry in grant["spec"]["from"]
        for to in grant["spec"]["to"]
    )


# --- Hosts and precedence


def fits(pattern: str, host: str) -> bool:
    """Whether a host, or every host of a second pattern, is of this one: "", "a.com", "*.com" (a label or more)."""
    return pattern in ("", host) or (pattern.startswith("*.") and host.endswith(pattern[1:]))


def common(one: str, other: str) -> str | None:
    """The pattern of the hosts that are of both patterns; None where there is none."""
    return next((second for first, second in ((one, other), (other, one)) if fits(first, second)), None)


def specific(pattern: str) -> tuple[bool, int]:
    """How much a pattern says: more for a name than for a wildcard, more for a longer one."""
    return not pattern.startswith("*.") and pattern != "", len(pattern)


def order(host: str, rule: Rule, match: Match) -> tuple[object, ...]:
    """The key by which matches are sorted: those that are tried first come first."""
    name, length = specific(host)
    conditions = (not match.exact, -len(match.path), not match.method, -len(match.headers), -len(match.query))
    return (not name, -length, *conditions, rule.made, rule.route, rule.number)


def ordered(routes: Mapping[str, Iterable[Rule]]) -> list[tuple[Match, Rule]]:
    """The matches of rules, given by the host that they are for, in the order in which they are tried."""
    found = [(host, rule, match) for host, group in routes.items() for rule in group for match in rule.matches]
    found.sort(key=lambda entry: order(*entry))
    return [(match, rule) for _, rule, match in found]
