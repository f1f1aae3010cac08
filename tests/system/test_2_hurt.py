"""A real lab of which a part does not answer: `verify` names it first and checks what is left; then all holds again."""

from __future__ import annotations

import pytest

from hoplab.core.paths import LabPaths
from tests.system.conftest import LabCommand, some_on_request
from tests.system.faults import wait
from tests.system.faults.hurt import HURTS, Hurt, Place

pytestmark = pytest.mark.timeout(0)  # every command that is run has a bound of its own

EVERY_RUN = HURTS[:1]


@pytest.mark.parametrize("hurt", some_on_request(HURTS, EVERY_RUN, lambda hurt: hurt.name))
def test_a_hurt_lab_is_diagnosed_and_checked(hurt: Hurt, lab: LabCommand, paths: LabPaths) -> None:
    place = Place(paths)
    lab("verify", "-k", "routes or forward")  # the workload is there, and all is well
    with hurt.broken(place):
        report = lab("verify", "--json", "-k", "routes or forward", expect=1).json()
    outage, node = report["outages"][0], place.node
    assert outage["place"] == hurt.place.format(node=node), report["outages"]
    assert hurt.says.format(node=node) in outage["problem"], outage
    assert hurt.evidence.format(node=node) in "\n".join(outage["evidence"]), outage
    assert report["failed"] == 0 and report["passed"] > 0, [
        claim for claim in report["claims"] if claim["outcome"] == "failed"
    ]
    wait(lambda: lab("status", expect=None).code == 0)
    wait(lambda: lab("verify", "-k", "routes or forward", expect=None).code == 0)
