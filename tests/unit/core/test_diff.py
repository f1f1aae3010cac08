"""What differs between two documents, and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoplab.core.diff import diff, patch

TEXTS = st.text(st.sampled_from("ab,\n{}"), max_size=40)
DOCUMENTS = st.recursive(
    TEXTS | st.integers(), lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=4), max_leaves=12
)


@given(DOCUMENTS, DOCUMENTS)
def test_a_delta_applied_to_its_base_gives_the_document(base: Any, now: Any) -> None:
    assert patch(base, diff(base, now)) == now


@given(DOCUMENTS)
def test_a_document_does_not_differ_from_itself(base: Any) -> None:
    assert diff(base, base) == ({} if isinstance(base, dict) else [] if isinstance(base, str) else base)


def test_a_delta_holds_only_what_differs() -> None:
    rules = "*nat\n[0:0] -A ONE\n[0:0] -A TWO\nCOMMIT\n"
    base = {"worker1": {"iptables": rules, "links": "[]"}, "worker2": {"iptables": rules}}
    now = {"worker1": {"iptables": rules.replace("[0:0] -A TWO\n", ""), "links": "[]"}, "worker2": {"iptables": rules}}
    assert diff(base, now) == {"worker1": {"iptables": [[18, "[0:0] -A TWO\n", ""]]}}


def test_a_delta_has_removed_and_new_members() -> None:
    assert diff({"a": "1", "b": "2"}, {"b": "2", "c": {"d": "3"}}) == {"c": {"d": "3"}, "a": None}
    assert list(patch({"a": "1", "b": "2", "c": "3"}, {"a": [[0, "1", "9"]], "b": None, "d": "4"})) == ["a", "c", "d"]


def test_a_delta_of_another_base_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has no 'eth0\\n' at 4"):
        patch("lo, eth1\n", [[4, "eth0\n", ""]])
