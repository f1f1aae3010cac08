"""What Gateways and HTTPRoutes ask for together: listeners, the routes of each, and the hosts that are served; pure.

    Gateway, GatewayClass, Secret, ReferenceGrant -> listeners()  -> Listener
    HTTPRoute                                     -> attach()     -> Attachment, one for each parent of a route
    both                                          -> hosts()      -> Host, a server block of nginx.conf

`addresses` has where each Gateway is reached. Where all of them share the nodes' addresses, a listener with the port
and the hostname of an older one is in conflict with it, and one on another port than 80 and 443 is not served.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from hoplab.image.readable.addresses import PORTS, SHARED, Home, doors, ports
from hoplab.image.readable.api import Object, key
from hoplab.image.readable.objects import CONTROLLER, Certificate, Objects, certificate_of
from hoplab.image.readable.routes import GROUP, Match, Problem, Rule, common, fits, granted, ordered, rules, specific

KIND = (GROUP, "HTTPRoute")  # the kind of routes that we know


@dataclass(frozen=True, eq=False)
class Listener:
    """A listener of a Gateway of ours, right or wrong."""

    gateway: str  # "namespace/name"
    name: str
    port: int
    door: int  # the port of our pods that it leads to, 0 where there is none
    protocol: str
    hostname: str  # "a.com", "*.com", "" for every host
    certificate: Certificate | None
    allowed: Mapping[str, object]  # allowedRoutes
    problems: tuple[Problem, ...] = ()

    @property
    def served(self) -> bool:
        return not any(problem.condition in ("Accepted", "ResolvedRefs") for problem in self.problems)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of routes that may attach to it; of all kinds we know one, which is for HTTP."""
        given = self.allowed.get("kinds")
        asked = [(kind.get("group", GROUP), kind["kind"]) for kind in given] if isinstance(given, list) else []
        return ("HTTPRoute",) if self.protocol in PORTS and (not asked or KIND in asked) else ()


@dataclass(frozen=True)
class Attachment:
    """A route and one of its parents of ours: what came of it."""

    route: str
    parent: Object  # the parentRef
    # those that took it, each with the hosts that it may have there, and which of its own hostnames each comes from
    listeners: tuple[tuple[Listener, tuple[tuple[str, str], ...]], ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Host:
    """A server block: what nginx does for one hostname of a listener."""

    name: str
    listener: Listener
    matches: tuple[tuple[Match, Rule], ...]  # in the order in which they are tried


@dataclass(frozen=True)
class Gateways:
    """All Gateways of ours and their routes."""

    listeners: tuple[Listener, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    hosts: tuple[Host, ...] = ()

    @property
    def certificates(self) -> set[Certificate]:
        return {host.listener.certificate for host in self.hosts if host.listener.certificate}


def our_classes(seen: Objects) -> dict[str, Object]:
    """The GatewayClasses that name us, by name."""
    classes = seen["GatewayClass"].values()
    return {item["metadata"]["name"]: item for item in classes if item["spec"]["controllerName"] == CONTROLLER}


def our_gateways(seen: Objects) -> list[Object]:
    """The Gateways of our classes, the oldest first."""
    classes = our_classes(seen)
    found = [gateway for gateway in seen["Gateway"].values() if gateway["spec"]["gatewayClassName"] in classes]
    return sorted(found, key=lambda gateway: (gateway["metadata"].get("creationTimestamp", ""), key(gateway)))


def gateways(
    seen: Objects,
    unusable: Collection[Certificate] = (),
    taken: Collection[tuple[int, str]] = (),
    home: Home | None = None,
) -> Gateways:
    """What is asked for; nginx refuses the ``unusable`` certificates, Ingresses have ``taken`` doors and hosts."""
    if "Gateway" not in seen:  # the lab has no Gateway API
        return Gateways()
    found = tuple(listeners(seen, unusable, home))
    routes = sorted(seen["HTTPRoute"].values(), key=key)
    asked = {key(route): rules(route, seen) for route in routes}
    attachments = tuple(
        attachment for route in routes for attachment in attach(route, found, asked[key(route)][1], seen)
    )
    return Gateways(found, attachments, tuple(hosts(found, attachments, {r: a for r, (a, _) in asked.items()}, taken)))


# --- Listeners


def listeners(seen: Objects, unusable: Collection[Certificate], home: Home | None) -> Iterator[Listener]:
    every = our_gateways(seen)
    claimed: dict[tuple[int, str], str] = {}
    at = doors(every, home)
    for gateway in every:
        for given in gateway["spec"]["listeners"]:
            found = _listener(gateway, given, at.get((key(gateway), given["port"]), 0), seen, unusable)
            place = (found.door, found.hostname)
            if found.served and claimed.setdefault(place, found.gateway) != found.gateway:
                text = f"{claimed[place]} has the port {found.port} and the host {found.hostname or '*'} already"
                wrong = (Problem("Conflicted", "HostnameConflict", text), Problem("Accepted", "HostnameConflict", text))
                found = _with(found, wrong)
            yield found


def _with(listener: Listener, problems: Iterable[Problem]) -> Listener:
    parts = (listener.gateway, listener.name, listener.port, listener.door, listener.protocol, listener.hostname)
    return Listener(*parts, listener.certificate, listener.allowed, (*listener.problems, *problems))


def _listener(gateway: Object, given: Object, door: int, seen: Objects, unusable: Collection[Certificate]) -> Listener:
    problems = []
    certificate: Certificate | None = None
    protocol, port = given["protocol"], given["port"]
    if protocol not in PORTS:
        problems.append(Problem("Accepted", "UnsupportedProtocol", f"{protocol} is not HTTP or HTTPS"))
    elif (first := ports(gateway)[port]) != protocol:
        text = f"another listener has the port {port} for {first}"
        problems += [Problem("Conflicted", "ProtocolConflict", text), Problem("Accepted", "ProtocolConflict", text)]
    elif door in (0, *SHARED.values()) and PORTS[protocol] != port:
        text = f"{protocol} is served on port {PORTS[protocol]}, not on {port}"
        problems.append(Problem("Accepted", "PortUnavailable", text))
    allowed = given.get("allowedRoutes", {})
    unknown = [kind["kind"] for kind in allowed.get("kinds", ()) if (kind.get("group", GROUP), kind["kind"]) != KIND]
    if unknown:
        text = f"only HTTPRoutes are served, not {', '.join(unknown)}"
        problems.append(Problem("ResolvedRefs", "InvalidRouteKinds", text))
    if protocol == "HTTPS":
        wanted = _certificate(gateway, given.get("tls", {}), seen, unusable)
        if isinstance(wanted, Problem):
            problems.append(wanted)
        else:
            certificate = wanted
    hostname = given.get("hostname", "")
    return Listener(key(gateway), given["name"], port, door, protocol, hostname, certificate, allowed, tuple(problems))


def _certificate(
    gateway: Object, tls: Object, seen: Objects, unusable: Collection[Certificate]
) -> Certificate | Problem:
    """The first certificate of a listener, which is the one that every controller has to serve."""
    if tls.get("mode", "Terminate") != "Terminate":
        return Problem("Accepted", "UnsupportedValue", f"TLS is terminated here, there is no mode {tls['mode']}")
    namespace = gateway["metadata"]["namespace"]
    ref: Object = next(iter(tls.get("certificateRefs", ())), {})
    where, name = ref.get("namespace", namespace), ref.get("name", "")
    if (ref.get("group", ""), ref.get("kind", "Secret")) != ("", "Secret"):
        return Problem("ResolvedRefs", "InvalidCertificateRef", f"{ref['kind']} {name} is no Secret")
    if not granted(("Gateway", namespace), ("Secret", where, name), seen):
        return Problem("ResolvedRefs", "RefNotPermitted", f"no ReferenceGrant in {where} allows the secret {name}")
    found = certificate_of(f"{where}/{name}", seen)
    if found is None:
        text = f"there is no secret {where}/{name} of type kubernetes.io/tls"
        return Problem("ResolvedRefs", "InvalidCertificateRef", text)
    if found in unusable:
        return Problem("ResolvedRefs", "InvalidCertificateRef", f"nginx cannot use the certificate in {where}/{name}")
    return found


# --- Routes


def attach(
    route: Object, found: Iterable[Listener], problems: Iterable[Problem], seen: Objects
) -> Iterator[Attachment]:
    """What came of each of a route's parents that is a Gateway of ours."""
    ours = {key(gateway) for gateway in our_gateways(seen)}
    namespace = route["metadata"]["namespace"]
    for parent in route["spec"].get("parentRefs", ()):
        gateway = f"{parent.get('namespace', namespace)}/{parent['name']}"
        if (parent.get("group", GROUP), parent.get("kind", "Gateway")) != (GROUP, "Gateway") or gateway not in ours:
            continue
        meant = [
            listener
            for listener in found
            if (listener.gateway, parent.get("sectionName", listener.name), parent.get("port", listener.port))
            == (gateway, listener.name, listener.port)
        ]
        letting = [listener for listener in meant if _lets_in(listener, namespace, seen)]
        matching = [(listener, _hosts_of(listener, route)) for listener in letting]
        taking = tuple((listener, names) for listener, names in matching if names)
        wrong = list(problems)
        if not meant:
            wrong.append(Problem("Accepted", "NoMatchingParent", f"{gateway} has no such listener"))
        elif not letting:
            text = f"no listener of {gateway} allows HTTPRoutes of {namespace}"
            wrong.append(Problem("Accepted", "NotAllowedByListeners", text))
        elif not taking:
            text = f"no listener of {gateway} is for a host of this route"
            wrong.append(Problem("Accepted", "NoMatchingListenerHostname", text))
        accepted = all(problem.condition != "Accepted" for problem in wrong)
        yield Attachment(key(route), parent, taking if accepted else (), tuple(wrong))


def _lets_in(listener: Listener, namespace: str, seen: Objects) -> bool:
    if not listener.kinds:
        return False
    given = listener.allowed.get("namespaces")
    allowed = given if isinstance(given, Mapping) else {}
    match allowed.get("from", "Same"):
        case "All":
            return True
        case "Same":
            return listener.gateway.partition("/")[0] == namespace
        case "Selector":
            labels = seen["Namespace"].get(f"/{namespace}", {}).get("metadata", {}).get("labels", {})
            return selects(allowed.get("selector", {}), labels)
    return False


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects an object with these labels."""

    def holds(name: str, operator: str, values: Collection[str]) -> bool:
        return {
            "In": labels.get(name) in values,
            "NotIn": labels.get(name) not in values,
            "Exists": name in labels,
            "DoesNotExist": name not in labels,
        }[operator]

    equal = all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
    expressions = selector.get("matchExpressions", ())
    return equal and all(holds(part["key"], part["operator"], part.get("values", ())) for part in expressions)


def _hosts_of(listener: Listener, route: Object) -> tuple[tuple[str, str], ...]:
    """The hosts that a route may have at a listener, each with the hostname of the route that it comes from."""
    names = [(common(listener.hostname, own), own) for own in route["spec"].get("hostnames") or [""]]
    return tuple((name, own) for name, own in names if name is not None)


# --- Hosts


def hosts(
    found: Iterable[Listener],
    attachments: Iterable[Attachment],
    asked: Mapping[str, Iterable[Rule]],
    taken: Collection[tuple[int, str]],
) -> Iterator[Host]:
    """The server blocks of all listeners that are served.

    A request goes to the most specific listener for its host, and only to routes of that one. There it goes to the
    routes with the most specific hostname that fits; where none of these matches it, to the next. What counts is the
    hostname that a route itself has: of "*.com" and "a.com" at a listener for "a.com" the second is more specific.
    """
    routes: dict[Listener, dict[str, list[Rule]]] = {listener: {} for listener in found if listener.served}
    served = {listener: {listener.hostname} for listener in routes}
    for attachment in attachments:
        for listener, names in attachment.listeners:
            for name, own in names if listener in routes else ():
                served[listener].add(name)
                known = routes[listener].setdefault(own, [])
                known += [rule for rule in asked[attachment.route] if rule not in known]
    for listener, by_host in routes.items():
        others = [other for other in routes if other.door == listener.door]
        for name in sorted(served[listener]):
            nearest = max((other for other in others if fits(other.hostname, name)), key=_specific)
            if nearest is listener and (listener.door, name) not in taken:
                fitting = {host: group for host, group in by_host.items() if fits(host, name)}
                yield Host(name, listener, tuple(ordered(fitting)))


def _specific(listener: Listener) -> tuple[bool, int]:
    return specific(listener.hostname)
