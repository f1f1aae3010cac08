"""What parsed facts say of themselves: their words in a report, and what follows from their fields."""

from __future__ import annotations

import base64
import json
from ipaddress import IPv4Address
from typing import Any

import pytest

from hoplab.core.errors import FactError, UnavailableError
from hoplab.observe.facts import Fact, Facts
from hoplab.observe.facts._json import as_read, document
from hoplab.observe.facts.api_ingresses import ApiIngress
from hoplab.observe.facts.api_pod_states import Container, PodState
from hoplab.observe.facts.api_tls_secrets import REFUSED, TlsSecret, reduce
from hoplab.observe.facts.clock import Clock
from hoplab.observe.facts.disks import Disk, Usage
from hoplab.observe.facts.fdb import FdbEntry
from hoplab.observe.facts.nft_expressions import text
from hoplab.observe.facts.units import Unit
from hoplab.observe.facts.wireguard import Peer
from hoplab.observe.facts.wireguard import parse as parse_wireguard
from hoplab.observe.script import Output

FACT = Fact("names", "hostname", str.split)


def test_a_fact_that_was_not_looked_at() -> None:
    with pytest.raises(UnavailableError, match="worker1 does not answer"):
        Facts("worker1", {}, unavailable="worker1 does not answer")[FACT]
    with pytest.raises(FactError, match="names was not looked at on worker1") as caught:
        Facts("worker1", {})[FACT]
    assert caught.value.remedy == "record the lab again"


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(FactError, match="`worker1` lacks a command: sh: hostname: not found") as caught:
        Facts("worker1 cni-1", {"names": Output(127, "", "sh: hostname: not found\n")})[FACT]
    assert caught.value.remedy == "install it on worker1"


def test_a_document_is_reduced_to_what_is_read() -> None:
    whole = '{"items": [{"name": "a", "env": "secret"}], "kind": "List", "labels": {"app": "echo"}}'

    def parse(given: str) -> Any:
        found = document(given, "pods")
        return "kind" in found, [item.get("name") for item in found.get("items")], dict(found.get("labels").items())

    assert as_read(parse, whole) == '{"items":[{"name":"a"}],"kind":"List","labels":{"app":"echo"}}'
    assert parse(as_read(parse, whole)) == parse(whole)


def test_a_document_that_can_not_be_read_is_cut() -> None:
    malformed = "no JSON " * 20
    assert as_read(lambda given: document(given, "pods"), malformed) == malformed[:60]


@pytest.mark.parametrize(
    ("kept", "certificates"),
    [("no base64!", []), (base64.b64encode(b"\xff\xfe").decode(), []), (None, []), (7, [])],
)
def test_a_secret_without_a_certificate(kept: object, certificates: list[str]) -> None:
    item = {"metadata": {"namespace": "shop", "name": "tls"}, "type": "Opaque", "data": {"tls.crt": kept}}
    (found,) = json.loads(reduce(json.dumps({"items": [item]})))["items"]
    assert found["certificates"] == certificates


def test_secrets_that_can_not_be_read_are_refused_as_a_whole() -> None:
    assert reduce("no JSON, and perhaps a key") == REFUSED


def test_clock() -> None:
    clock = Clock(100.0, 161.0, 102.0)
    assert (clock.least, clock.most) == (59.0, 61.0)


@pytest.mark.parametrize(
    ("space", "inodes", "full"),
    [((50, 50), (1, 9), False), ((995, 5), (1, 9), True), ((1, 9), (100, 0), True), ((0, 0), (0, 0), False)],
)
def test_a_disk_is_full_of_blocks_or_inodes(space: tuple[int, int], inodes: tuple[int, int], full: bool) -> None:
    assert Disk("/dev/vda1", "/", Usage(*space), Usage(*inodes)).full is full


def test_a_unit_without_a_health_check_answers() -> None:
    assert Unit("containerd", "active", "", ()).answers
    assert not Unit("kubelet", "active", "7 refused", ()).answers
    assert [Unit("kubelet", state, "ok", ()).runs for state in ("active", "failed")] == [True, False]


@pytest.mark.parametrize(
    ("ready", "waiting", "restarts", "ended", "crashes"),
    [
        (True, "", 3, "Error", False),
        (False, "CrashLoopBackOff", 0, "", True),
        (False, "", 2, "Error", True),
        (False, "ContainerCreating", 0, "", False),
    ],
)
def test_a_container_crashes(ready: bool, waiting: str, restarts: int, ended: str, crashes: bool) -> None:
    assert Container("dns", ready, restarts, waiting, ended, 1, "").crashes is crashes


@pytest.mark.parametrize(
    ("host_network", "policy", "asks"),
    [
        (False, "ClusterFirst", True),
        (True, "ClusterFirst", False),
        (True, "ClusterFirstWithHostNet", True),
        (False, "Default", False),
    ],
)
def test_a_pod_asks_the_clusters_dns(host_network: bool, policy: str, asks: bool) -> None:
    pod = PodState("shop", "web", "worker1", "web", host_network, policy, (), ())
    assert pod.asks_cluster_dns is asks
    assert str(pod) == "shop/web"


def test_words() -> None:
    ingress = ApiIngress("shop", "apps", (), (), (IPv4Address("192.0.2.1"),))
    assert str(ingress) == str(TlsSecret("shop", "apps", "Opaque", ())) == "shop/apps"
    peer = Peer("flannel-wg", "abcdefghijkl", "", ())
    assert str(peer) == "peer abcdefgh... of flannel-wg, endpoint none, allowed ips none"
    assert text(True) == "exists" and text(False) == "missing"


@pytest.mark.parametrize(
    ("mac", "group"),
    [
        ("00:00:00:00:00:00", True),
        ("01:00:5e:00:00:01", True),
        ("33:33:00:00:00:01", True),
        ("52:54:00:a2:2c:6c", False),
    ],
)
def test_group_addresses(mac: str, group: bool) -> None:
    assert FdbEntry(mac, "cni0", "", "", "permanent").is_group is group


@pytest.mark.parametrize("malformed", ["flannel-wg\tkey", "flannel-wg\tkey\t10.0.0.0/99"])
def test_malformed_peers(malformed: str) -> None:
    with pytest.raises(FactError, match=r"is not an interface, a key and a value|are no ranges"):
        parse_wireguard(f"{malformed}\n\n")
