"""The commands beside a failure, and the names in its sentence that they are filled in with."""

from __future__ import annotations

import re
import string
from dataclasses import replace

import pytest

from hoplab.observe.facts import Facts
from hoplab.verify.places import Named, Places
from hoplab.verify.remedies import Remedy, commands
from tests.support.edits import FIRST, HEALTHY, POD
from tests.support.lesson_functions import lessons

PLACES = Places.of(HEALTHY)
NAMES = {"node", "namespace", "pod", "netns", "service", "service_rules"}
DOWN = Remedy(
    "ssh {node} ip link show {dev}", "ssh {node} sudo ip link set {dev} up", "(?P<dev>[^ ]+) of [^ ]+ is down"
)
LINKS = Remedy("ssh {node} ip -d link")


def of(why: str, *remedies: Remedy, places: Places = PLACES) -> tuple[str, str]:
    return commands(remedies, why, places.named(why), places)


def test_names_of_a_sentence() -> None:
    assert PLACES.named(f"on {FIRST.name} the eth0 of {POD}, at 10.96.0.10, is down.") == Named(
        (FIRST.name,), (str(POD),), ("kube-system/kube-dns",)
    )
    assert PLACES.named(f"{POD} has no eth0") == Named((FIRST.name,), (str(POD),))
    assert PLACES.named("kube-system/kube-dns:dns (10.96.0.10:53/udp) leads to nothing").services == (
        "kube-system/kube-dns",
    )
    assert PLACES.named("nothing is known") == Named()


def test_a_lab_whose_api_does_not_answer_has_names_of_nodes() -> None:
    silent = Places.of(replace(HEALTHY, api=Facts("api", {})))
    assert silent.nodes == PLACES.nodes and not silent.pods and not silent.services


def test_a_command_is_filled_in_with_what_the_failure_names() -> None:
    assert of(f"flannel.1 of {FIRST.name} is down", LINKS, DOWN) == (
        f"./lab ssh {FIRST.name} ip link show flannel.1",
        f"./lab ssh {FIRST.name} sudo ip link set flannel.1 up",
    )
    assert of(f"{FIRST.name} has no interface cni0", LINKS, DOWN) == (f"./lab ssh {FIRST.name} ip -d link", "")
    netns = PLACES.netns[str(POD)]
    assert of(f"{POD} has no route", Remedy("ssh {node} sudo ip -n {netns} route"))[0] == (
        f"./lab ssh {FIRST.name} sudo ip -n {netns} route"
    )
    of_pod = Remedy("kubectl describe pod -n {namespace} {pod}")
    assert of(f"{POD} is lost", of_pod)[0] == f"./lab kubectl describe pod -n {POD.api.namespace} {POD.api.name}"
    of_service = Remedy("kubectl describe service -n {namespace} {service}")
    assert of("10.96.0.10 is lost", of_service)[0] == "./lab kubectl describe service -n kube-system kube-dns"


def test_a_command_that_lacks_a_name_is_left_out() -> None:
    assert of("all is lost", LINKS) == ("", "")
    assert of("all is lost", LINKS, Remedy("kubectl get nodes", "ssh {node} true")) == ("./lab kubectl get nodes", "")


def test_a_remedy_is_for_its_cni_and_a_command_for_its_lab_and_mode() -> None:
    flannel = Remedy("kubectl get pods", cni="flannel")
    assert of("x", flannel)[0] and of("x", flannel, places=replace(PLACES, cni="calico")) == ("", "")
    blue = replace(PLACES, lab="blue", proxy_mode="nftables")
    assert of(f"{FIRST.name} x", LINKS, places=blue)[0] == f"./lab ssh --lab blue {FIRST.name} ip -d link"
    rules = Remedy("ssh {node} sudo {service_rules}")
    assert of(f"{FIRST.name} x", rules)[0].endswith(f"{FIRST.name} sudo iptables-save")
    assert of(f"{FIRST.name} x", rules, places=blue)[0].endswith("sudo nft list table ip kube-proxy")


def test_of_a_cluster_that_hoplab_did_not_make_the_commands_are_the_users_own() -> None:
    there = replace(PLACES, lab="prod", foreign=True)
    assert of(f"flannel.1 of {FIRST.name} is down", DOWN, places=there) == (
        f"ssh {FIRST.name} ip link show flannel.1",
        f"ssh {FIRST.name} sudo ip link set flannel.1 up",
    )
    assert of("x", Remedy("kubectl get nodes", "converge --force"), places=there) == ("kubectl get nodes", "")
    foreign = replace(HEALTHY, setting=replace(HEALTHY.setting, foreign=True))
    assert Places.of(foreign).foreign and not PLACES.foreign


@pytest.mark.parametrize(
    ("lesson", "why", "shows", "mends"),
    [
        ("nodes_forward", "net.ipv4.ip_forward is 0 on worker1", "sysctl net.ipv4.ip_forward", "sysctl -w net.ipv4"),
        (
            "a_nodes_gateway_is_the_labs",
            "worker1 has the default route None, not via 192.168.77.1 dev eth0",
            "ip route show default",
            "ip route replace default via 192.168.77.1 dev eth0",
        ),
        ("encapsulation_leaves_room_in_the_mtu", "cni0 on worker1 has the MTU 1400, not 1450", "cni0", "cni0 mtu 1450"),
        ("encapsulation_leaves_room_in_the_mtu", f"eth0 of {POD} on worker1 has the MTU 1400, not 1450", "-d link", ""),
        (
            "the_host_end_is_a_port_of_the_bridge",
            "veth1, the end of x on worker1, is a port of no bridge, not of cni0",
            "ip -d link show veth1",
            "ip link set veth1 master cni0",
        ),
        (
            "the_host_end_is_a_port_of_the_bridge",
            "veth1, the end of x on worker1, has no hairpin mode",
            "bridge -d link show dev veth1",
            "bridge link set dev veth1 hairpin on",
        ),
        (
            "nothing_on_the_way_drops_it_on_one_node",
            "`-j DROP` in iptables-legacy filter, chain FORWARD, of worker1 drops tcp",
            "sudo iptables-legacy -t filter -L FORWARD -nv",
            "",
        ),
        (
            "nothing_on_the_way_drops_it_on_one_node",
            "`reject` in nftables inet firewalld, chain filter_FORWARD, of worker1 drops tcp",
            "sudo nft -a list chain inet firewalld filter_FORWARD",
            "",
        ),
    ],
)
def test_remedies_of_lessons(lesson: str, why: str, shows: str, mends: str) -> None:
    found = of(why, *lessons()[lesson].basis.remedies)
    assert shows in found[0] and mends in found[1] and bool(mends) == bool(found[1])


def test_every_lesson_has_a_remedy_and_each_can_be_filled_in() -> None:
    for name, lesson in lessons().items():
        assert lesson.basis.remedies, name
        for remedy in lesson.basis.remedies:
            fields = {
                field for text in (remedy.shows, remedy.mends) for _, field, _, _ in string.Formatter().parse(text)
            }
            assert fields - {None} <= {*NAMES, *re.compile(remedy.says).groupindex}, (name, remedy)
            assert remedy.shows.split()[0] in ("ssh", "kubectl"), name
            assert remedy.mends.split()[:1] in ([], ["ssh"], ["kubectl"]), name
