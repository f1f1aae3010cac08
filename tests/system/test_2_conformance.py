"""Ingress behaviours on the running lab, against whichever controller it has: conformance, and what must not break."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from secrets import token_bytes
from typing import Any

import pytest

from hoplab.core.paths import LabPaths
from hoplab.devtools.controller_page import other_behaviours
from hoplab.verify import workload
from hoplab.verify.objects import INGRESSES
from hoplab.verify.session import LabSession, opened
from hoplab.verify.workload import APP1, HOST1, NAMESPACE
from tests.system.conformance import CASES, HOST, Case, got
from tests.system.conftest import LabCommand

pytestmark = pytest.mark.timeout(0)  # every wait has a bound of its own


@pytest.fixture(scope="module")
def session(lab: LabCommand, paths: LabPaths) -> Iterator[LabSession]:
    with opened(paths) as found:
        yield found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_conformance(case: Case, session: LabSession) -> None:
    body: dict[str, Any] = {**case.ingress, "metadata": {**case.ingress["metadata"]}}
    body["metadata"]["annotations"] = dict(session.controller.ANNOTATIONS)
    otherwise = other_behaviours(session.snapshot.setting.ingress).get(case.name, {})  # docs/ingress-controllers.md
    wanted = {**case.gets, **otherwise}
    with ExitStack() as stack:
        for path, other in case.also:
            stack.enter_context(session.created(path, dict(other)))
        stack.enter_context(session.created(INGRESSES, body))
        for node in session.snapshot.nodes:
            seen = session.until(
                lambda node=node: {url: got(session, url, node) for url in case.gets},  # type: ignore[misc]
                lambda found: found == wanted,
            )
            assert seen == wanted, f"on {node.name}"


def test_requests_are_spread_over_the_pods(session: LabSession) -> None:
    for node in session.snapshot.nodes:
        asked = Counter(session.app(f"http://{HOST1}/", node).to for _ in range(40))
        assert set(asked) == session.endpoints(APP1)
        assert min(asked.values()) >= 10, asked


def bad_secret(name: str) -> dict[str, Any]:
    """A TLS secret that Kubernetes takes and nobody can use; another one each time."""
    data = {key: b64encode(token_bytes(12)).decode() for key in ("tls.crt", "tls.key")}
    return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": name}, "data": data}


def warnings(session: LabSession, ingress: str) -> list[str]:
    """What `kubectl describe ingress` would warn of."""
    if not session.controller.EVENTS:
        pytest.skip(f"{session.snapshot.setting.ingress} says what is wrong in its log, and writes no Events")
    query = f"fieldSelector=involvedObject.name%3D{ingress},type%3DWarning"
    _, found = session.api("GET", f"/api/v1/namespaces/{NAMESPACE}/events?{query}")
    return [item["message"] for item in found["items"]]


def test_a_bad_ingress_does_not_harm_the_others(session: LabSession) -> None:
    """It is told to whoever asks about it; the others are served on, and their changes too."""
    bad = workload.ingress("bad", {"bad.yash.com": {"/": APP1}}, tls={"bad-secret": ("bad.yash.com",)})
    good = workload.ingress("good", {HOST: {"/": APP1}}, annotations=session.controller.ANNOTATIONS)
    secrets = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    with (
        session.request_stream(f"http://{HOST1}/") as stream,
        session.created(secrets, bad_secret("bad-secret")),
        session.created(INGRESSES, bad),
    ):
        assert session.until(lambda: warnings(session, "bad"), bool)
        with session.created(INGRESSES, good):
            for node in session.snapshot.nodes:
                seen = session.until(
                    lambda node=node: got(session, f"http://{HOST}/", node),  # type: ignore[misc]
                    lambda found: found == APP1,
                )
                assert seen == APP1
    assert stream.sent and not stream.lost


def test_a_secret_that_goes_bad_leaves_what_was_good(session: LabSession) -> None:
    url, where = f"https://{HOST1}/", f"/api/v1/namespaces/{NAMESPACE}/secrets/my-tls-secret"
    before = len(warnings(session, "apps"))
    with session.edited(where, lambda item: item.update(data=bad_secret("x")["data"])):
        assert session.until(lambda: len(warnings(session, "apps")), lambda now: now > before) > before
        for node in session.snapshot.nodes:
            assert session.http_get(url, node).names == (HOST1,)
            assert got(session, f"http://{HOST1}/", node) == APP1
    assert session.http_get(url).names == (HOST1,)
