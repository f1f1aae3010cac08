"""`./lab diff` as a person types it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hoplab import cli
from hoplab.cli.changes import coloured
from hoplab.verify import session
from tests.support.files import RECORDINGS
from tests.support.recordings import recording

HEALTHY = str(RECORDINGS / "flannel-vxlan.json")
BROKEN = str(RECORDINGS / "broken" / "the-mtu-of-cni0-is-wrong.json")
SAID = "worker2\n  ~ interface cni0: mtu 1450 -> 1400\n"


def run(*words: str) -> Result:
    return CliRunner().invoke(cli.cli, ["diff", *words], catch_exceptions=False)


def test_what_changed_and_exit_codes_as_of_diff() -> None:
    found = run(HEALTHY, BROKEN)
    assert (found.exit_code, found.stdout, found.stderr) == (1, SAID, "")
    same = run(HEALTHY, HEALTHY)
    assert (same.exit_code, same.stdout) == (0, "")
    assert same.stderr == f"no difference between {HEALTHY} and {HEALTHY}\n"


def test_json_and_all() -> None:
    found = run(HEALTHY, BROKEN, "--json")
    document = json.loads(found.stdout)
    assert found.exit_code == 1
    assert (document["before"], document["after"], document["same"]) == (HEALTHY, BROKEN, False)
    assert [event["fields"] for event in document["events"]] == [{"mtu": ["1450", "1400"]}]
    everything = run(HEALTHY, BROKEN, "--all").stdout
    assert SAID.splitlines()[1] in everything and "neighbour" in everything and "learned" in everything


def test_notes_are_on_standard_error() -> None:
    found = run(HEALTHY, str(RECORDINGS / "flannel-host-gw.json"))
    assert found.exit_code == 1
    assert "note: their settings differ: " in found.stderr and "note:" not in found.stdout


def test_an_error_ends_with_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for second, why in (("gone.json", "there is no file 'gone.json'"), (__file__, "is not a recording of a lab")):
        monkeypatch.setattr(sys, "argv", ["lab", "diff", HEALTHY, second])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        assert why in capsys.readouterr().err
    usage = run("now", "now")
    assert usage.exit_code == 2 and "`now` and `now` are one look" in usage.stderr


def test_now_is_a_live_look(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def look(*_: Any) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(snapshot=recording("broken/the-mtu-of-cni0-is-wrong"))

    monkeypatch.setattr(session, "opened", look)
    found = run(HEALTHY, "now")
    assert (found.exit_code, found.stdout) == (1, SAID)
    assert "looking at the lab" in found.stderr
    early = CliRunner().invoke(cli.cli, ["diff", "now", "gone.json"])
    assert "there is no file 'gone.json'" in str(early.exception) and "looking" not in early.output
    monkeypatch.setattr("hoplab.cli.options.PROJECT", Path("/nowhere"))
    from_wheel = CliRunner().invoke(cli.cli, ["diff", HEALTHY, "now"])
    assert "needs the project's checkout" in str(from_wheel.exception)


def test_colours_unless_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert coloured("  - route") == "\x1b[31m  - route\x1b[0m"
    assert coloured("worker1") == "worker1"
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("  - route") == "  - route"
