"""The lessons about DNS, on a recording that was given the facts: healthy forms, then one fault."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hoplab.observe.facts.api_corefile import API_COREFILE, Forward, read
from hoplab.observe.facts.api_pod_states import API_POD_STATES
from hoplab.observe.facts.dns_log import DNS_LOG
from hoplab.observe.facts.resolv_conf import RESOLV_CONF, ResolvConf
from hoplab.verify import requirements
from tests.support.edited.dns import (
    ASK,
    COREDNS,
    COREFILE,
    CRASH,
    CRASHES,
    DNS,
    ECHO,
    FAULTS,
    ITSELF,
    LOOP,
    OLD,
    with_dns,
)
from tests.support.edits import Fault, added, in_api, objects_without, on_node
from tests.support.lesson_functions import applies, failures

OURS = (ITSELF, CRASH, ASK)


def forwarding(to: str) -> str:
    return COREFILE.replace("/etc/resolv.conf", to)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fails_exactly_its_lesson(fault: Fault) -> None:
    fault.fails_its_lessons()


def test_they_hold_on_a_healthy_lab() -> None:
    lab = with_dns()
    assert all(applies(name, lab) for name in OURS) and failures(OURS, lab) == {}
    assert requirements.skip_reason(OLD, facts=("corefile",)).startswith("needs the fact corefile")


@pytest.mark.parametrize(
    "to", ["10.96.0.10", "dns://127.0.0.1:53", "[::1]:53", "8.8.8.8 127.0.0.53", str(COREDNS[0].address)]
)
def test_other_ways_to_itself(to: str) -> None:
    assert "which is CoreDNS itself" in failures([ITSELF], with_dns(corefile=forwarding(to)))[ITSELF]


@pytest.mark.parametrize("to", ["8.8.8.8:53 1.1.1.1", "tls://9.9.9.9", "127.0.0.1:1053", "[2001:db8::1]:53", "/etc/x"])
def test_ordinary_servers_fail_nothing(to: str) -> None:
    assert failures(OURS, with_dns(corefile=forwarding(to))) == {}


def test_a_cluster_with_another_dns_has_no_corefile() -> None:
    assert failures(OURS, with_dns(corefile="")) == {}
    assert API_COREFILE.parse('{"items": []}') is None


def test_a_corefile_is_read_by_its_blocks() -> None:
    text = "(snip) {\n log\n}\n.:53 cluster.local:1053 {\n forward . 8.8.8.8 {\n  policy random\n }\n}\n"
    found = read(f"# forward . 127.0.0.1\n{text}example.org {{\n forward example.org 10.0.0.1 10.0.0.2\n}}\n")
    assert found.forwards == (
        Forward(53, ".", ("8.8.8.8",)),
        Forward(1053, ".", ("8.8.8.8",)),
        Forward(53, "example.org", ("10.0.0.1", "10.0.0.2")),
    )
    assert found.ports == {53, 1053}


def test_last_words_are_the_message_the_log_or_the_exit_code() -> None:
    ended = {"reason": "Error", "exitCode": 1, "message": "no such zone\n"}
    spoken = with_dns(status={**CRASHES, "lastState": {"terminated": ended}}, log=LOOP)
    assert failures([CRASH], spoken)[CRASH].endswith("4 restarts): no such zone")
    assert failures([CRASH], with_dns(status=CRASHES))[CRASH].endswith("Error, exit code 1")
    assert failures([CRASH], with_dns(status=CRASHES, log="starting"))[CRASH].endswith("restarts): starting")
    now = {"ready": False, "restartCount": 1, "state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
    assert failures([CRASH], with_dns(status=now))[CRASH].endswith("(OOMKilled, 1 restart): OOMKilled, exit code 137")


def test_a_container_that_was_restarted_once_or_starts_now_does_not_crash() -> None:
    for status in ({**CRASHES, "ready": True, "state": {"running": {}}}, {"ready": False, "restartCount": 0}):
        assert failures([CRASH], with_dns(status=status)) == {}


def test_a_cache_on_the_node_is_allowed() -> None:
    lab = with_dns(asked={ECHO: ("169.254.20.10",)}, kubelet="169.254.20.10")
    assert set(failures(OURS, lab)) == {ASK}
    entry = {"ifname": "nodelocaldns", "addr_info": [{"family": "inet", "local": "169.254.20.10", "prefixlen": 32}]}
    for node in OLD.nodes:
        lab = on_node("addresses", added(entry), lab, node.name)
    assert failures(OURS, lab) == {}


def test_a_dns_service_of_another_address_is_what_counts() -> None:
    def moved(text: str) -> str:
        return text.replace(f'"{DNS}"', '"10.96.0.77"')

    lab = in_api("services", moved, with_dns())
    assert "not 10.96.0.77, which is kube-dns" in failures([ASK], lab)[ASK]
    gone = in_api("services", lambda text: objects_without(text, "kube-dns"), with_dns())
    assert failures([ASK], gone) == {}  # then it is the planned address


def test_pods_with_servers_of_their_own_fail_nothing() -> None:
    def none_of_the_clusters(text: str) -> str:
        document = json.loads(text)
        for item in document["items"]:
            item["spec"]["dnsPolicy"] = "None"
        return json.dumps(document)

    lab = in_api("pod_states", none_of_the_clusters, with_dns(asked={ECHO: ("9.9.9.9",)}))
    assert failures([ASK], lab) == {}


def state(**spec: Any) -> Any:
    pod = {"metadata": {"name": "p" * 70, "namespace": "n"}, "spec": spec, "status": {}}
    (found,) = API_POD_STATES.parse(json.dumps({"items": [pod]}))
    return found


def test_who_asks_the_clusters_dns() -> None:
    assert state(dnsPolicy="ClusterFirst").asks_cluster_dns
    assert not state(dnsPolicy="ClusterFirst", hostNetwork=True).asks_cluster_dns
    assert state(dnsPolicy="ClusterFirstWithHostNet", hostNetwork=True).asks_cluster_dns
    assert not state(dnsPolicy="Default").asks_cluster_dns and not state().asks_cluster_dns
    assert (state().hostname, state(hostname="web").hostname) == ("p" * 63, "web")


def test_files_of_every_runtime_are_read() -> None:
    crio, docker = "/run/containers/storage/overlay-containers/1a/userdata", "/var/lib/docker/containers/2b"
    found = RESOLV_CONF.parse(
        "/etc/resolv.conf:nameserver 10.0.2.3\n/etc/resolv.conf:nameserver\n/etc/resolv.conf:; a comment\n"
        "/etc/resolv.conf:search a b\n/etc/resolv.conf:domain c\n/etc/resolv.conf:\n"
        f"{crio}/hostname:web\n{crio}/resolv.conf:nameserver 10.96.0.10\n{docker}/hostname:db\n"
        f"{crio}2/hostname:web\n{crio}2/resolv.conf:options ndots:5 timeout:1\n"
        "clusterDNS: [10.96.0.10, fd00::a]\nclusterDomain: cluster.local\n"
    )
    assert found.node == ResolvConf(("10.0.2.3",), ("c",))
    assert found.pods == {"web": (ResolvConf(("10.96.0.10",)), ResolvConf((), (), ("ndots:5", "timeout:1")))}
    assert (found.resolved, found.cluster_dns) == (None, ("10.96.0.10", "fd00::a"))
    assert RESOLV_CONF.parse("clusterDNS:\n- 10.96.0.10\n- fd00::a\nother:\n- 1.1.1.1\n").cluster_dns == (
        "10.96.0.10",
        "fd00::a",
    )
    assert RESOLV_CONF.parse("").node.nameservers == ()


def test_the_log_of_the_newest_container_comes_last() -> None:
    entry = "2026-11-28T18:00:00.123456789Z stderr P "
    heading = "==> /var/log/pods/kube-system_coredns-1_4ab5/coredns/{}.log <=="
    text = f"{heading.format(10)}\n{entry}new\n\n{heading.format(9)}\n{entry}old\nnonsense\n"
    assert DNS_LOG.parse(text) == {"kube-system/coredns-1": ("old", "new")}
    assert DNS_LOG.parse("") == {}
