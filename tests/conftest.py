"""Assertions of what tests share say as much as those of tests."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.support", "tests.system.faults")
