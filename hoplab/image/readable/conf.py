"""The text of nginx.conf: servers of Ingresses and of Gateways, and the pods that both lead to; pure.

The server of an Ingress has a location for each path. Routes of a Gateway look at more than the path: their server
finds the rule, by the first line of a `map` that fits, and goes on in the location that has the rule's name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hoplab.image.readable.gateway import Gateways, Host
from hoplab.image.readable.ingress import Server, Site, servers
from hoplab.image.readable.objects import HTTP, HTTPS, Backend, Certificate, Objects, endpoints
from hoplab.image.readable.routes import Headers, Match, Redirect, Rule

HEALTH = 8081  # a port of the pod
TEMPLATE = Path(__file__).with_name("nginx.conf.in")  # all but upstreams, maps and servers
NO_RULE = "none"  # the location of requests that no rule is for
TO_POD = re.compile(r"^ *proxy_set_header (\S+) (\S+);$", re.MULTILINE)

Upstreams = Mapping[str, list[str]]  # name -> pods


def quoted(text: str) -> str:
    """A word of nginx.conf; what somebody wrote into a path stays a path."""
    return text if re.fullmatch(r"[\w/.~-]+", text, re.ASCII) else f'"{escaped(text)}"'


def escaped(text: str) -> str:
    """A part of a quoted word."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def literal(text: str) -> str:
    """A part of a quoted word where nginx finds no variable; it has no way to quote a dollar."""
    return escaped(text).replace("$", "${dollar}")


def block(head: str, lines: Iterable[str]) -> Iterator[str]:
    """The lines of a block with those lines in it."""
    yield f"{head} {{"
    yield from (f"    {line}" for line in lines)
    yield "}"


def upstream_lines(name: str, pods: Iterable[str]) -> Iterator[str]:
    yield f"zone {name} 64k;"
    yield from (f"server {pod};" for pod in pods)
    yield "keepalive 16;"


def server_lines(server: Server, upstreams: Upstreams, elsewhere: Collection[int] = ()) -> Iterator[str]:
    """``elsewhere`` are the ports of which a Gateway has the default server."""
    last = "" if server.host else " default_server"
    if server.host or HTTP not in elsewhere:
        yield f"listen {HTTP}{last};"
    if server.certificate:
        yield f"listen {HTTPS} ssl{last};"
        yield f"ssl_certificate tls/{server.certificate.file};"
        yield f"ssl_certificate_key tls/{server.certificate.file};"
    elif not server.host and HTTPS not in elsewhere:
        yield f"listen {HTTPS} ssl default_server;"
        yield "ssl_reject_handshake on;  # there is no certificate for a host that nobody names"
    yield f"server_name {quoted(server.name or '_')};"
    for modifier, path, to in server.locations:
        action = f"proxy_pass http://{to.upstream};" if to.upstream in upstreams else "return 503;"
        yield f"location {'= ' if modifier else ''}{quoted(path)} {{ {action} }}"
    if not server.whole:
        yield "location / { return 404; }"


# --- Gateways


def encoded(text: str) -> str:
    """A regular expression for a part of a query: a character may be there as it is, or by its code."""

    def one(character: str) -> str:
        itself = r"\+" if character == " " else re.escape(character)
        code = "".join(f"%{byte:02x}" for byte in character.encode())
        return itself if re.match(r"[\w.~-]", character, re.ASCII) else f"(?:{itself}|(?i:{code}))"

    return "".join(map(one, text))


def parameter(name: str, value: str) -> str:
    """A regular expression for a query whose first parameter of that name has that value; it takes no character."""
    name = encoded(name)
    return f"(?=(?:(?!{name}=)[^&\n]*&)*{name}={encoded(value)}(?:&|\n))"


def pattern(match: Match, headers: Iterable[str], *, method: bool, query: bool) -> str:
    """The regular expression of a match, over lines with these parts of a request; the last one is the path."""
    given = dict(match.headers)
    lines = [match.method or ".*"] if method else []
    lines += [re.escape(given[name]) if name in given else ".*" for name in headers]
    if query:
        lines.append("".join(parameter(name, value) for name, value in match.query) + ".*")
    path = re.escape(match.path) + r"\z" if match.exact else re.escape(match.path) + r"(?:/|\z)"
    return "".join(f"{line}\n" for line in lines) + (path if match.exact or match.path != "/" else "/")


def map_lines(host: Host) -> tuple[str, list[str]]:
    """The key of a server's map, of the parts of a request that its rules look at, and the map's lines."""
    matches = [match for match, _ in host.matches]
    headers = sorted({name for match in matches for name, _ in match.headers})
    method, query = any(match.method for match in matches), any(match.query for match in matches)
    parts = ["$request_method"] if method else []
    parts += [f"$http_{name.replace('-', '_')}" for name in headers] + (["$args"] if query else []) + ["$uri"]
    lines = [
        f"{quoted('~^' + pattern(match, headers, method=method, query=query))} {quoted(rule.name)};"
        for match, rule in host.matches
    ]
    return '"{}"'.format("\\n".join(parts)), [f"default {NO_RULE};", *lines]


@dataclass
class Choices:
    """What rules need outside of servers: shares of weighted backends, headers that are appended. Each has a number."""

    upstreams: Upstreams
    blocks: list[list[str]] = field(default_factory=list)
    known: dict[tuple[str, ...], str] = field(default_factory=dict)

    def variable(self, kind: str, head: str, lines: Iterable[str]) -> str:
        """The variable of a block ``head $variable { lines }``, which is made once."""
        content = (kind, head, *lines)
        if content not in self.known:
            self.known[content] = f"${kind}_{len(self.known) + 1}"
            self.blocks.append(list(block(f"{head} {self.known[content]}", content[2:])))
        return self.known[content]

    def target(self, backend: Backend | None) -> str:
        """An upstream, or the status where there is none: 500 without a backend, 503 without pods."""
        if backend is None:
            return "500"
        return backend.upstream if backend.upstream in self.upstreams else "503"


def rule_lines(rule: Rule, host: Host, choices: Choices) -> Iterator[str]:
    """What a server does with the requests of a rule."""
    yield "internal;"
    for name, value in (*rule.response.set, *((name, "") for name in rule.response.remove)):
        yield f"proxy_hide_header {quoted(name)};"
        if value:
            yield f'add_header {quoted(name)} "{literal(value)}" always;'
    yield from (f'add_header {quoted(name)} "{literal(value)}" always;' for name, value in rule.response.add)
    if rule.redirect:
        yield from redirect_lines(rule.redirect, host)
        return
    yield from request_header_lines(rule, choices)
    shares = [(choices.target(backend), weight) for backend, weight in rule.shares if weight]
    total = sum(weight for _, weight in shares)
    targets = sorted({target for target, _ in shares})
    if len(targets) <= 1:
        target = targets[0] if targets else "500"
    else:
        *first, (last, _) = shares
        hundredths = [
            (name, 10_000 * weight // total) for name, weight in first
        ]  # of a percent, nginx's smallest share
        lines = [f"{share / 100:.2f}% {name};" for name, share in hundredths if share] + [f"* {last};"]
        target = choices.variable("share", "split_clients $request_id", lines)
        yield from (f"if ({target} = {code}) {{ return {code}; }}" for code in targets if code.isdecimal())
    yield f"return {target};" if target.isdecimal() else f"proxy_pass http://{target}$request_uri;"


def request_header_lines(rule: Rule, choices: Choices) -> Iterator[str]:
    """All headers for the pod; a location with one of its own inherits none."""
    if rule.request == Headers():
        return
    found = {name.lower(): (name, value) for name, value in TO_POD.findall(TEMPLATE.read_text())}
    for name, value in rule.request.set:
        found[name] = (name, f'"{literal(value)}"')
    for name, value in rule.request.add:
        present = f"$http_{name.replace('-', '_')}"
        lines = [f'"" "{literal(value)}";', f'default "{present},{literal(value)}";']
        found[name] = (name, choices.variable("header", f"map {present}", lines))
    for name in rule.request.remove:
        found[name] = (name, '""')
    yield from (f"proxy_set_header {quoted(name)} {value};" for name, value in found.values())


def redirect_lines(redirect: Redirect, host: Host) -> Iterator[str]:
    scheme = redirect.scheme or host.listener.protocol.lower()
    port = redirect.port or (host.listener.port if not redirect.scheme else 0)
    shown = f":{port}" if port and (scheme, port) not in (("http", 80), ("https", 443)) else ""
    origin = f"{scheme}://{literal(redirect.host) or '$host'}{shown}"
    if redirect.path is None:
        yield f'return {redirect.code} "{origin}$request_uri";'
        return
    path = literal(redirect.path)
    if redirect.prefix:
        base = path.rstrip("/")
        prefix = quoted(f"^{re.escape(redirect.prefix.rstrip('/'))}/([^?]*)")
        yield f'if ($request_uri ~ {prefix}) {{ return {redirect.code} "{origin}{base}/$1$is_args$args"; }}'
    yield f'return {redirect.code} "{origin}{path or "/"}$is_args$args";'


def host_lines(host: Host, rule_variable: str, choices: Choices) -> Iterator[str]:
    last = "" if host.name else " default_server"
    if host.listener.certificate:
        yield f"listen {host.listener.door} ssl{last};"
        yield f"ssl_certificate tls/{host.listener.certificate.file};"
        yield f"ssl_certificate_key tls/{host.listener.certificate.file};"
    else:
        yield f"listen {host.listener.door}{last};"
    yield f"server_name {quoted(host.name or '_')};"
    yield f"location / {{ rewrite ^ {rule_variable} last; }}"
    yield f"location = {NO_RULE} {{ return 404; }}"
    for rule in dict.fromkeys(rule for _, rule in host.matches):
        yield from block(f"location = {quoted(rule.name)}", rule_lines(rule, host, choices))


def closed_lines(door: int, *, tls: bool) -> Iterator[str]:
    """The server of a Gateway's port for hosts that none of its listeners is for."""
    yield f"listen {door} {'ssl ' if tls else ''}default_server;"
    yield "server_name _;"
    yield "ssl_reject_handshake on;" if tls else "return 404;"


# --- All of it


def configuration(sites: Iterable[Site], seen: Objects, gateways: Gateways | None = None) -> str:
    """The text of nginx.conf."""
    gateways = gateways or Gateways()
    found = servers(sites)
    backends = {to.upstream: to for server in found for _, _, to in server.locations}
    rules = dict.fromkeys(rule for host in gateways.hosts for _, rule in host.matches)
    backends |= {to.upstream: to for rule in rules for to, _ in rule.shares if to}
    upstreams = {name: pods for name, to in sorted(backends.items()) if (pods := endpoints(to, seen))}
    choices = Choices(upstreams)
    served = []
    for host in gateways.hosts:
        key, lines = map_lines(host)
        variable = choices.variable("rule", f"map {key}", lines)
        served.append(list(block("server", host_lines(host, variable, choices))))
    whole = {host.listener.door for host in gateways.hosts if not host.name}  # with a Gateway's default server
    closed = {host.listener.door: bool(host.listener.certificate) for host in gateways.hosts}
    blocks: list[Iterable[str]] = [
        *(block(f"upstream {name}", upstream_lines(name, pods)) for name, pods in upstreams.items()),
        *choices.blocks,
        *(
            block("server", server_lines(server, upstreams, whole))
            for server in found
            if server.host or not whole >= {HTTP, HTTPS}
        ),
        *served,
        *(
            block("server", closed_lines(door, tls=tls))
            for door, tls in sorted(closed.items())
            if door not in whole | {HTTP, HTTPS}
        ),
    ]
    return _whole(blocks)


def _whole(blocks: Iterable[Iterable[str]]) -> str:
    """The template with these blocks in it."""
    text = "".join("\n" + "".join(f"    {line}\n" for line in lines) for lines in blocks)
    if "${dollar}" in text:
        text = '\n    geo $dollar { default "$"; }\n' + text
    return TEMPLATE.read_text().replace("@HEALTH@", str(HEALTH)).replace("    @BLOCKS@\n", text)


def taken(sites: Iterable[Site]) -> set[tuple[int, str]]:
    """Ports of the pod and hosts that Ingresses have, "" where one of them is for hosts that nobody names."""
    found = servers(sites)
    names = {(HTTP, server.host) for server in found if server.host or server.locations}
    return names | {(HTTPS, server.host) for server in found if server.certificate and (HTTP, server.host) in names}


def with_certificate(certificate: Certificate) -> str:
    """A configuration with nothing but a certificate: whether nginx can use it."""
    file = f"tls/{certificate.file}"
    lines = [f"listen {HTTPS} ssl;", f"ssl_certificate {file};", f"ssl_certificate_key {file};"]
    return _whole([block("server", lines)])
