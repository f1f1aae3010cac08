"""What kube-proxy is expected to write, computed from the Kubernetes API, and where the rules of each mode have it."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT
from hoplab.expectations import proxy
from hoplab.expectations.proxy import iptables, nftables
from hoplab.observe.recording_format import load
from hoplab.observe.snapshot import Snapshot

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
    with pytest.raises(LabError, match=r"there is no mode of kube-proxy 'ipvs'; known: iptables, nftables$"):
        proxy.get_mode("ipvs")
