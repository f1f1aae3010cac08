"""The read-only lessons in a lab with kube-network-policies: healthy, with a policy, then with one thing broken."""

from __future__ import annotations

import pytest

from hoplab.verify import packet_paths
from tests.support.edited.queues import DECIDES, FAULTS, HEALTHY, SELECTED
from tests.support.edits import FIRST, POD, Fault
from tests.support.lesson_functions import applies, failures, read_only


@pytest.mark.parametrize("lab", [HEALTHY, SELECTED], ids=["no policy", "a policy"])
def test_a_healthy_lab_is_healthy_whatever_policies_select(lab: object) -> None:
    assert applies(DECIDES, HEALTHY)
    assert failures(read_only(), lab) == {}  # type: ignore[arg-type]


def test_what_a_program_decides_is_said() -> None:
    pods = [pod for pod in SELECTED.pods if pod.node.name == FIRST.name and pod.api.namespace == POD.api.namespace]
    other = next(pod for pod in pods if pod is not POD)
    selected = next(pod for pod in SELECTED.pods if pod.address == POD.address)
    found = packet_paths.checked([packet_paths.between_pods(other, selected, 8080)])
    assert not found.drops
    assert str(found).endswith(
        "where the program lets them to which a rule leaves them: `ip daddr @podips-v4 queue to 98` in nftables inet "
        f"kube-network-policies, chain postrouting, of {FIRST.name}"
    )


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fails_its_lessons(fault: Fault) -> None:
    fault.fails_its_lessons()
