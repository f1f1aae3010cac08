"""The ends of a trace by the names that users give, and what is wrong with other names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hoplab.core.errors import LabError
from hoplab.observe.outage import Outage
from hoplab.observe.snapshot import Snapshot
from hoplab.trace.model import OUTSIDE, Place
from hoplab.trace.places import ends, names_ipv6, source, target
from tests.support.edits import HEALTHY, api_item, in_api
from tests.support.recordings import recording

SINGLE = "hoplab-verify/single-659bfc6785-8hptb"
DUAL = recording("flannel-vxlan-dual")
SINGLE6 = "hoplab-verify/single-659bfc6785-xxzgj"
NODE_PORT6 = {"name": "", "port": 80, "protocol": "TCP", "nodePort": 30099}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("outside", OUTSIDE),
        ("192.168.77.1", OUTSIDE),
        ("worker1", Place("node", "worker1")),
        ("node/worker1", Place("node", "worker1")),
        ("192.168.77.20", Place("node", "worker1")),
        (SINGLE, Place("pod", SINGLE)),
        ("single-659bfc6785-8hptb", Place("pod", SINGLE)),
        ("single", Place("pod", SINGLE)),  # a service sends nothing, so this is the beginning of a pod's name
        ("hoplab-verify/sing", Place("pod", SINGLE)),
        (f"pod/{SINGLE}", Place("pod", SINGLE)),
        ("10.244.0.6", Place("pod", SINGLE)),
        ("kube-flannel/kube-flannel-ds-nwxfb", Place("node", "worker1")),  # it is in the node's namespace
    ],
)
def test_a_sender(text: str, place: Place) -> None:
    assert source(HEALTHY, text).place == place


@pytest.mark.parametrize(
    ("text", "options", "name", "to"),
    [
        ("outside", {}, "the outside", "192.168.77.1:80"),
        ("198.51.100.9:443", {}, "198.51.100.9", "198.51.100.9:443"),
        ("worker2", {}, "node worker2", "192.168.77.21:10250"),
        ("worker2:22", {}, "node worker2", "192.168.77.21:22"),
        ("worker2:30080", {}, "service hoplab-verify/single", "192.168.77.21:30080"),
        (f"pod/{SINGLE}", {}, f"pod {SINGLE}", "10.244.0.6:8080"),
        ("single-6", {"port": 9}, f"pod {SINGLE}", "10.244.0.6:9"),
        ("single", {}, "service hoplab-verify/single", "10.101.69.124:80"),
        ("10.101.69.124", {}, "service hoplab-verify/single", "10.101.69.124:80"),
        ("service/single:80", {}, "service hoplab-verify/single", "10.101.69.124:80"),
        ("kube-dns", {}, "service kube-system/kube-dns", "10.96.0.10:53"),
        ("kube-dns:9153", {}, "service kube-system/kube-dns", "10.96.0.10:9153"),
        ("single", {"via": "nodeport"}, "service hoplab-verify/single", "192.168.77.20:30080"),
        ("single-local", {"via": "nodeport"}, "service hoplab-verify/single-local", "192.168.77.21:30081"),
        ("announced", {"via": "loadbalancer"}, "service hoplab-verify/announced", "192.168.77.245:80"),
        ("192.168.77.245:80", {}, "service hoplab-verify/announced", "192.168.77.245:80"),
        ("single", {"via": "ingress"}, "the ingress controller readable", "192.168.77.20:80"),
    ],
)
def test_a_receiver(text: str, options: dict[str, object], name: str, to: str) -> None:
    found = target(HEALTHY, text, **options)  # type: ignore[arg-type]
    assert (found.name, f"{found.address}:{found.port}") == (name, to)


def test_the_protocol_is_the_services() -> None:
    assert target(HEALTHY, "kube-dns").protocol == "udp"
    assert target(HEALTHY, "kube-dns", protocol="tcp").protocol == "tcp"
    assert target(HEALTHY, "kube-dns", protocol="icmp").port == 0


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("worker9", "'worker9' is no pod, node, service or address of lab dev", "is it one of these? worker"),
        ("kube-dnss", "'kube-dnss' is no pod, node, service or address", "kube-system/kube-dns"),
        ("zzz", "'zzz' is no pod", "there are worker1, worker2, "),
        ("svc/kube-dnss", "there is no service 'kube-dnss'", "kube-system/kube-dns"),
        ("app1-service-", "'app1-service-' may be any of 2 pods", "hoplab-verify/app1-service-85d6cbff99-pfflh"),
        ("kube-dns:54", "service kube-system/kube-dns has no port 54", "it has 53/UDP, 53/TCP, 9153/TCP"),
        ("kube-dns:x", "'kube-dns:x': 'x' is not a port", "1 to 65535"),
        ("kube-dns:70000", "'70000' is not a port", "1 to 65535"),
        ("node/echo", "'node/echo' is no pod, node, service", ""),
    ],
)
def test_a_receiver_that_is_none(text: str, message: str, remedy: str) -> None:
    with pytest.raises(LabError) as raised:
        target(HEALTHY, text)
    assert message in raised.value.message and remedy in raised.value.remedy


@pytest.mark.parametrize(
    ("text", "options", "message", "remedy"),
    [
        ("single", {"protocol": "udp"}, "service hoplab-verify/single has no UDP port", "it has 80/TCP"),
        ("single:80", {"port": 81}, "'single:80' and --port 81 name two ports", "name one"),
        (
            "hoplab-verify/echo",
            {"via": "nodeport"},
            "of the type ClusterIP: it has no NodePort",
            "hoplab-verify/single",
        ),
        ("single", {"via": "loadbalancer"}, "has no address of a load balancer", "hoplab-verify/announced"),
        ("worker1", {"via": "nodeport"}, "--via nodeport leads to a service, and worker1 is none", "name a service"),
    ],
)
def test_a_way_that_does_not_lead_there(text: str, options: dict[str, object], message: str, remedy: str) -> None:
    with pytest.raises(LabError) as raised:
        target(HEALTHY, text, **options)  # type: ignore[arg-type]
    assert message in raised.value.message and remedy in raised.value.remedy


def test_no_load_balancer_no_ingress() -> None:
    bare = replace(HEALTHY, setting=replace(HEALTHY.setting, ingress="none"))
    with pytest.raises(LabError, match="lab dev has no ingress controller"):
        target(bare, "single", via="ingress")
    nobody = in_api("services", lambda text: text.replace('"nodePort":', '"noPort":'))
    with pytest.raises(LabError) as raised:
        target(nobody, "single", via="nodeport")
    assert raised.value.remedy == "no service has one"


def test_a_headless_service() -> None:
    lab = in_api("services", lambda text: text.replace("10.101.69.124", "None"))
    with pytest.raises(LabError, match="service hoplab-verify/single is headless: it has no ClusterIP"):
        target(lab, "single")


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("service/kube-dns", "service/kube-dns is a service: it sends nothing", "name a pod, a node"),
        ("worker9", "'worker9' is no pod, node or address of lab dev", "worker"),
        ("198.51.100.9", "'198.51.100.9' is no pod, node or address", "there are worker1"),
        ("echo", "'echo' may be any of 2 pods", "hoplab-verify/echo-lm2p5"),
    ],
)
def test_a_sender_that_is_none(text: str, message: str, remedy: str) -> None:
    with pytest.raises(LabError) as raised:
        source(HEALTHY, text)
    assert message in raised.value.message and remedy in raised.value.remedy


def test_a_sender_whose_namespace_was_not_found() -> None:
    lab = recording("broken/a-pod-has-another-address-than-kubernetes-knows")
    with pytest.raises(LabError, match=r"no network namespace there has its address 10\.244\.0\.3"):
        source(lab, "hoplab-verify/echo-lm2p5")


def test_a_sender_on_a_node_that_did_not_answer() -> None:
    gone = {name: facts for name, facts in HEALTHY.node_facts.items() if name != "worker1"}
    lab = replace(HEALTHY, node_facts=gone, outages=(Outage("worker1", "worker1 does not answer"),))
    with pytest.raises(LabError, match="node worker1 could not be looked at"):
        source(lab, "worker1")


# IPv6


def with_both(*, balancer: bool = False) -> Snapshot:
    """The lab whose service echo has a NodePort of both families."""

    def change(item: dict[str, Any]) -> None:
        item["spec"].update(type="NodePort", ports=[NODE_PORT6])
        if balancer:
            item["status"] = {"loadBalancer": {"ingress": [{"ip": "192.168.77.9"}, {"ip": "fd00:77::9"}]}}

    return in_api("services", api_item("echo", change), DUAL)


@pytest.mark.parametrize(
    ("text", "place", "address"),
    [
        ("outside", OUTSIDE, "fd00:77::1"),
        ("fd00:77::1", OUTSIDE, "fd00:77::1"),
        ("worker1", Place("node", "worker1"), "fd00:77::20"),
        ("node/fd00:77::20", Place("node", "worker1"), "fd00:77::20"),
        ("single", Place("pod", SINGLE6), "fd00:244:0:1::6"),
        ("pod/fd00:244:0:1::6", Place("pod", SINGLE6), "fd00:244:0:1::6"),
        ("[fd00:244:0:1::6]", Place("pod", SINGLE6), "fd00:244:0:1::6"),
    ],
)
def test_a_sender_of_ipv6(text: str, place: Place, address: str) -> None:
    found, _ = ends(DUAL, text, "worker2", ipv6=True)
    assert (found.place, str(found.address)) == (place, address)


@pytest.mark.parametrize(
    ("text", "options", "name", "to"),
    [
        ("outside", {}, "the outside", "[fd00:77::1]:80"),
        ("[2001:db8::9]:443", {}, "2001:db8::9", "[2001:db8::9]:443"),
        ("2001:db8::9", {"port": 53}, "2001:db8::9", "[2001:db8::9]:53"),
        ("worker2:22", {}, "node worker2", "[fd00:77::21]:22"),
        ("[fd00:77::21]", {}, "node worker2", "[fd00:77::21]:10250"),
        ("worker2:30099", {}, "service hoplab-verify/echo", "[fd00:77::21]:30099"),
        ("worker2:30080", {}, "node worker2", "[fd00:77::21]:30080"),  # a NodePort of IPv4 alone
        (f"pod/{SINGLE6}", {}, f"pod {SINGLE6}", "[fd00:244:0:1::6]:80"),
        ("hoplab-verify/echo", {}, "service hoplab-verify/echo", "[fd00:96::3b83]:80"),
        ("[fd00:96::3b83]:80", {}, "service hoplab-verify/echo", "[fd00:96::3b83]:80"),
        ("service/echo", {"via": "nodeport"}, "service hoplab-verify/echo", "[fd00:77::20]:30099"),
        ("service/echo", {"via": "loadbalancer"}, "service hoplab-verify/echo", "[fd00:77::9]:80"),
        ("fd00:77::9", {}, "service hoplab-verify/echo", "[fd00:77::9]:80"),
        ("app1-service", {"via": "ingress"}, "the ingress controller readable", "[fd00:77::20]:80"),
    ],
)
def test_a_receiver_of_ipv6(text: str, options: dict[str, Any], name: str, to: str) -> None:
    _, found = ends(with_both(balancer=True), "outside", text, ipv6=True, **options)
    assert (found.name, f"[{found.address}]:{found.port}") == (name, to)
    if found.of_service and not found.proxied:
        assert {endpoint.address.version for endpoint in found.endpoints} == {6} and len(found.arrives) == 2


def test_an_address_of_ipv6_is_enough() -> None:
    assert names_ipv6("single", "[fd00::1]:80") and names_ipv6("pod/fd00::1")
    assert not names_ipv6("single", "10.244.0.6", "worker1:80")
    for sender, receiver in (("single", "[fd00:96::3b83]:80"), ("fd00:244:0:1::6", "hoplab-verify/echo")):
        sent_by, to = ends(DUAL, sender, receiver)
        assert (str(sent_by.address), str(to.address)) == ("fd00:244:0:1::6", "fd00:96::3b83")
    _, ping = ends(DUAL, "single", "worker1", protocol="icmp", ipv6=True)
    assert (ping.protocol, ping.port) == ("ipv6-icmp", 0)


@pytest.mark.parametrize(
    ("lab", "words", "options", "message", "remedy"),
    [
        (
            DUAL,
            ("fd00:244:0:1::6", "10.244.0.6:80"),
            {},
            "10.244.0.6:80 is an address of IPv4, and fd00:244:0:1::6 asks for a packet of IPv6",
            "name addresses of one family",
        ),
        (
            DUAL,
            ("single", "10.96.0.10"),
            {"ipv6": True},
            "10.96.0.10 is an address of IPv4, and --ipv6 asks for a packet of IPv6",
            "name addresses of one family",
        ),
        (DUAL, ("worker1", "[fe80::1]:80"), {}, "[fe80::1]:80 is an address of one link", "name a global address"),
        (HEALTHY, ("outside", "fd00::1"), {}, "lab dev has IPv4 alone: it has no packets of IPv6", "lab:ipv6.network"),
        (HEALTHY, ("outside", "single"), {"ipv6": True}, "lab dev has IPv4 alone", "lab:ipv6.network in its spec"),
        (
            DUAL,
            ("outside", "service/single"),
            {"ipv6": True},
            "service hoplab-verify/single has no address of IPv6",
            "these have one: hoplab-verify/echo",
        ),
        (
            DUAL,
            ("outside", "hoplab-verify/echo"),
            {"ipv6": True, "via": "loadbalancer"},
            "service hoplab-verify/echo has no address of a load balancer of IPv6",
            "no service has one",
        ),
        (
            DUAL,
            ("outside", "[fd00:77::20]:x"),
            {},
            "'[fd00:77::20]:x': 'x' is not a port",
            "1 to 65535",
        ),
    ],
)
def test_ends_that_have_no_packet_of_ipv6(
    lab: Snapshot, words: tuple[str, str], options: dict[str, Any], message: str, remedy: str
) -> None:
    with pytest.raises(LabError) as raised:
        ends(lab, *words, **options)
    assert message in raised.value.message and remedy in raised.value.remedy


def test_a_pod_without_an_address_of_ipv6() -> None:
    def change(item: dict[str, Any]) -> None:
        item["status"]["podIPs"] = item["status"]["podIPs"][:1]

    lab = in_api("pods", api_item("single-659bfc6785-xxzgj", change), DUAL)
    for words in (("single", "worker1"), ("worker1", "pod/single-659bfc6785-xxzgj")):
        with pytest.raises(LabError) as raised:
            ends(lab, *words, ipv6=True)
        assert raised.value.message == f"pod {SINGLE6} has no address of IPv6"
        assert "kubectl get pod -n hoplab-verify single-659bfc6785-xxzgj" in raised.value.remedy
