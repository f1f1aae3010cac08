"""nginx.conf, as far as lessons look at it: server blocks, their locations, and the upstreams behind these."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from hoplab.expectations.ingress import Access, Served

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
    found = []
    for server in whole.find("server"):
        if not server.block:  # of an upstream
            continue
        paths: dict[str, tuple[str, ...]] = {}
        for location in server.find("location"):
            target = "".join(location.value("proxy_pass")).partition("://")[2].partition("/")[0]
            path = location.words[-1].rstrip("/") or "/"
            paths.setdefault(path, upstreams.get(target, ()))
        found += [Served("" if name == "_" else name, paths) for name in server.value("server_name")]
    return tuple(found)


def access(line: str) -> Access | None:
    """Return a line of the access log, in the log format that the roles set; None for other lines."""
    if not (found := _LINE.search(line.rstrip())):
        return None
    last = found["asked"].split(", ")[-1]  # "10.244.1.3:8080, 10.244.0.3:8080" when the first did not answer
    upstream = "" if last == "-" else last
    return Access(found["client"], found["host"], found["path"], int(found["status"]), upstream, line.strip())
