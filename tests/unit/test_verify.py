"""The verification run on a recording: sentences for people, JSON for programs, an exit code for scripts."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from hoplab import verify
from hoplab.errors import LabError
from hoplab.paths import PROJECT, LabPaths
from hoplab.snapshot import load

RECORDING = PROJECT / "tests" / "recordings" / "flannel-vxlan.json"


def run(*, recording: Path = RECORDING, as_json: bool = False, only: str = "") -> tuple[int, str]:
    out = io.StringIO()
    return verify.run(LabPaths("dev"), as_json=as_json, only=only, recording=recording, out=out), out.getvalue()


def test_a_healthy_recording_reads_as_a_list_of_sentences() -> None:
    code, text = run()
    assert code == 0
    lines = text.splitlines()
    at = lines.index("  ✓ Each pod's address is inside the range of the node it runs on.")
    assert "is in 10.244.0.0/24" in lines[at + 1]
    assert "skipped: needs a running lab to send packets; this is a recording" in text
    assert [line for line in lines if line and not line.startswith(" ")][:2] == ["01 addresses", "02 interfaces"]
    assert " 0 fail, " in lines[-1]


def test_json_has_every_claim() -> None:
    code, text = run(as_json=True, only="subnets")
    report = json.loads(text)
    assert code == 0
    assert report["failed"] == 0 and report["passed"] == len(report["claims"]) == 6
    assert report["lab"] and report["versions"]["kubernetes"]
    claim = report["claims"][0]
    assert claim["lesson"] == "test_05_subnets"
    assert claim["outcome"] == "passed" and claim["claim"] and claim["saw"] and claim["seconds"] >= 0


def test_a_broken_lab_fails_with_a_sentence_and_evidence(tmp_path: Path) -> None:
    recording = json.loads(RECORDING.read_text())
    node = recording["nodes"]["worker1"]
    links = json.loads(node["links"]["out"])
    node["links"]["out"] = json.dumps([{**link, "master": None} for link in links])
    (tmp_path / "broken.json").write_text(json.dumps(recording))
    code, text = run(recording=tmp_path / "broken.json", only="bridge")
    assert code == 1
    assert "✗ With a bridge CNI the node's end of the pair is a port of the bridge" in text
    assert "on worker1, is a port of no bridge, not of cni0" in text
    code, text = run(recording=tmp_path / "broken.json", only="bridge", as_json=True)
    failed = [claim for claim in json.loads(text)["claims"] if claim["outcome"] == "failed"]
    assert code == 1 and "not of cni0" in failed[0]["why"] and failed[0]["saw"] == ""


def test_no_lesson_matches() -> None:
    with pytest.raises(LabError, match="no lesson matches 'nonsense'"):
        run(only="nonsense")


def test_broken_lessons_are_not_green(tmp_path: Path) -> None:
    seen = load(RECORDING)
    (tmp_path / "test_99_broken.py").write_text("import no_such_module\n")
    report = verify.Report("dev", {})
    with pytest.raises(LabError, match="no_such_module"):
        verify.check(seen, report, verify.Say(io.StringIO()), lessons=tmp_path)


def test_a_lesson_that_crashes_is_a_failure(tmp_path: Path) -> None:
    seen = load(RECORDING)
    (tmp_path / "test_99_broken.py").write_text('def test_x():\n    """Division works."""\n    1 / 0\n')
    report = verify.Report("dev", {})
    verify.check(seen, report, verify.Say(io.StringIO()), lessons=tmp_path)
    (result,) = report.results
    assert (result.outcome, result.claim) == ("failed", "Division works.")
    assert "the lesson itself broke: ZeroDivisionError" in result.why and "1 / 0" in result.evidence[0]
