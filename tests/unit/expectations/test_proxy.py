"""What kube-proxy is expected to write, computed from the Kubernetes API, and where the rules of each mode have it."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from typing import Any

import pytest

from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT
from hoplab.expectations import proxy
from hoplab.expectations.proxy import iptables, nftables
from hoplab.observe.facts.api_services import PROXY_LABEL
from hoplab.observe.recording_format import load
from hoplab.observe.snapshot import Snapshot
from tests.support.edits import FIRST, HEALTHY, SECOND, api_item, in_api

RECORDINGS = PROJECT / "tests" / "recordings"
LABS = {name: load(RECORDINGS / f"{name}.json") for name in ("flannel-vxlan", "flannel-vxlan-nftables")}


def test_chain_names_are_the_well_known_ones() -> None:
    """The same in every cluster, so any listing on the web shows them."""
    assert iptables.service_chain("default/kubernetes:https", "tcp") == "KUBE-SVC-NPX46M4PTMTKRN6Y"
    assert iptables.service_chain("kube-system/kube-dns:dns", "udp") == "KUBE-SVC-TCOU7JCQXEZGVUNU"
    assert iptables.service_chain("kube-system/kube-dns:dns-tcp", "tcp") == "KUBE-SVC-ERIFXISQEP7F7OF4"
    assert iptables.external_chain("default/kubernetes:https", "tcp") == "KUBE-EXT-NPX46M4PTMTKRN6Y"


def test_names_of_nftables_chains_can_be_read() -> None:
    assert nftables.service_chain("kube-system/kube-dns:dns", "udp") == "service-FY5PMXPG-kube-system/kube-dns/udp/dns"
    assert nftables.external_chain("demo/sticky", "tcp") == "external-FLVA37E4-demo/sticky/tcp/"
    assert nftables.endpoint_chain("demo/sticky", "tcp", "10.244.1.3:8080") == ""
    sticky = nftables.endpoint_chain("demo/sticky", "tcp", "10.244.1.3:8080", sticky=True)
    assert sticky == "endpoint-33OLLWVQ-demo/sticky/tcp/__10.244.1.3/8080"
    long = nftables.service_chain(f"{'n' * 120}/{'s' * 120}:port", "tcp")
    assert len(long) == len("service-") + nftables.NAME_LENGTH and long.endswith("...")


@pytest.mark.parametrize("lab", LABS.values(), ids=LABS)
def test_expectations_of_a_recorded_lab(lab: Snapshot) -> None:
    found = {expectation.service: expectation for expectation in proxy.expectations(lab)}
    dns = found["kube-system/kube-dns:dns"]
    assert (dns.protocol, dns.cluster_ip, dns.port) == ("udp", IPv4Address("10.96.0.10"), 53)
    assert str(dns) == "kube-system/kube-dns:dns (10.96.0.10:53/udp)"
    assert {endpoint.node for endpoint in found["hoplab-verify/echo"].endpoints} == {node.name for node in lab.nodes}
    assert found["hoplab-verify/nobody"].endpoints == ()
    assert found["hoplab-verify/single"].node_port == 30080
    for endpoint in dns.endpoints:
        assert endpoint.to == f"{endpoint.address}:53"
    client = lab.setting.pod_cidr[-2]
    for service in found.values():
        assert proxy.targets(lab.nodes[0], client, service) == {endpoint.to for endpoint in service.endpoints}
        assert {service.chain} <= proxy.of(lab).chains(lab.nodes[0]) or not service.endpoints


def test_both_modes_have_the_same_expectations() -> None:
    """But for names of chains, and addresses, which each lab has its own of; of services that both labs have."""
    shared = set.intersection(*({found.service for found in proxy.expectations(lab)} for lab in LABS.values()))
    one, other = (
        {
            (
                found.service,
                found.protocol,
                found.port,
                found.node_port,
                found.external_policy,
                found.affinity,
            )
            for found in proxy.expectations(lab)
            if found.service in shared
        }
        for lab in LABS.values()
    )
    assert one == other and len(one) > 8


def test_a_mode_that_nobody_wrote_is_named() -> None:
    with pytest.raises(LabError, match=r"there is no mode of kube-proxy 'ipvs'; known: cilium, iptables, nftables$"):
        proxy.get_mode("ipvs")


def echo(lab: Snapshot) -> proxy.ServiceExpectation:
    return next(found for found in proxy.expectations(lab) if found.service == "hoplab-verify/echo")


def homes(service: proxy.ServiceExpectation) -> set[str]:
    return {endpoint.node for endpoint in service.endpoints}


def with_endpoints(values: dict[str, dict[str, Any]], lab: Snapshot = HEALTHY) -> Snapshot:
    """The lab whose endpoints of echo have these values, by the node they are on."""

    def edit(text: str) -> str:
        document = json.loads(text)
        for item in document["items"]:
            if item["metadata"]["labels"].get("kubernetes.io/service-name") == "echo":
                for endpoint in item["endpoints"]:
                    endpoint.update(values[endpoint["nodeName"]])
        return json.dumps(document)

    return in_api("endpoints", edit, lab)


def test_a_service_of_another_proxy_has_no_rules() -> None:
    label = {PROXY_LABEL: "nobody"}
    others = in_api("services", api_item("echo", lambda item: item["metadata"].setdefault("labels", {}).update(label)))
    expected = {found.service for found in proxy.expectations(HEALTHY)}
    assert {found.service for found in proxy.expectations(others)} == expected - {"hoplab-verify/echo"}


ENDING = {"conditions": {"ready": False, "serving": True, "terminating": True}}


def test_an_endpoint_that_terminates_is_used_as_long_as_none_is_ready() -> None:
    assert homes(echo(with_endpoints({FIRST.name: ENDING, SECOND.name: {}}))) == {SECOND.name}
    assert homes(echo(with_endpoints({FIRST.name: ENDING, SECOND.name: ENDING}))) == {FIRST.name, SECOND.name}
    gone = {"conditions": {"ready": False, "serving": False, "terminating": True}}
    assert homes(echo(with_endpoints({FIRST.name: gone, SECOND.name: ENDING}))) == {SECOND.name}


def test_a_node_uses_what_is_hinted_for_it_or_its_zone() -> None:
    def hinted(kind: str, first: str, second: str) -> dict[str, dict[str, Any]]:
        return {
            node: {"hints": {kind: [{"name": name}]}} for node, name in ((FIRST.name, first), (SECOND.name, second))
        }

    for_nodes = echo(with_endpoints(hinted("forNodes", FIRST.name, SECOND.name)))
    assert homes(for_nodes) == {FIRST.name, SECOND.name}
    assert [homes(for_nodes.on(node.name)) for node in (FIRST, SECOND)] == [{FIRST.name}, {SECOND.name}]
    elsewhere = echo(with_endpoints(hinted("forNodes", "worker9", SECOND.name)))
    assert elsewhere.on(FIRST.name) is elsewhere and homes(elsewhere.on(SECOND.name)) == {SECOND.name}
    zoned = in_api("nodes", api_item(FIRST.name, lambda item: item["metadata"]["labels"].update({proxy.ZONE: "a"})))
    for_zones = echo(with_endpoints(hinted("forZones", "b", "a"), zoned))
    assert homes(for_zones.on(FIRST.name)) == {SECOND.name} and for_zones.on(SECOND.name) is for_zones
    partly = hinted("forZones", "b", "a") | {FIRST.name: {}}
    assert echo(with_endpoints(partly, zoned)).by_node == {}
    ending = {node: {**hint, **ENDING} for node, hint in hinted("forZones", "b", "a").items()}
    assert echo(with_endpoints(ending, zoned)).by_node == {}


def test_chains_of_connections_that_stay_on_their_node() -> None:
    assert iptables.local_chain("default/kubernetes:https", "tcp") == "KUBE-SVL-NPX46M4PTMTKRN6Y"
    assert nftables.local_chain("kube-system/kube-dns:dns", "udp") == "local-FY5PMXPG-kube-system/kube-dns/udp/dns"
