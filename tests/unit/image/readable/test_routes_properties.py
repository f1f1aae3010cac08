"""Which rule a request goes to: the configuration against the specification's words, for made-up rules and requests."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus

from hypothesis import given, settings
from hypothesis import strategies as st

from hoplab.expectations.ingress import nginx_conf
from hoplab.image.readable import conf
from hoplab.image.readable.gateway import gateways
from hoplab.image.readable.routes import Match, common, fits
from tests.support.gateway_objects import cluster, gateway, route

# Most values are the same few, so that several rules are for a request; an odd one is there now and then.
PATHS = st.sampled_from(["/", "/a", "/a", "/a/", "/a/b", "/ab", "/a.b", "/A"])
ODD = st.sampled_from(["y z", "x&y", "$x", 'q"\\', "ä", "x.y", "xzy"])
WORDS = st.integers(0, 9).flatmap(lambda number: ODD if number == 0 else st.just("x"))
NAMES = st.sampled_from(["one", "one", "two", "t.o"])
PAIRS = st.dictionaries(NAMES, WORDS, max_size=2)
METHODS = st.sampled_from(["GET", "GET", "POST"])
HEADERS = st.dictionaries(st.sampled_from(["one", "two"]), WORDS.filter(str.isascii), max_size=2)
YES_OR_NO = st.booleans()
BOTH = {"one": "x", "two": "x"}
ASKED = st.sampled_from(["/a", "/a", "/a/b", "/ab", "/aXb", "/"])


@st.composite
def matches(draw: st.DrawFn) -> dict[str, Any]:
    found: dict[str, Any] = {"path": {"type": draw(st.sampled_from(["Exact", "PathPrefix"])), "value": draw(PATHS)}}
    if draw(YES_OR_NO):
        found["method"] = draw(METHODS)
    for field, pairs in (("headers", draw(HEADERS)), ("queryParams", draw(PAIRS))):
        if draw(YES_OR_NO) and pairs:
            found[field] = [{"name": name, "value": value} for name, value in pairs.items()]
    return found


ROUTES = st.lists(st.lists(st.lists(matches(), min_size=1, max_size=2), min_size=1, max_size=2), min_size=1, max_size=3)
DATES = st.lists(st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]), min_size=3, max_size=3)


def elements(path: str) -> list[str]:
    return [element for element in path.split("/") if element]


def holds(match: dict[str, Any], path: str, method: str, headers: dict[str, str], query: list[tuple[str, str]]) -> bool:
    """Whether a request is of a match, in the specification's words."""
    kind, value = match["path"]["type"], match["path"]["value"]
    given_path = path == value if kind == "Exact" else elements(path)[: len(elements(value))] == elements(value)
    first: dict[str, str] = {}
    for name, text in query:
        first.setdefault(name, text)
    return (
        given_path
        and match.get("method", method) == method
        and all(headers.get(item["name"]) == item["value"] for item in match.get("headers", ()))
        and all(first.get(item["name"]) == item["value"] for item in match.get("queryParams", ()))
    )


def merit(match: dict[str, Any]) -> tuple[Any, ...]:
    """What the specification compares, the better the greater."""
    path = match["path"]
    length = len(path["value"]) if path["type"] == "Exact" else len("/" + "/".join(elements(path["value"])))
    counts = (len(match.get("headers", ())), len(match.get("queryParams", ())))
    return path["type"] == "Exact", length, "method" in match, *counts


def chosen(text: str, method: str, headers: dict[str, str], args: str, path: str) -> str:
    """The rule that nginx finds with a configuration: the first line of the map that fits the key."""
    (found,) = (each for each in nginx_conf.parse(text).find("map") if each.words[-1].startswith("$rule"))
    values = {"$request_method": method, "$args": args, "$uri": path}
    parts = [values.get(name, headers.get(name.removeprefix("$http_"), "")) for name in found.words[1].split("\\n")]
    for line in found.block:
        pattern, rule = line.words
        if pattern != "default" and re.search(
            pattern.removeprefix("~").replace(r"\z", r"\Z").replace("\\n", "\n"), "\n".join(parts)
        ):
            return rule
    return "none"


@settings(max_examples=400)
@given(
    ROUTES,
    DATES,
    METHODS,
    st.one_of(st.just(BOTH), st.just(BOTH), HEADERS),
    st.one_of(st.just([*BOTH.items()]), st.just([*BOTH.items()]), st.lists(st.tuples(NAMES, WORDS), max_size=3)),
    ASKED,
    st.booleans(),
)
def test_the_first_line_that_fits_is_the_rule_of_the_specification(
    asked: list[list[list[dict[str, Any]]]],
    dates: list[str],
    method: str,
    headers: dict[str, str],
    query: list[tuple[str, str]],
    path: str,
    plus: bool,
) -> None:
    routes = []
    for number, rules in enumerate(asked):
        found = route(f"r{number}", "{rules: []}", creationTimestamp=dates[number])
        found["spec"]["rules"] = [{"matches": rule, "backendRefs": [{"name": "one", "port": 80}]} for rule in rules]
        routes.append(found)
    best: tuple[Any, ...] | None = None
    name = "none"
    for number in sorted(range(len(asked)), key=lambda number: (dates[number], number)):  # the older, then by name
        for index, rule in enumerate(asked[number]):
            for match in rule:
                if holds(match, path, method, headers, query) and (best is None or merit(match) > best):
                    best, name = merit(match), f"shop/r{number}/{index}"
    seen = cluster(gateway(), *routes)
    text = conf.configuration([], seen, gateways(seen))

    code = quote_plus if plus else quote
    args = "&".join(f"{key}={code(value, safe='')}" for key, value in query)
    assert parse_qsl(args, keep_blank_values=True) == query
    assert chosen(text, method, headers, args, path) == name


LABELS = st.sampled_from(["a", "b"])
NAMED = st.lists(LABELS, min_size=1, max_size=3).map(".".join)
HOSTS = st.one_of(st.just(""), NAMED, NAMED.map("*.{}".format))


def of(pattern: str, host: str) -> bool:
    """Whether a host is of a pattern, by labels."""
    labels, wanted = host.split("."), pattern.split(".")
    if pattern == "":
        return True
    if wanted[0] == "*":
        return len(labels) >= len(wanted) and labels[-len(wanted) + 1 :] == wanted[1:]
    return labels == wanted


@given(HOSTS, HOSTS, NAMED)
def test_what_two_patterns_have_in_common(one: str, other: str, host: str) -> None:
    found = common(one, other)
    assert (found is not None and of(found, host)) == (of(one, host) and of(other, host))
    assert found == common(other, one)
    assert fits(one, host) == of(one, host)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
def test_what_somebody_wrote_stays_one_word(text: str) -> None:
    read = nginx_conf.parse(f'a {conf.quoted(text)}; b "x{conf.literal(text)}";').block
    assert [directive.words[0] for directive in read] == ["a", "b"]
    assert all(len(directive.words) == 2 for directive in read)
    if "\\" not in text:  # which the reader of configurations does not undo before an n
        assert read[1].words[1].replace("${dollar}", "$").replace("\\n", "\n") == "x" + text


@given(WORDS, WORDS, st.booleans())
def test_a_parameter_of_a_query(name: str, value: str, other_first: bool) -> None:
    pattern = conf.pattern(Match(query=((name, value),)), (), method=False, query=True)
    right = f"{quote(name, safe='')}={quote(value, safe='')}"
    more = f"other=1&{right}" if other_first else f"{right}&{quote(name, safe='')}=2"
    assert re.match(pattern.replace(r"\z", r"\Z"), f"{more}\n/")
    assert not re.match(pattern.replace(r"\z", r"\Z"), f"{right}0\n/")
    assert not re.match(pattern.replace(r"\z", r"\Z"), f"{quote(name, safe='')}=other&{right}\n/")
