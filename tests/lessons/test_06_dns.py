"""Chapter 6, names: /etc/resolv.conf of nodes and pods, the kubelet's clusterDNS, CoreDNS's Corefile and its log."""

from __future__ import annotations

import pytest

from hoplab.observe.facts.api_corefile import API_COREFILE
from hoplab.observe.facts.api_pod_states import API_POD_STATES
from hoplab.observe.facts.resolv_conf import RESOLV_CONF
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import dns
from hoplab.verify.claims import Claim, counted, listed

pytestmark = pytest.mark.remedy("kubectl get configmap coredns -n kube-system -o yaml")


@pytest.mark.needs(facts=dns.FACTS)
def test_coredns_does_not_ask_itself(lab: Snapshot, claim: Claim) -> None:
    """CoreDNS forwards the names that it does not serve to other servers: not to its own loopback or ClusterIP."""
    corefile, loops = lab.api[API_COREFILE], list(dns.loops(lab))
    if lab.setting.foreign and corefile is None:
        pytest.skip("needs the ConfigMap kube-system/coredns; this cluster has none")
    claim.require(not loops, loops[0] if loops else "", *(corefile.forwards if corefile else ()))
    to = listed(dict.fromkeys(to for forward in (corefile.forwards if corefile else ()) for to in forward.to))
    claim.saw(f"CoreDNS forwards to {to}")


@pytest.mark.needs(facts=dns.FACTS)
def test_coredns_does_not_crash(lab: Snapshot, claim: Claim) -> None:
    """CoreDNS runs: where one of its pods ends again and again, its last words say why."""
    pods = dns.coredns(lab)
    if lab.setting.foreign and not pods:
        pytest.skip(f"needs pods with the label {'='.join(dns.LABEL)}; this cluster's DNS has others")
    for pod in pods:
        for container in pod.containers:
            claim.require(
                not container.crashes,
                f"{container.name} of {pod} on {pod.node} crashes ({container.waiting or container.ended}, "
                f"{counted(container.restarts, 'restart')}): {dns.last_words(lab, pod, container)}",
            )
    claim.saw(f"{counted(len(pods), 'pod')} of CoreDNS: {listed(pods)}")


@pytest.mark.needs(facts=dns.FACTS)
def test_pods_ask_the_clusters_dns(lab: Snapshot, claim: Claim) -> None:
    """The kubelet writes the ClusterIP of kube-dns into the resolv.conf of every pod with the policy ClusterFirst."""
    if lab.setting.foreign and not dns.has_service(lab):
        pytest.skip(f"needs the service {'/'.join(dns.SERVICE)}; this cluster's DNS has another name")
    wanted, asking = listed(dns.servers(lab)), 0
    for pod in lab.api[API_POD_STATES]:
        node, found = dns.of_pod(lab, pod)
        if not (pod.asks_cluster_dns and node and found):
            continue
        first = [conf.nameservers[0] if conf.nameservers else "no server" for conf in found]
        claim.require(
            set(first) & dns.allowed(lab, node),
            f"resolv.conf of pod {pod} on {node.name} names {first[-1]}, not {wanted}, which is kube-dns",
            *found,
        )
        asking += 1
    for node in lab.nodes:
        given = node[RESOLV_CONF].cluster_dns
        claim.require(
            not given or set(given) & dns.allowed(lab, node),
            f"the kubelet of {node.name} gives new pods the DNS server {listed(given)}, not {wanted}",
        )
    claim.saw(f"{counted(asking, 'pod')} and {counted(len(lab.nodes), 'kubelet')} name {wanted}")
