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
from hoplab.expectations.parts import known_parts
from hoplab.observe.recording_format import RecordingError, load, save
from hoplab.observe.ssh import Hosts
from hoplab.verify import runner, session, workload
from hoplab.verify.external import ExternalHost
from hoplab.verify.report import ConsoleReporter, Report
from hoplab.verify.session import LabSession
from tests.support.hurt import NO_API, refused, with_output, without_api, without_nodes

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
    assert chapters[:10] == [
        *("1 Addresses", "1 The machines' clocks", "2 Interfaces and veth pairs", "3 Routes", "4 The default gateway"),
        *("5 Subnets and CIDR", "6 The table of connections", "6 Names", "6 NAT", "7 iptables"),
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


# On a lab of which a part cannot be looked at

KUBELET = "unit containerd active\nunit kubelet inactive\nhealth no answer: refused\nsaid the last words\n"


@pytest.fixture
def hurt(tmp_path: Path) -> Path:
    """A recording without worker2, on whose worker1 the kubelet is stopped."""
    seen = with_output(without_nodes(SEEN, "worker2"), "worker1", units=KUBELET)
    save(seen, tmp_path / "hurt.json", known_parts())
    return tmp_path / "hurt.json"


def test_a_hurt_lab_is_reported_outages_first_and_then_checked(hurt: Path, tmp_path: Path) -> None:
    junit, html = tmp_path / "report.xml", tmp_path / "report.html"
    code, text = run(recording=hurt, only="routes_its_own or routes_every_other", junit=junit, html=html)
    lines = text.splitlines()
    assert code == 1
    assert lines[:7] == [
        "Outages",
        f"  ✗ {refused('worker2')}",
        "        its machine is running (worker2)",
        "  ✗ kubelet of worker1 does not run: it is inactive",
        "        the last lines of its journal on worker1:",
        "        the last words",
        "        -> ./lab ssh worker1 systemctl status kubelet",
    ]
    assert f"      not checked: {refused('worker2')}" in lines
    held = next(line for line in lines if line.startswith("      worker1: 10.244."))
    assert held.endswith("; not looked at: worker2")
    assert "1 claims hold, 0 fail, 0 skipped, 1 not checked; 2 outages in " in text
    root = ElementTree.fromstring(junit.read_text(encoding="utf-8"))
    first = root.findall("testsuite")[0]
    assert (root.get("tests"), root.get("errors"), first.get("name")) == ("4", "2", "Outages")
    assert next(error.get("message") for error in first.iter("error")) == refused("worker2")
    (skipped,) = root.iter("skipped")
    assert skipped.get("message") == f"not checked: {refused('worker2')}"
    page = html.read_text(encoding="utf-8")
    assert page.index("its machine is running (worker2)") < page.index("3 Routes") and "2 outages," in page


def test_json_of_a_hurt_lab(hurt: Path) -> None:
    code, text = run(recording=hurt, only="routes_every_other", as_json=True)
    document = json.loads(text)
    assert code == 1 and (document["failed"], document["not_checked"]) == (0, 1)
    assert [outage["place"] for outage in document["outages"]] == ["worker2", "kubelet of worker1"]
    assert document["outages"][0]["evidence"] == ["its machine is running (worker2)"]
    assert document["claims"][0]["outcome"] == "not_checked" and document["claims"][0]["why"] == refused("worker2")
    assert document["setting"]["nodes"] == "2"


def test_a_lab_without_api_and_one_without_nodes_are_reported(tmp_path: Path) -> None:
    for seen, says in ((without_api(SEEN), NO_API), (without_nodes(SEEN, *SEEN.setting.nodes), refused("worker1"))):
        save(seen, tmp_path / "hurt.json", known_parts())
        code, text = run(recording=tmp_path / "hurt.json", only="forward or own_address")
        assert code == 1 and f"not checked: {says}" in text and " 0 fail, " in text


def test_what_is_lost_during_the_run_is_an_outage_too(tmp_path: Path) -> None:
    lesson = """
from hoplab.core.errors import UnavailableError

def test_x():
    raise UnavailableError("worker9 stopped to answer")
"""
    report = checked(tmp_path, lesson)
    assert [outage.problem for outage in runner.meanwhile(report)] == ["worker9 stopped to answer"]
    report.add_outages(runner.meanwhile(report))
    assert runner.meanwhile(report) == [] and len(report.outages) == 1


def test_a_lesson_that_crashes_on_a_hurt_lab_is_not_checked(tmp_path: Path) -> None:
    (tmp_path / "test_99_made_up.py").write_text(
        "def test_x(lab):\n    1 / 0\n\ndef test_y(lab):\n    assert not lab.outages\n"
    )
    seen = without_nodes(SEEN, "worker2")
    report = runner.new_report(seen)
    runner.check(seen, report, ConsoleReporter(io.StringIO()), lessons=tmp_path)
    assert [result.outcome for result in report.results] == ["not_checked", "failed"]
    assert report.results[0].why == (
        f"{refused('worker2')} (without it the lesson ends with ZeroDivisionError: division by zero)"
    )
