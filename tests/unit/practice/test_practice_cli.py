"""Practice on the command line, and the page that shows a session of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from hoplab import cli
from hoplab.core.paths import PROJECT
from hoplab.practice import discover, runner
from tests.support.courses import LONG, course
from tests.support.machine import Machine

PAGE = PROJECT / "docs" / "practice.md"


@pytest.fixture
def lab(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "nodes", lambda _: {"worker1": machine})
    monkeypatch.setattr(runner, "PATIENCE", LONG)


def practice(*words: str) -> Result:
    return CliRunner().invoke(cli.cli, ["practice", *words], catch_exceptions=False)


SOLUTION = course("veth")["solution"]
SESSION = [  # what was done on the node, in words and for real, and what was typed then
    ("", "", ""),
    ("", "", "start veth"),
    ("", "", "check veth"),
    ("", "", "hint veth"),
    (
        "a pair is laid, both ends are up and have addresses, left0 by: ip address add 172.31.3.1 dev left0",
        SOLUTION.replace("172.31.3.1/24", "172.31.3.1"),
        "check veth",
    ),
    (
        "the address of left0 is made anew, now with its prefix length",
        "ip -n practice-left address flush dev left0; ip -n practice-left address add 172.31.3.1/24 dev left0",
        "check veth",
    ),
    ("", "", "reset veth"),
]


def test_practice_page_shows_a_real_session(lab: None, machine: Machine, golden: Callable[[str, str], None]) -> None:
    """UPDATE_GOLDEN=1 writes the session into the page, where it is the last thing."""
    lines: list[str] = []
    for words, commands, words_typed in SESSION:
        machine.run(commands)
        lines += [f"# {words}"] if words else []
        lines += [f"$ ./lab practice {words_typed}".rstrip(), *practice(*words_typed.split()).output.splitlines(), ""]
    text, heading, _ = PAGE.read_text().partition("## A session\n\n")
    session = "\n".join(f"    {line}".rstrip() for line in lines).rstrip()
    golden(str(PAGE), f"{text}{heading}{session}\n")


def test_practice_page_lists_every_exercise() -> None:
    for exercise in discover():
        assert f"| {exercise.day} | `{exercise.name}` | {exercise.title} |\n" in PAGE.read_text()


def test_check_exit_code_tells_solved(lab: None, machine: Machine) -> None:
    practice("start", "gateway")
    assert practice("check", "gateway").exit_code == 1
    machine.run(course("gateway")["solution"])
    result = practice("check", "gateway")
    assert result.exit_code == 0
    assert "4 of 4 on worker1: done; ./lab practice reset gateway removes it\n" in result.output


def test_messages_name_another_lab_in_every_command(lab: None) -> None:
    for at in ("--lab", "blue"), ("--lab", "blue", "--node", "worker1"):
        started = practice("start", "veth", *at).output
        assert "./lab ssh --lab blue worker1\n" in started
        assert "./lab practice check veth --lab blue\n" in started
    kept = "it was started already, and what you made is kept; anew: ./lab practice start veth --again --lab blue\n"
    assert kept in started
    assert "./lab practice hint veth --lab blue" in practice("check", "veth", "--lab", "blue").output


def test_hint_more_gives_all(lab: None) -> None:
    practice("start", "veth")
    assert [line[:3] for line in practice("hint", "veth", "--more").output.splitlines() if line[0] != " "] == [
        "1/3",
        "2/3",
        "3/3",
    ]


def test_reset_with_nothing_to_remove(lab: None) -> None:
    assert practice("reset", "veth").output == "there was nothing to remove\n"
