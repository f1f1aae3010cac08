"""A model of a packet in a lab whose policies a program decides about, and in one where the program is gone."""

from __future__ import annotations

from tests.support import edits
from tests.support.edited import filters
from tests.support.edited.queues import with_policies
from tests.support.edits import FIRST, HEALTHY
from tests.support.policy_table import queues, table
from tests.support.traced_faults import traced

SINGLE = next(pod for pod in HEALTHY.pods if pod.api.label("app") == "single")
SELECTED = with_policies(filters.HEALTHY, table([SINGLE.address]), queues())
RULE = "`ip daddr @podips-v4 queue to 98`"


def test_a_program_that_decides_is_said_and_assumed_to_let_it_pass() -> None:
    found = traced(SELECTED, "far", "single")
    assert found.shown.end is None, "it arrives"
    assert [note for note in found.notes if note.startswith("a program decides: ") and RULE in note]


def test_a_queue_without_a_program_ends_it() -> None:
    unread = edits.on_node("nfqueue", lambda _: "", SELECTED)
    end = traced(unread, "far", "single").shown.end
    assert end is not None and (end.kind, end.at.name) == ("rule", FIRST.name)
    assert end.why.startswith(f"{RULE} in nftables inet kube-network-policies, postrouting") and "drops it" in end.why
