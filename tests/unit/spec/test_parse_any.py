"""Any configuration gives a spec or a SpecError."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hoplab.spec.parse
from hoplab.core.errors import SpecError
from hoplab.spec.model import LabSpec
from hoplab.spec.parse import parse_spec
from hoplab.spec.settings import SETTINGS
from tests.support.specs import PARTS, VERSIONS, FakeHost, scalars


@pytest.fixture(autouse=True)
def _versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hoplab.spec.parse, "supported_versions", lambda: VERSIONS)


SCALARS = scalars(
    ["auto", "calico", "metallb", "true", "2GiB", "10.0.0.0/8", "10.9.0.0/30", "fd00:1::/64", "{", 10**4000],
    8,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["workers", "worker", "memory", "name", "blockSize", "network", "pool", "podCIDR"])
            | SCALARS,
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([f"lab:{name}" for name in SETTINGS]) | st.text(max_size=8), VALUES, max_size=5))
def test_every_configuration_is_a_spec_or_a_spec_error(config: dict[str, Any]) -> None:
    try:
        assert isinstance(parse_spec("dev", config, "x", PARTS, FakeHost()), LabSpec)
    except SpecError as error:
        assert error.issues
        assert error.message
