"""The verification run on a recording: sentences for people, JSON for programs, an exit code for scripts."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from hoplab.core import fs
from hoplab.core.errors import ClusterError, FileError, LabError
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.observe.recording_format import RecordingError, load
from hoplab.observe.ssh import Hosts
from hoplab.verify import runner, session, workload
from hoplab.verify.external import ExternalHost
from hoplab.verify.report import ConsoleReporter, Report
from hoplab.verify.session import LabSession

RECORDING = PROJECT / "tests" / "recordings" / "flannel-vxlan.json"
SEEN = load(RECORDING)


def run(*, recording: Path | None = RECORDING, **options: Any) -> tuple[int, str]:
    out = io.StringIO()
    return runner.run(LabPaths("dev"), recording=recording, out=out, **options), out.getvalue()


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A recording of a lab whose interfaces are ports of no bridge on worker1."""
    recording = json.loads(RECORDING.read_text())
    node = recording["nodes"]["worker1"]
    links = json.loads(node["links"]["out"])
    node["links"]["out"] = json.dumps([{**link, "master": None} for link in links])
    (tmp_path / "broken.json").write_text(json.dumps(recording))
    return tmp_path / "broken.json"


def test_a_healthy_recording_reads_as_a_list_of_sentences() -> None:
    began = time.process_time()  # whatever else this machine has to do
    code, text = run()
    assert time.process_time() - began < 10, "the read-only lessons on a recording have to take less than 10 s"
    assert code == 0
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if "✓ Each pod's address is inside a range of" in line)
    assert "is in 10.244.0.0/24" in lines[at + 1]
    assert "skipped: needs a running lab to send packets; this is a recording" in text
    chapters = [line for line in lines if line and not line.startswith(" ")]
    assert chapters[:7] == [
        *("1 Addresses", "2 Interfaces and veth pairs", "3 Routes", "4 The default gateway", "5 Subnets and CIDR"),
        *("6 NAT", "7 iptables"),
    ]
    assert " 0 fail, " in lines[-1]


def test_json_has_every_claim() -> None:
    code, text = run(as_json=True, only="subnets")
    report = json.loads(text)
    assert code == 0
    assert report["failed"] == 0 and report["passed"] == len(report["claims"]) - report["skipped"] == 6
    assert report["lab"] and report["versions"]["kubernetes"] and report["recording"] == str(RECORDING)
    setting = {"nodes": "2", "CNI": "flannel vxlan", "kube-proxy": "iptables", "ingress": "readable"}
    assert report["setting"] == {**setting, "load balancer": "metallb"}
    claim = report["claims"][0]
    assert (claim["lesson"], claim["chapter"]) == ("test_05_subnets", "5 Subnets and CIDR")
    assert claim["outcome"] == "passed" and claim["claim"] and claim["saw"] and claim["seconds"] >= 0


def test_a_broken_lab_fails_with_a_sentence_and_evidence(broken: Path) -> None:
    code, text = run(recording=broken, only="bridge")
    assert code == 1
    assert "✗ With a bridge CNI the node's end of the pair is a port of the bridge" in text
    assert "on worker1, is a port of no bridge, not of cni0" in text
    code, text = run(recording=broken, only="bridge", as_json=True)
    failed = [claim for claim in json.loads(text)["claims"] if claim["outcome"] == "failed"]
    assert code == 1 and "not of cni0" in failed[0]["why"] and failed[0]["saw"] == ""


def test_the_summary_begins_with_the_cause(broken: Path) -> None:
    links = json.loads(broken.read_text())
    found = [link for link in json.loads(links["nodes"]["worker1"]["links"]["out"]) if link["ifname"] != "cni0"]
    links["nodes"]["worker1"]["links"]["out"] = json.dumps(found)
    broken.write_text(json.dumps(links))
    code, text = run(recording=broken, only="interfaces")
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("1 cause, "))
    assert code == 1 and lines[at] == "1 cause, 2 claims fail because of it"
    assert lines[at + 2].strip() == "worker1 has no interface cni0"
    assert lines[at + 3].strip() == "shows: ./lab ssh worker1 ip -d link"
    assert lines[at + 4].strip().startswith("so fails: With a bridge CNI")
    report = json.loads(run(recording=broken, only="interfaces", as_json=True)[1])
    (cause,) = report["causes"]
    assert cause["name"] == "test_a_node_has_the_interfaces_of_its_cni" and len(cause["consequences"]) == 2
    assert report["summary"] == lines[at]


def test_reports_are_written_also_where_a_claim_fails(broken: Path, tmp_path: Path) -> None:
    junit, html = tmp_path / "report.xml", tmp_path / "report.html"
    code, text = run(recording=broken, only="bridge", junit=junit, html=html)
    assert code == 1
    assert text.splitlines()[-2:] == [f"wrote {junit}", f"wrote {html}"]
    failures = list(ElementTree.fromstring(junit.read_text(encoding="utf-8")).iter("failure"))
    assert "is a port of no bridge, not of cni0" in str(failures[0].get("message"))
    assert "is a port of no bridge, not of cni0" in html.read_text(encoding="utf-8")


def test_json_and_files_are_combinable(tmp_path: Path) -> None:
    code, text = run(only="subnets", as_json=True, junit=tmp_path / "report.xml", html=tmp_path / "report.html")
    assert code == 0
    assert json.loads(text)["passed"] == 6
    assert {path.name for path in tmp_path.iterdir()} == {"report.xml", "report.html"}


def test_a_file_that_cant_be_written_is_told_before_the_lessons_run(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file or directory"):
        run(recording=Path("never read"), html=tmp_path / "no" / "report.html")


def test_a_full_disk_leaves_no_half_made_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left on device"):
        run(only="subnets", html=tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("recording", "only"), [(Path("/nowhere.json"), ""), (RECORDING, "nonsense")])
def test_a_run_that_breaks_leaves_no_report(tmp_path: Path, recording: Path, only: str) -> None:
    with pytest.raises(LabError):
        run(recording=recording, only=only, junit=tmp_path / "report.xml", html=tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_recording_is_refused() -> None:
    with pytest.raises(RecordingError, match=r"pyproject\.toml is not a recording of a lab") as caught:
        run(recording=PROJECT / "pyproject.toml")
    assert caught.value.remedy == "make one: ./lab record"


def test_no_lesson_matches() -> None:
    with pytest.raises(LabError, match="no lesson matches 'nonsense'"):
        run(only="nonsense")


# The lessons themselves


def checked(folder: Path, lesson: str) -> Report:
    """The report of a single lesson, given as text."""
    (folder / "test_99_made_up.py").write_text(lesson)
    report = runner.new_report(SEEN)
    runner.check(SEEN, report, ConsoleReporter(io.StringIO()), lessons=folder)
    return report


def test_broken_lessons_are_not_green(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no_such_module"):
        checked(tmp_path, "import no_such_module\n")


def test_a_pytest_that_fails_is_not_green(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("out of order")

    monkeypatch.setattr(runner, "_result", fail)
    with pytest.raises(LabError, match="pytest itself failed: ValueError: out of order"):
        checked(tmp_path, "def test_x():\n    pass\n")


def test_a_lesson_that_crashes_is_a_failure(tmp_path: Path) -> None:
    (result,) = checked(tmp_path, 'def test_x():\n    """Division works."""\n    1 / 0\n').results
    assert (result.outcome, result.claim) == ("failed", "Division works.")
    assert "the lesson itself broke: ZeroDivisionError" in result.why and "1 / 0" in result.evidence[0]


def test_an_interrupted_run_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        checked(tmp_path, "def test_x():\n    pass\n\ndef test_y():\n    raise KeyboardInterrupt\n")


@pytest.mark.parametrize(
    ("docstring", "chapter"),
    [
        ('"""Chapter 3, routes: ``ip route``."""', "3 Routes"),
        ('"""Chapter 7, iptables: ``iptables-save``."""', "7 iptables"),
        ('"""Chapter 12, what comes next."""', "12 What comes next"),
        ('"""Something else."""', "99 made up"),
        ("", "99 made up"),
    ],
)
def test_a_lesson_belongs_to_the_chapter_its_file_names(tmp_path: Path, docstring: str, chapter: str) -> None:
    (result,) = checked(tmp_path, f"{docstring}\ndef test_x():\n    pass\n").results
    assert result.chapter == chapter


# On a running lab


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A running lab whose API takes requests; what happened, in order."""
    happened: list[str] = []

    def request(method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        assert body is None
        happened.append(f"{method} {path}")
        return 200, {}

    @contextmanager
    def opened(_paths: LabPaths, _say: Callable[[str], None]) -> Iterator[LabSession]:
        yield LabSession(SEEN, cast(Hosts, None), cast(ExternalHost, None), request, lambda: SEEN)
        happened.append("closed")

    monkeypatch.setattr(session, "opened", opened)
    monkeypatch.setattr(fs, "write", lambda file, _text: happened.append(f"wrote {file.name}"))
    return happened


REMOVED = "DELETE /api/v1/namespaces/hoplab-verify"


def test_the_probe_pods_stay_for_the_next_run(running: list[str]) -> None:
    code, _ = run(recording=None, only="subnets")
    assert code == 0 and running == ["closed"]


def test_cleanup_removes_the_probe_pods_after_the_report(running: list[str], tmp_path: Path) -> None:
    code, text = run(recording=None, only="subnets", cleanup=True, html=tmp_path / "report.html")
    assert code == 0
    assert running == ["wrote report.html", REMOVED, "closed"]
    assert text.splitlines()[-1] == "removed the namespace hoplab-verify"


def test_cleanup_also_after_a_run_that_broke(running: list[str]) -> None:
    with pytest.raises(LabError, match="no lesson matches"):
        run(recording=None, only="nonsense", cleanup=True)
    assert running == [REMOVED]


@pytest.mark.usefixtures("running")
def test_pods_that_cant_be_removed_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "remove", lambda _request: False)
    with pytest.raises(ClusterError, match="the namespace hoplab-verify can't be removed") as caught:
        run(recording=None, only="subnets", cleanup=True)
    assert caught.value.remedy == "./lab kubectl --lab dev delete namespace hoplab-verify"
