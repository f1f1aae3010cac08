"""A failed claim with traffic shows where its packet ends."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from hoplab.observe.snapshot import Pod, Snapshot
from hoplab.verify import runner
from hoplab.verify.report import ConsoleReporter, html_text, junit_text
from hoplab.verify.session import LabSession
from hoplab.verify.traced import Request, traced
from tests.support.recordings import recording

BROKEN = "broken/an-fdb-entry-is-gone"
LESSON = '''
"""Chapter 3, routes: a made-up lesson."""
from hoplab.verify.claims import Claim
from hoplab.verify.traced import Request

def test_pods_reach_each_other(session, claim):
    """Pods reach each other."""
    session.requests.append(Request("{sender}", "{receiver}"))
    claim.require(False, "no answer", "what the lesson saw")

def test_another_one(session, claim):
    """Nothing is sent here."""
    claim.require(False, "no packet")
'''


def pods(lab: Snapshot) -> tuple[Pod, Pod]:
    """Return the pod `single`, and the echo pod of the other node."""
    single = next(pod for pod in lab.pods if pod.api.label("app") == "single")
    return single, next(pod for pod in lab.pods if pod.api.label("app") == "echo" and pod.node is not single.node)


def evidence(lab: Snapshot, requests: list[Request]) -> tuple[str, ...]:
    found = traced(lab, requests)
    return found.evidence if found else ()


def test_a_url_has_the_ends_of_a_trace() -> None:
    single, _ = pods(recording("flannel-vxlan"))
    assert Request.of(single, "http://10.96.0.7/[1-24]") == Request(str(single), "10.96.0.7:80")
    assert Request.of(None, "https://app1.yash.com/x", "192.168.77.20") == Request("outside", "192.168.77.20:443")
    assert Request.of(None, "http://[fd00::1]:8080/") == Request("outside", "[fd00::1]:8080")


def test_the_first_request_that_does_not_get_through_is_shown() -> None:
    lab = recording(BROKEN)
    single, far = pods(lab)
    requests = [
        Request.of(far, f"http://{far.address}:8080/"),
        Request.of(far, f"http://{single.address}:8080/"),
        Request.of(None, "http://[fd00::1]/"),
    ]
    first, *lines, last = evidence(lab, requests)
    assert first == (
        f"trace {far} to {single.address}:8080, by the facts: arrives at pod {single}, but the reply does not return: "
        f"it ends at node {single.node.name}"
    )
    assert f"node {single.node.name}  flannel.1  out  {single.address}:8080 > {far.address}:*" in lines
    assert f"ends      the reply reaches node {single.node.name}, and not pod {far}" in lines
    assert lines[-1].startswith("fdb       no FDB entry")
    assert last == f"`./lab trace {far} {single.address}:8080` sends such a packet and shows each hop"


def test_a_request_of_ipv6_is_followed() -> None:
    lab = recording("broken/flannel-vxlan-dual/the-route-of-ipv6-to-the-other-nodes-pods-is-gone")
    single, far = pods(lab)
    assert evidence(lab, [Request.of(single, f"http://{far.address}:8080/")])[0].endswith("and the reply returns")
    first, *lines, last = evidence(lab, [Request.of(single, f"http://[{far.address6}]:8080/")])
    assert first == (
        f"trace {single} to [{far.address6}]:8080, by the facts: does not arrive: it ends at node {single.node.name}"
    )
    assert "route     default via fd00:77::1 dev eth0" in lines
    assert last == f"`./lab trace --lab matrix {single} [{far.address6}]:8080` sends such a packet and shows each hop"


def test_a_request_that_gets_through_has_two_lines_and_one_that_cannot_be_followed_none() -> None:
    lab = recording("flannel-vxlan")
    single, far = pods(lab)
    blue = replace(lab, setting=replace(lab.setting, lab="blue"))
    first, last = evidence(blue, [Request(str(far), f"{single.address}:8080")])
    assert first.endswith(f"by the facts: arrives at pod {single}, and the reply returns")
    assert last.startswith(f"`./lab trace --lab blue {far} ")
    assert evidence(lab, [Request("outside", "app1.yash.com:80"), Request("gone/pod", "10.96.0.1:443")]) == ()
    foreign = replace(lab, setting=replace(lab.setting, foreign=True))
    assert len(evidence(foreign, [Request(str(far), f"{single.address}:8080")])) == 1


@pytest.mark.parametrize("form", ["json", "junit", "html"])
def test_it_is_evidence_in_every_form_of_a_report(tmp_path: Path, form: str) -> None:
    lab = recording(BROKEN)
    single, far = pods(lab)
    lesson = LESSON.replace("{sender}", str(far)).replace("{receiver}", f"{single.address}:8080")
    (tmp_path / "test_03_made_up.py").write_text(lesson)
    nothing = cast("Any", None)
    session = LabSession(lab, nothing, nothing, nothing, lambda: lab)
    report, screen = runner.new_report(lab), io.StringIO()
    runner.check(session, report, ConsoleReporter(screen), lessons=tmp_path)
    wanted = f"trace {far} to {single.address}:8080, by the facts: arrives"
    assert [result.why for result in report.results] == ["no answer", "no packet"]
    assert report.results[0].evidence[0] == "what the lesson saw" and report.results[1].evidence == ()
    shows = {cause.name: cause.shows for cause in report.causes}  # no remedy of the lesson is there
    assert shows == {
        "test_pods_reach_each_other": f"./lab trace {far} {single.address}:8080",
        "test_another_one": "",
    }
    written = {"json": json.dumps(report.document()), "junit": junit_text(report), "html": html_text(report)}[form]
    assert wanted in written and wanted in screen.getvalue()
