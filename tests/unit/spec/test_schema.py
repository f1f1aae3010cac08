"""The table of docs/spec.md and the JSON Schema for editors agree with the declared settings and the parser."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from hoplab.core.errors import SpecError
from hoplab.devtools import spec_pages
from hoplab.expectations.parts import known_parts
from hoplab.spec.parse import parse_spec
from hoplab.spec.parts import CniPart, Parts
from hoplab.spec.schema import json_schema, markdown_table
from hoplab.spec.settings import DECLARED

jsonschema: Any = importlib.import_module("jsonschema")
UPDATE = "run: python -m hoplab.devtools.spec_pages"


@pytest.mark.docs
def test_the_table_of_settings_is_up_to_date() -> None:
    text = spec_pages.PAGE.read_text()
    assert spec_pages.page(text) == text, UPDATE
    assert all(f"| `lab:{setting.path}` |" in text for setting in DECLARED)


@pytest.mark.docs
def test_the_json_schema_is_up_to_date() -> None:
    assert spec_pages.SCHEMA.read_text() == spec_pages.schema(), UPDATE


def test_the_json_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(json_schema(known_parts()))


@pytest.mark.parametrize(
    ("config", "right"),
    [
        ({}, True),
        ({"lab:nodes": {"workers": 3, "worker": {"vcpus": "2", "memory": "3GiB"}}, "pulumi:tags": {}}, True),
        ({"lab:cni": {"name": "calico", "backend": "ipip", "blockSize": 28}, "lab:ipv6": True}, True),
        ({"lab:ipv6": {"network": "fd12:3:4:5::/64"}, "lab:image": {"components": ["cni_calico"]}}, True),
        ({"lab:loadBalancer": {"name": "metallb", "pool": "192.168.77.240/29"}, "lab:protect": "true"}, True),
        ({"lab:kubernetes": {"version": "1.36"}}, True),
        ({"lab:kubernetes": {"version": 1.36}}, True),
        ({"lab:kubernetes": {"version": "1.37.2"}}, True),
        ({"lab:kubernetes": {"version": "1.35"}}, False),
        ({"lab:nodes": {"workers": 0}}, False),
        ({"lab:nodes": {"wrokers": 3}}, False),
        ({"lab:nodes": {"worker": {"memory": 2048}}}, False),
        ({"lab:cni": {"name": "cilium", "backend": "native"}, "lab:proxy": {"mode": "cilium"}}, True),
        ({"lab:cni": {"name": "weave"}}, False),
        ({"lab:cni": {"backend": "vxln"}}, False),
        ({"lab:proxy": {"mode": "ipvs"}}, False),
        ({"lab:accel": "xen"}, False),
        ({"lab:network": "lan"}, False),
        ({"nodes": {}}, False),
    ],
)
def test_schema_and_parser_agree(config: dict[str, Any], right: bool) -> None:
    valid = jsonschema.Draft7Validator(json_schema(known_parts())).is_valid({"config": config})
    try:
        parse_spec("dev", config, "x", known_parts())
        parsed = True
    except SpecError:
        parsed = False
    assert (valid, parsed) == (right, right)


def test_a_new_cni_is_in_table_schema_and_parser() -> None:
    parts = Parts.of([*known_parts().cni.values(), CniPart(name="made-up", backends=("wires",), block_sizes=(24, 28))])
    assert "`made-up`" in markdown_table(parts)
    assert "made-up: wires" in markdown_table(parts)
    choices = json_schema(parts)["properties"]["config"]["properties"]["lab:cni"]["properties"]
    assert "made-up" in choices["name"]["enum"]
    assert "wires" in choices["backend"]["enum"]
    spec = parse_spec("dev", {"lab:cni": {"name": "made-up", "blockSize": 25}}, "x", parts)
    assert (spec.cni.backend, spec.cni.block_size) == ("wires", 25)
    with pytest.raises(SpecError, match=r"cni\.blockSize: is 29; at most 28"):
        parse_spec("dev", {"lab:cni": {"name": "made-up", "blockSize": 29}}, "x", parts)
