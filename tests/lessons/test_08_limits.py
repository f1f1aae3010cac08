"""Chapter 8, ingress: how large a request may be, and how long a pod may be silent: ``curl --data``, ``nginx -T``."""

from __future__ import annotations

import pytest

from hoplab.expectations.ingress import Limits, nginx_conf
from hoplab.observe.snapshot import Pod
from hoplab.verify.claims import Claim
from hoplab.verify.objects import INGRESSES
from hoplab.verify.session import LabSession
from hoplab.verify.traffic import parse_answer
from hoplab.verify.workload import HOST1

pytestmark = pytest.mark.remedy("kubectl -n hoplab-verify get ingress apps -o yaml")

LARGE = 2 * 1024**2  # bytes, for a controller without a limit
BODY = ("nginx.ingress.kubernetes.io/proxy-body-size", "nginx.org/client-max-body-size")
SILENCE = ("nginx.ingress.kubernetes.io/proxy-read-timeout", "nginx.org/proxy-read-timeout")


@pytest.mark.needs(ingress=True)
@pytest.mark.rests_on("the_configuration_is_the_rules", "the_host_decides")
def test_bodies_and_silence_have_limits(session: LabSession, claim: Claim) -> None:
    """The controller takes a request's body and bears a pod's silence up to limits in its configuration, which are
    what an Ingress asks for."""
    _, apps = session.api("GET", f"{INGRESSES}/apps")
    asked = apps.get("metadata", {}).get("annotations") or {}
    seen = ""
    for node in session.snapshot.nodes:
        front = session.controller_pods[node.name]
        limits = _limits(session, front)
        for names, limit, read, source in (
            (BODY, limits.body, nginx_conf.size, limits.body_from),
            (SILENCE, limits.silence, nginx_conf.seconds, limits.silence_from),
        ):
            for name in (name for name in names if name in asked):
                claim.require(
                    read(asked[name]) == limit,
                    f"apps asks for {asked[name]} by {name}, but {front} has {source or 'no limit'}",
                    *asked.items(),
                )
        most = limits.body or LARGE
        reply = session.http_post(f"http://{HOST1}/", node, most)
        claim.require(
            reply.status == 200, f"{front} answers a body of {most} bytes with {reply}, and has {limits.body_from}"
        )
        got = parse_answer(reply.body)
        claim.require(got.body in (most, None), f"{got.pod} got {got.body} of the {most} bytes that {front} took")
        seen = f"{front} took a body of {most} bytes"
        if limits.body:
            reply = session.http_post(f"http://{HOST1}/", node, most + 1)
            claim.require(
                reply.status == 413,
                f"{front} answers a body of {most + 1} bytes with {reply}, not with 413, and has {limits.body_from}",
            )
            seen += f" and refused one byte more with 413: {limits.body_from}"
        if limits.silence:
            seen += f"; a pod may be silent for {limits.silence:g} s: {limits.silence_from}"
    claim.saw(seen)


def _limits(session: LabSession, front: Pod) -> Limits:
    """Return the limits of the root of the first host, as the controller's pod has them."""
    block = next((block for block in session.served(front) if block.host == HOST1), None)
    return (block.limits.get("/") if block else None) or Limits(None, None, "no limit", "no limit")
