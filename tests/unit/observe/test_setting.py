"""The setting of a lab: from its plan, and as recordings and the lab's state have it."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from hoplab.core.paths import PROJECT
from hoplab.expectations.parts import known_parts
from hoplab.lab.spec_file import plan_lab
from hoplab.observe import setting
from hoplab.spec.model import AddressRange, CniSpec, Ipv6Spec, LabSpec

PARTS = known_parts()
RECORDINGS = sorted((PROJECT / "tests" / "recordings").glob("*.json"))
PLAN = plan_lab(LabSpec("dev"), lab_id="dev-123456", accel="tcg")
SETTING = setting.of_plan(PLAN)


def test_setting_of_a_plan() -> None:
    assert (SETTING.gateway, SETTING.dns_ip, SETTING.api_service_ip) == (
        PLAN.network.gateway,
        PLAN.dns_ip,
        PLAN.api_service_ip,
    )
    assert SETTING.nodes == {node.name: node.address for node in PLAN.nodes}


@pytest.mark.parametrize(
    "made",
    [
        SETTING,
        replace(SETTING, load_balancer="metallb", pool=AddressRange.parse("192.168.77.245-192.168.77.254")),
        replace(SETTING, pool=AddressRange.parse("192.168.77.9")),
        replace(SETTING, ipv6=Ipv6Spec(), nodes6={"worker1": IPv6Address("fd00:77::20")}),
        replace(SETTING, cni="calico", block_size=27),
        replace(SETTING, cni_nftables=True),
    ],
)
def test_document_of_a_setting_is_read_back(made: setting.Setting) -> None:
    assert setting.from_document(json.loads(json.dumps(setting.to_document(made, PARTS)))) == made


@pytest.mark.parametrize("file", RECORDINGS, ids=lambda file: file.stem)
def test_document_of_a_recording_is_written_as_it_was(file: Path) -> None:
    recorded = json.loads(file.read_text()).get("setting")  # one that is like another may have none
    if recorded and "like" not in json.loads(file.read_text()):
        assert json.dumps(setting.to_document(setting.from_document(recorded), PARTS)) == json.dumps(recorded)


def test_document_of_an_older_version_has_defaults() -> None:
    names = ("lab", "network", "gateway", "pod_cidr", "service_cidr", "cni", "backend", "proxy_mode", "nodes")
    document = setting.to_document(SETTING, PARTS)
    found = setting.from_document({name: document[name] for name in names})
    assert found.nodes["worker1"] == IPv4Address("192.168.77.20")
    assert (found.ingress, found.load_balancer, found.pool, found.ipv6) == ("none", "none", None, None)
    assert (found.block_size, found.cni_nftables, found.nodes6) == (CniSpec.block_size, False, {})


def test_document_that_does_not_fit_names_what_is_wrong() -> None:
    document = {**setting.to_document(SETTING, PARTS), "pool": "192.168.77.9-192.168.77.1", "gateway": "nowhere"}
    del document["cni"]
    with pytest.raises(ValueError, match=r"^gateway: .* valid IPv4 address; cni: Field required; pool: [^;]*$"):
        setting.from_document(document)


def test_what_implements_services_in_words() -> None:
    made = setting.of_plan(plan_lab(LabSpec("dev"), lab_id="dev-0", accel="tcg"))
    assert made.proxy == "kube-proxy iptables"
    assert replace(made, cni="cilium", proxy_mode="cilium").proxy == "no kube-proxy"
