"""What a run found, as JUnit XML and as a page: complete, well-formed whatever was seen, and self-contained."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoplab import __version__
from hoplab.observe.outage import Outage
from hoplab.verify.causes import Cause
from hoplab.verify.report import ConsoleReporter, Outcome, Report, Result, html_text, junit_text, render_code

NASTY = "</pre><script>alert('\x1b[31m')</script><img src=x onerror=alert(1)>\" & \x00"


def result(outcome: Outcome, chapter: str = "6 NAT", claim: str = "", evidence: tuple[str, ...] = ()) -> Result:
    return Result(
        chapter=chapter,
        lesson="test_06_nat",
        name=f"test_{outcome}",
        claim=claim or f"This claim {outcome}.",
        outcome=outcome,
        saw="worker1 has `10.0.0.0/8 dev <x>`" if outcome == "passed" else "",
        why="" if outcome == "passed" else f"why it {outcome}",
        evidence=evidence,
        seconds=0.25,
    )


def report(*results: Result, recording: str = "") -> Report:
    return Report(
        "blue",
        {"nodes": "2", "CNI": "flannel vxlan"},
        {"kubernetes": "1.37.2", "containerd": "2.4.2"},
        recording=recording,
        began=datetime(2026, 11, 23, 4, 12, tzinfo=UTC),
        results=list(results),
        seconds=12.34,
        looked_seconds=10.0,
    )


MIXED = report(
    result("passed", "1 Addresses", evidence=("eth0 10.0.0.1",)),
    result("passed"),
    result("failed", evidence=("-A POSTROUTING -j RETURN", "-A KUBE -j MARK")),
    result("skipped"),
)


CAUSE = Cause(
    "test_failed", "why it failed", "./lab ssh worker1 ip route", "./lab ssh worker1 sudo true", ("test_later",)
)
CAUSED = replace(
    report(result("failed"), replace(result("failed"), name="test_later", claim="A <later> claim.", why="so it fails")),
    causes=(CAUSE, Cause("test_failed", NASTY)),
)


class Page(HTMLParser):
    """A page taken apart: tags with their attributes, the text, and whether every tag that opens is closed."""

    VOID = ("meta", "link", "input", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def having(self, word: str) -> list[dict[str, str | None]]:
        """The attributes of the tags of a class."""
        return [attrs for _, attrs in self.tags if word in (attrs.get("class") or "").split()]


# JUnit XML


def test_junit_has_a_suite_per_chapter_and_a_case_per_claim() -> None:
    root = ElementTree.fromstring(junit_text(MIXED))
    assert root.attrib == {
        "name": "hoplab verify: lab blue",
        "tests": "4",
        "failures": "1",
        "skipped": "1",
        "errors": "0",
        "time": "12.340",
    }
    suites = root.findall("testsuite")
    assert [suite.get("name") for suite in suites] == ["1 Addresses", "6 NAT"]
    nat = suites[1]
    assert [nat.get(key) for key in ("tests", "failures", "skipped", "time")] == ["3", "1", "1", "0.750"]
    assert nat.get("timestamp") == "2026-11-23T04:12:00+00:00"
    properties = {entry.get("name"): entry.get("value") for entry in nat.findall("properties/property")}
    assert properties == {
        "lab": "blue",
        "nodes": "2",
        "CNI": "flannel vxlan",
        "hoplab": __version__,
        "kubernetes": "1.37.2",
        "containerd": "2.4.2",
    }
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert list(cases) == ["This claim passed.", "This claim failed.", "This claim skipped."]
    failed = cases["This claim failed."].find("failure")
    assert failed is not None and failed.get("message") == "why it failed"
    assert failed.text == "why it failed\n-A POSTROUTING -j RETURN\n-A KUBE -j MARK"
    skipped = cases["This claim skipped."].find("skipped")
    assert skipped is not None and skipped.get("message") == "why it skipped"
    passed = suites[0].find("testcase")
    assert passed is not None and passed.findtext("system-out") == "worker1 has `10.0.0.0/8 dev <x>`\neth0 10.0.0.1"
    assert (passed.get("classname"), passed.get("time")) == ("lessons.test_06_nat", "0.250")


def test_junit_of_a_recording_names_it() -> None:
    root = ElementTree.fromstring(junit_text(report(result("passed"), recording="lab.json")))
    assert root.find(".//property[@name='recording'][@value='lab.json']") is not None


@given(st.text(), st.sampled_from(["passed", "failed", "skipped"]))
def test_junit_is_xml_whatever_was_seen(text: str, outcome: Outcome) -> None:
    found = Result(text, "test_x", text, text, outcome, text, text, (text,), 0.0)
    made = junit_text(Report(text, {text: text}, {text: text}, results=[found]))
    ElementTree.fromstring(made.encode())


# HTML


def test_the_page_shows_every_claim_by_chapter() -> None:
    page = Page(html_text(MIXED))
    text = " ".join(" ".join(page.text).split())
    for words in ("Lab blue", "1 of 3 claims fails", "23 November 2026, 04:12 UTC", "1 Addresses", "6 NAT"):
        assert words in text
    for words in ("kubernetes", "1.37.2", "flannel vxlan", "This claim passed.", "why it failed", "why it skipped"):
        assert words in text
    assert [len(page.having(outcome)) > 0 for outcome in ("passed", "failed", "skipped")] == [True] * 3
    claims = page.having("claim")
    assert len(claims) == 4
    assert [("failed" in str(tag["class"]), "open" in tag) for tag in claims] == [
        (False, False),
        (False, False),
        (True, True),  # what failed is unfolded
        (False, False),
    ]
    assert "-A POSTROUTING -j RETURN\n-A KUBE -j MARK" in page.text
    assert ("title", {}) in page.tags and "Lab blue: 2 claims hold, 1 fail, 1 skipped" in page.text


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ((result("passed"), result("passed"), result("skipped")), "All 2 claims that could be checked hold"),
        ((result("passed"),), "The one claim that could be checked holds"),
        ((result("failed"), result("failed"), result("passed")), "2 of 3 claims fail"),
        ((result("skipped"),), "No claim could be checked"),
    ],
)
def test_the_page_begins_with_a_verdict(results: tuple[Result, ...], verdict: str) -> None:
    assert verdict in " ".join(html_text(report(*results)).split())


def test_the_page_says_what_recording_it_is_about() -> None:
    assert "on the recording <code>lab.json</code>" in html_text(report(result("passed"), recording="lab.json"))
    assert "recording" not in html_text(MIXED).partition("<body>")[2]


def test_the_filter_has_a_button_per_outcome_and_marks_chapters() -> None:
    page = Page(html_text(MIXED))
    buttons = [attrs["id"] for tag, attrs in page.tags if tag == "input"]
    assert buttons == ["show-all", "show-failed", "show-passed", "show-skipped"]
    assert [attrs["for"] for tag, attrs in page.tags if tag == "label"] == buttons
    sections = [str(attrs["class"]).split() for tag, attrs in page.tags if tag == "section"]
    assert sections == [["with-passed"], ["with-passed", "with-failed", "with-skipped"]]
    assert page.having("nothing") == []
    nothing = Page(html_text(report(result("passed")))).having("nothing")
    assert [str(attrs["class"]).split()[1] for attrs in nothing] == ["no-failed", "no-skipped"]


def test_the_page_is_complete_in_itself() -> None:
    page = Page(html_text(MIXED))
    for tag, attrs in page.tags:
        assert tag not in ("script", "img", "iframe", "object", "base")
        assert not {name for name in attrs if name.startswith("on") or name == "src"}
        assert attrs.get("href", "data:,") == "data:,"
    style = "".join(page.text)
    assert "@import" not in style and "url(" not in style and "//" not in style
    policy = next(attrs for _, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert str(policy["content"]).startswith("default-src 'none'; ") and "script" not in str(policy["content"])


def test_nothing_that_was_seen_becomes_markup() -> None:
    found = Result(NASTY, NASTY, NASTY, f"`{NASTY}`", "failed", "", f"`{NASTY}`", (NASTY, NASTY), 0.0)
    nasty = Report(NASTY, {NASTY: NASTY}, {NASTY: NASTY}, recording=NASTY, results=[found])
    plain = Result("c", "l", "n", "`c`", "failed", "", "`w`", ("e", "e"), 0.0)
    harmless = Report("l", {"v": "v"}, {"v": "v"}, recording="r", results=[plain])
    page = Page(html_text(nasty))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in Page(html_text(harmless)).tags]
    assert f"{NASTY}\n{NASTY}" in page.text


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain", "plain"),
        ("goes by `default via 1` and `x`", "goes by <code>default via 1</code> and <code>x</code>"),
        ("`<b>`", "<code>&lt;b&gt;</code>"),
        ("one ` alone", "one ` alone"),
    ],
)
def test_what_is_between_ticks_is_code(text: str, html: str) -> None:
    assert render_code(text) == html


# JSON and the screen


def test_the_json_document() -> None:
    document = MIXED.document()
    assert list(document) == [
        *("lab", "recording", "setting", "hoplab", "versions", "began", "outages", "summary", "causes"),
        *("claims", "passed", "failed", "skipped", "not_checked", "seconds", "looked_seconds"),
    ]
    assert (document["passed"], document["failed"], document["skipped"]) == (2, 1, 1)
    assert document["began"] == "2026-11-23T04:12:00+00:00"
    assert document["claims"][2] == {
        "chapter": "6 NAT",
        "lesson": "test_06_nat",
        "name": "test_failed",
        "claim": "This claim failed.",
        "outcome": "failed",
        "saw": "",
        "why": "why it failed",
        "evidence": ("-A POSTROUTING -j RETURN", "-A KUBE -j MARK"),
        "seconds": 0.25,
        "because_of": "",
    }


def test_the_screen_has_sentences_by_chapter() -> None:
    out = io.StringIO()
    say = ConsoleReporter(out)
    for outcome in MIXED.results:
        say.result(outcome)
    say.summary(MIXED)
    say.note("wrote [x].html")
    assert out.getvalue().splitlines() == [
        "1 Addresses",
        "  ✓ This claim passed.",
        "      worker1 has `10.0.0.0/8 dev <x>`",
        "6 NAT",
        "  ✓ This claim passed.",
        "      worker1 has `10.0.0.0/8 dev <x>`",
        "  ✗ This claim failed.",
        "      why it failed",
        "        -A POSTROUTING -j RETURN",
        "        -A KUBE -j MARK",
        "  - This claim skipped.",
        "      skipped: why it skipped",
        "",
        "2 claims hold, 1 fail, 1 skipped in 12.3 s (10.0 s to look at the lab)",
        "wrote [x].html",
    ]


def test_what_goes_on_is_a_line_where_no_terminal_shows_it_and_never_beside_json() -> None:
    text, beside_json = io.StringIO(), io.StringIO()
    for say in (ConsoleReporter(text), ConsoleReporter(beside_json, quiet=True)):
        say.doing("looking at [the] nodes")
        say.doing("")
    assert text.getvalue() == "looking at [the] nodes ...\n" and beside_json.getvalue() == ""


# Outages

LOST = Outage("worker2", "worker2 can't be reached: <refused>", (f"console {NASTY}",), "./lab start")
HURT = replace(MIXED, results=[*MIXED.results, result("not_checked")], outages=[LOST])


def test_outages_are_the_first_suite_of_junit() -> None:
    root = ElementTree.fromstring(junit_text(HURT))
    assert [root.get(key) for key in ("tests", "failures", "skipped", "errors")] == ["6", "1", "2", "1"]
    first = root.findall("testsuite")[0]
    assert [first.get(key) for key in ("name", "tests", "errors")] == ["Outages", "1", "1"]
    (error,) = root.iter("error")
    assert error.get("message") == LOST.problem and str(error.text).endswith("./lab start")
    assert "not checked: why it not_checked" in [skipped.get("message") for skipped in root.iter("skipped")]


def test_outages_are_first_on_the_page_and_have_a_filter() -> None:
    page = Page(html_text(HURT))
    text = " ".join(" ".join(page.text).split())
    assert text.index(LOST.problem) < text.index("1 Addresses") and "./lab start" in text
    assert len(page.having("outage")) == 1 and "show-not_checked" in {attrs.get("id") for _, attrs in page.tags}
    assert "not checked 1" in text and "not checked: why it not_checked" in text
    assert "1 outage, 1 of 3 claims fails" in text
    assert not {tag for tag, _ in page.tags} & {"script", "img"}


def test_a_page_without_outages_does_not_mention_them() -> None:
    assert "utage" not in html_text(MIXED) and "not_checked" not in html_text(MIXED)


def test_outages_are_the_first_thing_on_the_screen() -> None:
    out = io.StringIO()
    say = ConsoleReporter(out)
    say.outages(HURT.outages)
    say.result(result("not_checked"))
    say.summary(HURT)
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["Outages", f"  ✗ {LOST.problem}"] and lines[3] == "        -> ./lab start"
    assert lines[5:7] == ["  ? This claim not_checked.", "      not checked: why it not_checked"]
    assert lines[-1].startswith("2 claims hold, 1 fail, 1 skipped, 1 not checked; 1 outage in ")


# Causes


def test_the_terminal_shows_causes_with_commands_and_consequences_before_the_counts() -> None:
    out = io.StringIO()
    ConsoleReporter(out).summary(CAUSED)
    lines = [line.strip() for line in out.getvalue().splitlines()]
    assert lines[1:7] == [
        "2 causes, 1 claim fails because of them",
        "✗ This claim failed.",
        "why it failed",
        "shows: ./lab ssh worker1 ip route",
        "mends: ./lab ssh worker1 sudo true",
        "so fails: A <later> claim.",
    ]
    assert lines[-1].startswith("0 claims hold, 2 fail")
    out = io.StringIO()
    ConsoleReporter(out).summary(MIXED)
    assert "cause" not in out.getvalue()


def test_json_has_causes_and_what_each_claim_fails_of() -> None:
    document = json.loads(json.dumps(CAUSED.document()))
    assert document["summary"] == "2 causes, 1 claim fails because of them"
    assert document["causes"][0] == {
        "name": "test_failed",
        "why": "why it failed",
        "shows": "./lab ssh worker1 ip route",
        "mends": "./lab ssh worker1 sudo true",
        "consequences": ["test_later"],
    }
    assert [claim["because_of"] for claim in document["claims"]] == ["", "test_failed"]
    assert MIXED.document()["causes"] == [] and MIXED.document()["summary"] == ""


def test_junit_begins_with_causes() -> None:
    root = ElementTree.fromstring(junit_text(CAUSED))
    properties = [(entry.get("name"), entry.get("value")) for entry in root.iter("property")]
    assert properties[:5] == [
        ("summary", "2 causes, 1 claim fails because of them"),
        ("cause", "why it failed"),
        ("shows", "./lab ssh worker1 ip route"),
        ("mends", "./lab ssh worker1 sudo true"),
        ("cause", NASTY.replace("\x1b", "\ufffd").replace("\x00", "\ufffd")),
    ]
    assert [failure.text for failure in root.iter("failure")] == [
        "why it failed",
        "so it fails\nbecause of: why it failed",
    ]


def test_the_page_begins_with_causes() -> None:
    page = Page(html_text(CAUSED))
    text = " ".join("".join(page.text).split())
    assert len(page.having("cause")) == 2 and "with-failed" in str(page.having("causes")[0]["class"])
    assert text.index("2 causes, 1 claim fails because of them") < text.index("shows: ./lab ssh worker1 ip route")
    assert text.index("mends: ./lab ssh worker1 sudo true") < text.index("A <later> claim.") < text.index("6 NAT")
    assert "because of: why it failed" in text
    assert not Page(html_text(MIXED)).having("cause")
