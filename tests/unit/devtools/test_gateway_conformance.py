"""The parts of the conformance run of the Gateway API: images, arguments, outcomes, the section of the page."""

from __future__ import annotations

import json
import os
import re
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.devtools import gateway_conformance as subject
from hoplab.devtools import programs
from hoplab.image.readable.status import FEATURES
from hoplab.image.store import Store
from hoplab.lab import state
from tests.support.imaginary import gateway

LOG = """\
=== RUN   TestConformance/HTTPRouteMatching
    --- PASS: TestConformance/HTTPRouteMatching (12.41s)
        --- PASS: TestConformance/HTTPRouteMatching/0_request_to_'/'_should_go_to_infra-backend-v1 (0.10s)
    --- SKIP: TestConformance/HTTPRouteCORS (0.00s)
    --- FAIL: TestConformance/HTTPRouteWeight (61.00s)
        --- FAIL: TestConformance/HTTPRouteWeight/Requests (60.00s)
--- FAIL: TestConformance (300.00s)
"""
REPORT = {
    "date": "2026-11-29",
    "mode": "default",
    "profiles": [{"name": "GATEWAY-HTTP"}],
    "implementation": {"url": "x"},
}


def test_outcomes_are_those_of_whole_tests() -> None:
    found = subject.outcomes(LOG)
    assert found == {
        "HTTPRouteMatching": ("PASS", 12.41),
        "HTTPRouteCORS": ("SKIP", 0.0),
        "HTTPRouteWeight": ("FAIL", 61.0),
    }
    assert subject.summary(found) == "1 passed, 1 failed\n  HTTPRouteWeight"


def test_the_section_has_what_ran_and_the_report() -> None:
    text = subject.section(subject.outcomes(LOG), REPORT)
    assert "| HTTPRouteMatching | passed | 12 |" in text and "| HTTPRouteWeight | **failed** | 61 |" in text
    assert "CORS" not in text and "implementation" not in text and "name: GATEWAY-HTTP" in text


@pytest.mark.parametrize("name", ["readable", "nginx"])
def test_each_class_has_a_section_of_its_own(name: str) -> None:
    begin, end = f"<!-- generated: conformance of {name} -->", f"<!-- end of conformance of {name} -->"
    other = "<!-- generated: conformance of other -->\nkept\n"
    page = f"{other}{begin}\nold\n{end}\nafter\n"
    assert subject.with_section(page, name, "new") == f"{other}{begin}\n\nnew\n\n{end}\nafter\n"
    assert begin in subject.PAGE.read_text() and end in subject.PAGE.read_text()


def test_arguments() -> None:
    few = subject.arguments("readable", Path("r.yaml"), 20, core=True, emulated=False)
    assert {"-supported-features=Gateway,HTTPRoute,ReferenceGrant", "-test.timeout=20m"} <= set(few)
    assert not any("timeout-config" in argument or "run-test" in argument for argument in few)
    many = subject.arguments("readable", Path("r.yaml"), 20, core=False, emulated=True, only="HTTPRouteWeight")
    assert "-run-test=HTTPRouteWeight" in many and not any("supported-features" in argument for argument in many)
    (waiting,) = [argument for argument in many if "timeout-config" in argument]
    assert "NamespacesMustBeReady:900" in waiting and "MaxTimeToConsistency" not in waiting
    assert set(subject.CORE) <= set(FEATURES)
    assert "-gateway-class=readable" in many
    assert "-test.run=^TestConformance$" in many, "upstream's tests of the suite itself read files of its repository"
    (where,) = [argument for argument in many if argument.startswith("-url=")]
    assert where.startswith("-url=https://"), "the suite refuses a report without"


def test_a_lab_without_gateways_of_their_own_addresses() -> None:
    own = replace(gateway.RECORDED.setting, load_balancer="metallb")
    assert subject.tested_class(own) == "readable"
    assert subject.tested_class(replace(own, gateway_api=False, gateway_controller="nginx")) == "nginx"
    for setting in (replace(own, gateway_api=False), gateway.RECORDED.setting):
        with pytest.raises(LabError, match="has no Gateways with addresses of their own") as raised:
            subject.tested_class(setting)
        assert "gatewayApi: true" in raised.value.remedy and "gateway: nginx" in raised.value.remedy


def test_the_archive_has_the_server_under_each_name(tmp_path: Path) -> None:
    server, archive = tmp_path / "echo-basic", tmp_path / "images.tar"
    server.write_text("a program")
    subject.write_images(server, archive, tmp_path)
    with tarfile.open(archive) as tar:
        index: Any = tar.extractfile("index.json")
        manifests = json.loads(index.read())["manifests"]
    names = {manifest["annotations"]["io.containerd.image.name"] for manifest in manifests}
    assert names == set(subject.SERVER_IMAGES)


def test_images_are_brought_to_each_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script runs in a shell, with an `ssh`, a `sudo` and a `ctr` that write down what they are called with."""
    tools, told = tmp_path / "bin", tmp_path / "told"
    tools.mkdir()
    script = {
        "ssh": 'echo "ssh $3" >> $TOLD; exec sh -c "$4"',
        "sudo": 'exec "$@"',
        "ctr": 'echo "ctr $*" >> $TOLD; [ "$(cat)" = images ]',
    }
    for name, text in script.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("TOLD", str(told))
    archive = tmp_path / "images.tar"
    archive.write_text("images")
    subject.bring_images(LabPaths("gw", tmp_path), ["worker1", "worker2"], archive)
    brought = "ctr -n k8s.io images import --local -"
    assert told.read_text().splitlines() == ["ssh worker1", brought, "ssh worker2", brought]
    archive.write_text("something else")
    with pytest.raises(LabError, match="cannot be brought to worker1"):
        subject.bring_images(LabPaths("gw", tmp_path), ["worker1"], archive)


def test_the_suite_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def run(argv: list[str], what: str, _log: Path, **_: Any) -> None:
        built.append(what)
        Path(argv[argv.index("-o") + 1]).write_text("a program")

    class Quiet:
        def task(self, text: str) -> None: ...
        def note(self, text: str) -> None: ...

    monkeypatch.setattr(subject, "run", run)
    quiet: Any = Quiet()
    progress: Progress = quiet
    folder = subject.build(Store(tmp_path), progress)
    assert subject.build(Store(tmp_path), progress) == folder
    assert built == ["building gateway.test", "building echo-basic"]
    assert (folder / subject.SUITE).exists() and (folder / subject.SERVER).exists()


def test_it_is_of_the_version_of_the_definitions() -> None:
    """The suite refuses definitions of another version."""
    ours = (subject.MODULE / "go.mod").read_text()
    labs = (Path(subject.__file__).parents[1] / "image/go/gateway-api/go.mod").read_text()
    version = re.findall(r"sigs.k8s.io/gateway-api (\S+)", labs)
    assert re.findall(r"sigs.k8s.io/gateway-api(?:/conformance)? (v\S+)", ours) == version * 2


def test_a_suite_that_does_not_begin_says_why() -> None:
    lines = (
        "        \tError Trace:\tconformance.go:105",
        "        \tError:      \tReceived unexpected error:",
        "        \t            \timplementation's url is invalid: url must be absolute (missing scheme)",
        "        \tTest:       \tTestConformance",
        "        \tMessages:   \tsupplied Implementation details are not valid",
        "--- FAIL: TestConformance (0.00s)",
    )
    log = "\n".join(lines)
    assert subject.last_error(log).startswith("\nReceived unexpected error: implementation's url is invalid: url must")
    assert subject.last_error(log).endswith("(missing scheme)")
    assert subject.last_error("panic: test timed out after 45m0s") == ""


def test_a_run_without_a_report_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(_lab: object, _paths: LabPaths, _argv: list[str], log: Path) -> None:
        log.write_text("    --- PASS: TestConformance/HTTPRouteWeight (20.00s)\n\tError: \tno address\n\tTest: \tit")

    lab: Any = SimpleNamespace(nodes=(), accel="tcg")
    monkeypatch.setattr(subject, "build", lambda *_: tmp_path)
    monkeypatch.setattr(subject, "LabPaths", lambda name: LabPaths(name, tmp_path))
    monkeypatch.setattr(state, "load", lambda _: lab)
    monkeypatch.setattr(state, "built_setting", lambda *_: None)
    monkeypatch.setattr(subject, "tested_class", lambda _: "readable")
    monkeypatch.setattr(subject, "write_images", lambda *_: None)
    monkeypatch.setattr(subject, "run_suite", ended)
    with pytest.raises(LabError, match=r"ended without a report; 1 passed, 0 failed\nno address$") as raised:
        subject.gateway_conformance.main(["--lab", "gw"], standalone_mode=False)
    assert "gateway-conformance/log" in raised.value.remedy


def test_a_wrong_option_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gateway_conformance", "--minutes", "0"])
    with pytest.raises(SystemExit) as ended:
        programs.main(subject.gateway_conformance)
    assert ended.value.code == 2
    assert "Invalid value for '--minutes'" in capsys.readouterr().err


def test_ctrl_c_ends_it_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(subject, "build", interrupted)
    monkeypatch.setattr(sys, "argv", ["gateway_conformance"])
    with pytest.raises(SystemExit) as ended:
        programs.main(subject.gateway_conformance)
    assert ended.value.code == 130
