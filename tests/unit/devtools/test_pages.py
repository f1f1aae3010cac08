"""The learners' pages: taken apart and put back, recorded on a lab that only talks, and compared with one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from hoplab import cli
from hoplab.core.paths import LabPaths
from hoplab.devtools import pages
from hoplab.devtools.pages import (
    PageError,
    recorded,
    substitute,
    written,
)
from hoplab.observe.script import Output, Script
from hoplab.verify import session, workload
from hoplab.verify.session import LabSession
from tests.support.learners_pages import LAB, PAGE, RECORDED, Nodes, block_text, failing, page
from tests.support.scripts import ran


def test_a_page_is_its_blocks_and_their_commands() -> None:
    first, second = page().blocks
    assert [step.prompt for step in first.steps] == [
        "worker1# ip route get 10.9.9.9",
        "worker1/echo# echo a; \\\n  echo b",
        "worker2# true",
    ]
    assert first.steps[0].output == ("10.9.9.9 via somewhere",)
    assert (first.values, first.fails) == ({"worker2-echo": "10.9.9.9"}, False)
    assert (second.values, second.fails) == ({}, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a\n```console\nworker1# true", "docs/x.md:2: the console block does not end"),
        ("```console\noutput\n```", "docs/x.md:1: a console block begins with a prompt and a command"),
        ("```console\n```", "docs/x.md:1: a console block begins with a prompt"),
        ("<!-- lab: single=1 -->\n\n```console", "docs/x.md:1: `<!-- lab: single=1 -->` does not name values"),
        ("<!-- lab: Single=1 -->\n```console", "docs/x.md:1: `<!-- lab: Single=1 -->` does not name values"),
        ("```console\nhost$ ./lab destroy\n```", "docs/x.md:2: `./lab destroy` is none of ./lab kubectl, practice"),
        ("```console\nhost$ rm x\n```", "docs/x.md:2: `rm x` is none of ./lab kubectl"),
    ],
)
def test_a_page_that_is_not_as_it_should_be(text: str, says: str) -> None:
    with pytest.raises(PageError) as caught:
        page(text)
    assert says in caught.value.message
    assert "docs/lessons/README.md" in caught.value.remedy


PROMPTS = st.sampled_from(["worker1# ip route", "worker1/echo# x \\", "host$ ./lab status", "single# true"])
FENCES = st.sampled_from(["```console", "```console", "```", "```", "```sh"])
COMMENTS = st.sampled_from(["<!-- lab: fails -->", "<!-- lab: single=10.0.0.1 home=worker2 -->"])
LINES = st.one_of(PROMPTS, FENCES, COMMENTS, st.sampled_from(["", "  text", "worker1 # no", "trailing  "]))


@given(st.lists(st.one_of(LINES, st.text(max_size=8))))
def test_a_page_with_its_own_outputs_is_the_same_page(lines: list[str]) -> None:
    text = "\n".join(lines)
    try:
        found = page(text)
    except PageError:
        return
    assert written(found, found.blocks) == text


OUTPUT = st.lists(st.text("abc #:-.0123456789", max_size=12), max_size=3)
VALUES = st.dictionaries(st.sampled_from(["single", "home"]), st.from_regex(r"[a-z0-9.]{1,6}", fullmatch=True))


@given(st.lists(st.tuples(PROMPTS, OUTPUT, VALUES)))
def test_every_page_of_blocks_comes_back(blocks: list[tuple[str, list[str], Mapping[str, str]]]) -> None:
    text = "\n\n".join(["# Title", *(block_text(*block) for block in blocks), "end"])
    found = page(text)
    assert len(found.blocks) == len(blocks)
    assert written(found, found.blocks) == text


def test_outputs_and_values_are_put_into_the_page_and_nothing_else() -> None:
    echo = LAB.values["worker2-echo"]
    text = written(page(), recorded(page(), Nodes(failing).lab()))
    assert text == PAGE.replace("10.9.9.9 via somewhere\n", "").replace("10.9.9.9", echo).replace(
        f"get {echo}\n", f"get {echo}\nworker1 did it\n\nreally\n"
    ).replace("  echo b\n", "  echo b\nworker1 did it\n\nreally\n").replace(
        "worker2# true\n", "worker2# true\nworker2 did it\n\nreally\n"
    ).replace("worker1# false\n", "worker1# false\nworker1 did it\n\nreally\n")
    again = page(text)
    assert written(again, recorded(again, Nodes(failing).lab())) == text


def test_roles_change_places() -> None:
    other = {"home": "worker2", "away": "worker1"}
    old = page("<!-- lab: home=worker1 away=worker2 -->\n```console\nworker1/echo# ask worker2\nby worker1\n```")
    new = pages.bind_values(old, old.blocks[0], other)
    assert written(old, [new]) == (
        "<!-- lab: home=worker2 away=worker1 -->\n```console\nworker2/echo# ask worker1\n```"
    )


def test_only_whole_words_are_replaced() -> None:
    words = {"10.244.1.3": "A", "worker1": "B", "veth1": "C"}
    assert substitute("10.244.1.3:80 10.244.1.3/24 10.244.1.3. src=10.244.1.3", words) == "A:80 A/24 A. src=A"
    untouched = "10.244.1.30 110.244.1.3 10.244.1.3.4 worker10 myworker1 worker1-x veth12"
    assert substitute(untouched, words) == untouched
    assert substitute("worker1/echo veth1@if2", words) == "B/echo C@if2"
    assert substitute("worker1", {}) == "worker1"


def test_commands_that_follow_each_other_on_a_node_are_one_round_trip() -> None:
    nodes = Nodes(failing)
    recorded(page(), nodes.lab())
    assert nodes.batches == [("worker1", 2), ("worker2", 1), ("worker1", 1)]


def test_a_command_that_fails_is_named_and_the_others_are_run_all_the_same() -> None:
    nodes = Nodes(lambda _node, command: Output(3 if "route" in command else 1, "RTNETLINK says no\n"))
    with pytest.raises(PageError) as caught:
        recorded(page(), nodes.lab())
    echo = LAB.values["worker2-echo"]
    assert caught.value.message == f"docs/x.md:5: `worker1# ip route get {echo}` ended with 3\n  RTNETLINK says no"
    assert caught.value.remedy == "nothing was written; try it by hand"
    assert sum(number for _, number in nodes.batches) == 4


def test_a_command_that_should_fail_and_does_not() -> None:
    with pytest.raises(PageError, match=r"docs/x.md:16: `worker1# false` did not fail, as the page says"):
        recorded(page(), LAB)


@pytest.mark.parametrize("line", ["worker1# ip route", "```", "host$ ./lab up"])
def test_output_that_would_be_read_as_something_else(line: str) -> None:
    with pytest.raises(PageError, match=r"docs/x.md:2: `worker1# cat` prints `.*`, which does not look like output"):
        recorded(page("```console\nworker1# cat\n```"), Nodes(lambda *_: Output(0, f"a\n{line}\n")).lab())


def test_a_place_that_the_lab_does_not_have() -> None:
    with pytest.raises(PageError, match=r"docs/x.md:2: lab blue has no `worker9/echo`") as caught:
        recorded(page("```console\nworker9/echo# true\n```"), LAB)
    assert caught.value.remedy.startswith("it has host, worker1, worker2, ")


def test_a_value_that_the_lab_does_not_have() -> None:
    with pytest.raises(
        PageError, match=r"docs/x.md:1: this lab has no value `moon`; it has single, home, home-address"
    ):
        recorded(page("<!-- lab: moon=1 -->\n```console\nworker1# true\n```"), LAB)


def test_what_a_page_can_name() -> None:
    single = LAB.session.single
    home = single.node.name
    away = next(node.name for node in RECORDED.nodes if node.name != home)
    found = LAB.values
    assert (found["home"], found["away"], found["single"]) == (home, away, str(single.address))
    assert found["away-address"] == str(RECORDED.setting.nodes[away])
    there, app2 = LAB.places[workload.APP2]
    assert app2
    assert (found["app2"], found["app2-home"]) == (str(app2.address), there)
    assert found["app2-home-address"] == str(RECORDED.setting.nodes[there])
    assert {found["app2-home"], found["app2-away"]} == {node.name for node in RECORDED.nodes}
    for pod in LAB.session.echo_pods:
        assert pod.host_end
        assert found[f"{pod.node.name}-echo"] == str(pod.address)
        assert found[f"{pod.node.name}-echo-veth"] == pod.host_end.name
    assert found["echo-service"] == str(LAB.session.service("echo").cluster_ip)
    assert LAB.places["single"] == (home, single)


def test_commands_run_as_in_a_shell_there() -> None:
    nodes = Nodes(lambda _node, command: _local(command))
    text = '```console\nworker1# echo "it\'s $((40 + 2))" | cat; echo err >&2; cat\nworker1# cd /; pwd\n```'
    found = recorded(page(text), nodes.lab())
    assert [step.output for step in found[0].steps] == [("it's 42", "err"), ("/",)]


def _local(command: str) -> Output:
    """What a node's batch does with one command, here."""
    return ran(Script({"it": command}, {}))["it"]


def test_a_pods_commands_run_in_its_namespace() -> None:
    nodes = Nodes(lambda _node, command: Output(0, command))
    found = recorded(page("```console\nsingle# ip route | head\n```"), nodes.lab())
    assert list(found[0].steps[0].output) == [
        f"nsenter --net=/run/netns/{LAB.session.single.netns} timeout 60 bash -c 'ip route | head' </dev/null 2>&1"
    ]
    assert nodes.batches == [(LAB.session.single.node.name, 1)]


def test_the_hosts_commands_are_for_this_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab").write_text('#!/bin/sh\necho "$HOPLAB_LAB: $*"; echo second >&2; cat\n')
    (tmp_path / "lab").chmod(0o755)
    monkeypatch.setattr(pages, "PROJECT", tmp_path)
    found = recorded(page("```console\nhost$ ./lab kubectl get nodes -o 'a b' | cat\n```"), LAB)
    assert set(found[0].steps[0].output) == {"second", "blue: kubectl get nodes -o a b"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pages; the lab is there and its commands say what `Nodes.says` says."""
    (tmp_path / "a.md").write_text(PAGE)
    (tmp_path / "b.md").write_text("```console\nworker2# uname\nLinux\n```\n")
    (tmp_path / "prose.md").write_text("nothing to run\n")
    monkeypatch.setattr(pages, "FOLDERS", (tmp_path,))
    return tmp_path


def opened_as(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def opened(_paths: LabPaths, say: Callable[[str], None]) -> Iterator[LabSession]:
        say("looking")
        yield nodes.lab().session

    monkeypatch.setattr(session, "opened", opened)


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.cli, ["pages", *words], catch_exceptions=True)
    if isinstance(result.exception, PageError):
        raise result.exception
    return result.exit_code, result.stdout


def test_the_verb_records_and_then_checks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened_as(Nodes(failing), monkeypatch)
    code, out = run("--check")
    assert code == 1 and "-10.9.9.9 via somewhere" in out and "+worker1 did it" in out
    assert (folder / "a.md").read_text() == PAGE
    code, out = run()
    assert code == 0 and re.findall(r"recorded .*/(\w+).md", out) == ["a", "b"]
    assert "worker2# uname\nworker2 did it\n" in (folder / "b.md").read_text()
    assert run("--check") == (0, "")


def test_when_one_command_fails_no_page_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def says(_node: str, command: str) -> Output:
        return Output(2 if "uname" in command else 1 if "false" in command else 0, "ok")

    opened_as(Nodes(says), monkeypatch)
    with pytest.raises(PageError, match=r"b.md:2: `worker2# uname` ended with 2"):
        run()
    assert (folder / "a.md").read_text() == PAGE
