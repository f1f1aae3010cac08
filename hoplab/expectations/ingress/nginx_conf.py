"""nginx.conf, as far as lessons look at it: server blocks, their locations, and the upstreams behind these."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from hoplab.expectations.ingress import Access, Limits, Served

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<mark>[{};])|"(?P<double>(?:\\.|[^"\\])*)"|'(?P<single>(?:\\.|[^'\\])*)'
                        |(?P<word>(?:\\.|\$\{\w+\}|[^\s{};"'\\])(?:\\.|\$\{\w+\}|[^\s{};\\])*)""",
    re.VERBOSE | re.DOTALL,
)

# A line of the access log as roles ask for it:
# 192.168.77.1 http://app1.yash.com "GET /login HTTP/1.1" 200 -> 10.244.1.3:8080 200
_LINE = re.compile(
    r'(?P<client>\S+) \w+://(?P<host>\S+) "\S+ (?P<path>\S+)[^"]*" (?P<status>\d{3}) '
    r"-> (?P<asked>\S+(?:, \S+)*) \S+(?:, \S+)*$"
)


_SIZE = {"k": 1024, "m": 1024**2, "g": 1024**3}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MEASURE = re.compile(r"(\d+)([a-z]*)", re.IGNORECASE)
_DEFAULTS = {"client_max_body_size": "1m", "proxy_read_timeout": "60s"}  # nginx's own


def size(text: str) -> int | None:
    """Return the bytes of a size of nginx, ``8m``; None for 0, which means without a limit, and what is no size."""
    found = _MEASURE.fullmatch(text)
    if not found or (unit := found[2].lower()) not in ("", *_SIZE):
        return None
    return int(found[1]) * _SIZE.get(unit, 1) or None


def seconds(text: str) -> float | None:
    """Return the seconds of a time of nginx, ``60s`` or ``1m30s``; None for what is no time."""
    parts = [(int(number), unit.lower() or "s") for number, unit in _MEASURE.findall(text)]
    if not parts or "".join(match[0] for match in _MEASURE.finditer(text)) != text.replace(" ", ""):
        return None
    if any(unit not in _SECONDS for _, unit in parts):
        return None
    return sum(number * _SECONDS[unit] for number, unit in parts)


@dataclass(frozen=True)
class Directive:
    """``server 10.244.1.3:8080;`` or ``location /login { ... }``."""

    words: tuple[str, ...]
    block: tuple[Directive, ...] = ()

    def find(self, name: str) -> Iterator[Directive]:
        """Yield the directives of that name in it, at any depth."""
        for directive in self.block:
            if directive.words[:1] == (name,):
                yield directive
            yield from directive.find(name)

    def value(self, name: str) -> tuple[str, ...]:
        return next((directive.words[1:] for directive in self.find(name)), ())

    def own(self, name: str) -> str:
        """Return the value of the directive of that name directly in it; "" without one."""
        return next((" ".join(found.words[1:]) for found in self.block if found.words[:1] == (name,)), "")


def parse(text: str) -> Directive:
    """Return the whole file as one block; an unclosed block ends with it."""
    words: list[str] = []
    stack: list[tuple[list[str], list[Directive]]] = [([], [])]
    for token in _TOKEN.finditer(text):
        if token["mark"] == "{":
            stack.append((words, []))
            words = []
        elif token["mark"] == "}":
            if len(stack) > 1:
                head, block = stack.pop()
                stack[-1][1].append(Directive(tuple(head), tuple(block)))
            words = []
        elif token["mark"] == ";":
            stack[-1][1].append(Directive(tuple(words)))
            words = []
        else:
            kind = token.lastgroup
            if kind == "word":
                words.append(token["word"])
            elif kind:
                words.append(re.sub(r"\\([\"'\\])", r"\1", token[kind]))
    return Directive((), tuple(stack[0][1]))


def served(text: str) -> tuple[Served, ...]:
    """Return what every server block does, once for each of its names; "" is the default server."""
    whole = parse(text)
    upstreams = {
        upstream.words[1]: tuple(server.words[1] for server in upstream.find("server"))
        for upstream in whole.find("upstream")
        if len(upstream.words) > 1
    }
    outer = next(whole.find("http"), whole)  # files of a folder are included in a block that is not among them
    found = []
    for server in whole.find("server"):
        if not server.block:  # of an upstream
            continue
        paths: dict[str, tuple[str, ...]] = {}
        limits: dict[str, Limits] = {}
        for location in server.find("location"):
            target = "".join(location.value("proxy_pass")).partition("://")[2].partition("/")[0].partition("$")[0]
            path = location.words[-1].rstrip("/") or "/"
            if path not in paths:
                paths[path] = upstreams.get(target, ())
                limits[path] = _limits((location, server, outer))
        found += [Served("" if name == "_" else name, paths, limits) for name in server.value("server_name")]
    return tuple(found)


def _limits(blocks: tuple[Directive, ...]) -> Limits:
    """Return the limits of a location, given with the blocks around it; the innermost decides."""

    def value(name: str) -> tuple[str, str]:
        for block in blocks:
            if given := block.own(name):
                place = " ".join(block.words[:1]) or "http"
                return given, f"{name} {given} ({place} of its configuration)"
        return _DEFAULTS[name], f"{name} {_DEFAULTS[name]} (nginx's default)"

    (body, body_from), (silence, silence_from) = value("client_max_body_size"), value("proxy_read_timeout")
    return Limits(size(body), seconds(silence), body_from, silence_from)


def access(line: str) -> Access | None:
    """Return a line of the access log, in the log format that the roles set; None for other lines."""
    if not (found := _LINE.search(line.rstrip())):
        return None
    last = found["asked"].split(", ")[-1]  # "10.244.1.3:8080, 10.244.0.3:8080" when the first did not answer
    upstream = "" if last == "-" else last
    return Access(found["client"], found["host"], found["path"], int(found["status"]), upstream, line.strip())
