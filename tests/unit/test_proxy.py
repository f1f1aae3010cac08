"""What kube-proxy promises, computed from the Kubernetes API."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from hoplab.facts.iptables import IPTABLES
from hoplab.paths import PROJECT
from hoplab.proxy import iptables as kube_proxy
from hoplab.snapshot import load

RECORDED = load(PROJECT / "tests" / "recordings" / "flannel-vxlan.json")


def test_chain_names_are_the_well_known_ones() -> None:
    """The same in every cluster, so any listing on the web shows them."""
    assert kube_proxy.service_chain("default/kubernetes:https", "tcp") == "KUBE-SVC-NPX46M4PTMTKRN6Y"
    assert kube_proxy.service_chain("kube-system/kube-dns:dns", "udp") == "KUBE-SVC-TCOU7JCQXEZGVUNU"
    assert kube_proxy.service_chain("kube-system/kube-dns:dns-tcp", "tcp") == "KUBE-SVC-ERIFXISQEP7F7OF4"
    assert kube_proxy.external_chain("default/kubernetes:https", "tcp") == "KUBE-EXT-NPX46M4PTMTKRN6Y"


@pytest.mark.parametrize("endpoints", [0, 1, 2, 3, 7])
def test_probabilities_give_equal_shares(endpoints: int) -> None:
    left, shares = 1.0, []
    for probability in kube_proxy.probabilities(endpoints):
        shares.append(left * (1 if probability is None else probability))
        left -= shares[-1]
    assert shares == pytest.approx([1 / endpoints] * endpoints if endpoints else [])


def test_promises_of_a_recorded_lab() -> None:
    found = {promise.service: promise for promise in kube_proxy.promises(RECORDED)}
    dns = found["kube-system/kube-dns:dns"]
    assert (dns.protocol, dns.cluster_ip, dns.port) == ("udp", IPv4Address("10.96.0.10"), 53)
    assert str(dns) == "kube-system/kube-dns:dns (10.96.0.10:53/udp)"
    assert len(found["hoplab-verify/echo"].endpoints) == len(RECORDED.nodes)
    assert found["hoplab-verify/nobody"].endpoints == ()
    assert found["hoplab-verify/single"].node_port == 30080
    for endpoint in dns.endpoints:
        assert endpoint.to == f"{endpoint.address}:53"
        assert endpoint.chain in RECORDED.nodes[0][IPTABLES].chains("nat")
