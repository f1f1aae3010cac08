"""The lessons about certificates and clocks, on a recording that was given the facts; and that no key is kept."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from hoplab.core.errors import FactError
from hoplab.expectations.parts import known_parts
from hoplab.observe import snapshot
from hoplab.observe.facts import Facts
from hoplab.observe.facts.api_tls_secrets import API_TLS_SECRETS, REFUSED, TLS, reduce
from hoplab.observe.facts.clock import CLOCK, Clock
from hoplab.observe.recording_format import load, save
from hoplab.observe.script import Output
from hoplab.verify import requirements
from tests.support.edited.tls import (
    CLOCKS,
    FAULTS,
    FIRST,
    KEY,
    NOW,
    OLD,
    SECOND,
    SITES,
    certificate,
    certified,
    clock,
    secret,
    with_clocks,
    with_sites,
)
from tests.support.edits import Fault
from tests.support.lesson_functions import applies, failures

OURS = (SITES, CLOCKS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fails_exactly_its_lesson(fault: Fault) -> None:
    fault.fails_its_lessons()


def test_ordinary_certificates_fail_nothing() -> None:
    lab = certified()
    assert all(applies(name, lab) for name in OURS) and failures(OURS, lab) == {}
    wildcard = with_sites(
        secret(certificate("*.example.org", "example.org")), hosts=("Shop.example.org", "example.org")
    )
    assert failures(OURS, wildcard) == {}
    assert failures(OURS, with_sites(secret(certificate()), hosts=())) == {}  # no names, and no hosts to be for
    assert failures(OURS, with_sites(name="")) == {}  # the controller's own certificate
    bundle = certificate("shop.example.org") + certificate("an authority")
    assert failures(OURS, with_sites(secret(bundle), secret("", "Opaque", "settings"))) == {}


def test_a_wildcard_is_for_one_label() -> None:
    lab = with_sites(secret(certificate("*.example.org")), hosts=("a.b.example.org",))
    assert "is for *.example.org, not for a.b.example.org" in failures([SITES], lab)[SITES]


def test_a_certificate_is_judged_by_the_nodes_clocks() -> None:
    old = certified(ends=NOW)
    assert failures([SITES], with_clocks({FIRST: clock(-1)}, old)) == {}  # there it is valid still
    assert SITES in failures([SITES], with_clocks({FIRST: clock(2)}, old))


def test_a_certificate_that_is_none_is_named() -> None:
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    assert "has no certificate that can be read" in failures([SITES], with_sites(secret(broken)))[SITES]


# What is kept


def test_no_key_is_kept(tmp_path: Path) -> None:
    both = secret(certificate("shop.example.org") + KEY)
    password = {**secret("", "Opaque", "settings"), "data": {"password": "aHVudGVyMg==", "tls.crt": "%%%"}}
    answer = json.dumps({"items": [both, password]})

    class Reader:
        def batches(self, commands: object, *, in_pods: object) -> dict[str, dict[str, Output]]:
            return {FIRST: {"clock": Output(0, "1795888801.5\n")}}

    seen = snapshot.take(OLD.setting, {}, Reader(), lambda _: Output(0, answer), known_parts())
    assert [(str(found), found.kind, len(found.certificates)) for found in seen.api[API_TLS_SECRETS]] == [
        ("shop/web-tls", TLS, 1),
        ("shop/settings", "Opaque", 0),
    ]
    kept = seen.api.outputs["tls_secrets"].out
    save(replace(seen, api=Facts("api", {"tls_secrets": Output(0, kept)})), tmp_path / "r.json", known_parts())
    again = load(tmp_path / "r.json")
    assert again.api[API_TLS_SECRETS] == seen.api[API_TLS_SECRETS]
    for text in (kept, (tmp_path / "r.json").read_text()):
        for word in ("PRIVATE KEY", "aHVudGVyMg", "tls.key", base64.b64encode(KEY.encode()).decode()[:40]):
            assert word not in text


@pytest.mark.parametrize("text", ["", "[]", '{"items": [{"data": {"tls.key": "abc"}}]}', '{"items": 7}', "{"])
def test_what_is_no_list_of_secrets_is_dropped(text: str) -> None:
    assert reduce(text) == REFUSED
    with pytest.raises(FactError, match="the list of secrets cannot be read"):
        API_TLS_SECRETS.parse(reduce(text))
    assert API_TLS_SECRETS.parse(reduce('{"items": null}')) == ()


def test_an_account_that_may_not_read_secrets_has_no_such_lesson() -> None:
    lab = certified()
    refused = replace(lab, api=Facts("api", {**lab.api.outputs, "tls_secrets": Output(403, "")}))
    assert requirements.skip_reason(refused, facts=("tls_secrets",)) == (
        "needs the fact tls_secrets, which this account of the cluster may not read"
    )


# Clocks


def test_the_look_is_the_uncertainty() -> None:
    assert failures([CLOCKS], with_clocks({FIRST: clock(63)})) == {}  # 59 s, if it was read at the end
    assert failures([CLOCKS], with_clocks({FIRST: clock(-59)})) == {}
    assert failures([CLOCKS], with_clocks({FIRST: clock(100, ended=90), SECOND: clock(80, ended=90)})) == {}


def test_a_look_has_this_machines_times() -> None:
    class Reader:
        def batches(self, commands: object, *, in_pods: object) -> dict[str, dict[str, Output]]:
            return {FIRST: {"clock": Output(0, "1795888801.500000000\n"), "links": Output(0, "[]")}}

    seen = snapshot.take(OLD.setting, {}, Reader(), lambda path: Output(404, path), known_parts())
    found = seen.node_facts[FIRST][CLOCK]
    assert found.began <= found.ended and found.node == 1795888801.5
    assert seen.node_facts[FIRST].outputs["links"].out == "[]"
    assert seen.api.outputs["tls_secrets"] == Output(404, "")


@pytest.mark.parametrize(
    "text", ["", "1 2", "1 2 3 4", "a b c", "3 2 1", "nan 1 2", "1 2 inf", "nan", "-1", "1 1e12 2"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(FactError, match="is not the time of a node in a look"):
        CLOCK.parse(text)
    assert CLOCK.parse("1.0 2.5 3\n") == Clock(1.0, 2.5, 3.0)


def test_a_time_alone_is_of_a_look_at_any_time() -> None:
    found = CLOCK.parse("1795888801.5\n")
    assert (found.node, found.least, found.most) == (1795888801.5, -math.inf, math.inf)
