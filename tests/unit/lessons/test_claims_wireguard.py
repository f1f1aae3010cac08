"""The lesson about WireGuard's peers: on a recording of a lab with that backend, and with one thing wrong in it."""

from __future__ import annotations

import pytest

from tests.support.edited.wireguard import FAULTS
from tests.support.edits import Fault


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fails_its_lessons(fault: Fault) -> None:
    fault.fails_its_lessons()
