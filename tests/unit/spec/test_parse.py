"""The spec: what is accepted, and the text of each issue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

import hoplab.spec.parse
from hoplab.core.errors import SpecError, SpecIssue
from hoplab.spec.model import CniSpec, Ipv6Spec, LabSpec, NodeSize, pool_of
from hoplab.spec.parse import parse_spec
from tests.support.specs import PARTS, VERSIONS, FakeHost


@pytest.fixture(autouse=True)
def _versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hoplab.spec.parse, "supported_versions", lambda: VERSIONS)


def parse(host: FakeHost | None = None, **config: Any) -> LabSpec:
    return parse_spec("dev", {f"lab:{key}": value for key, value in config.items()}, "Pulumi.dev.yaml", PARTS, host)


def issues(host: FakeHost | None = None, **config: Any) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse(host, **config)
    return [str(issue) for issue in caught.value.issues]


def test_empty_spec_is_the_default_lab() -> None:
    assert parse() == LabSpec("dev")


def test_full_spec() -> None:
    spec = parse(
        nodes={
            "workers": 3,
            "controlPlane": {"vcpus": 4, "memory": "4GiB", "disk": "30GiB"},
            "worker": {"memory": "1536MiB"},
        },
        controlPlane={"placement": "hosted"},
        network="172.20.0.0/24",
        podCIDR="10.10.0.0/16",
        serviceCIDR="10.20.0.0/16",
        cni={"name": "flannel", "backend": "host-gw"},
        proxy={"mode": "nftables"},
        ingress={"controller": "none"},
        loadBalancer={"name": "metallb", "pool": "172.20.0.200 - 172.20.0.209"},
        kubernetes={"version": "1.37.2"},
        libvirt="qemu+unix:///system?socket=/run/x",
        accel="kvm",
        engine="embedded",
        image={"mirror": "http://mirror.example/debian", "components": ["cni_calico", "cni_calico"]},
    )
    assert spec.workers == 3
    assert spec.control_plane_size == NodeSize(4, 4096, 30)
    assert spec.worker_size == NodeSize(None, 1536, None)
    assert spec.control_plane_placement == "hosted"
    assert str(spec.network) == "172.20.0.0/24"
    assert (spec.cni.backend, spec.proxy_mode) == ("host-gw", "nftables")
    assert (spec.load_balancer, str(spec.load_balancer_pool)) == ("metallb", "172.20.0.200-172.20.0.209")
    assert (spec.libvirt, spec.accel, spec.engine) == ("qemu+unix:///system?socket=/run/x", "kvm", "embedded")
    assert spec.image_mirror == "http://mirror.example/debian"
    assert spec.image_components == ("cni_calico",)


def test_the_gateway_api() -> None:
    assert not parse().gateway_api
    for controller in ("auto", "readable"):
        assert parse(ingress={"controller": controller, "gatewayApi": "true"}).gateway_api


def test_a_second_family() -> None:
    assert parse().ipv6 is None
    assert parse(ipv6=False).ipv6 is None
    assert parse(ipv6=True).ipv6 == parse(ipv6="true").ipv6 == parse(ipv6={}).ipv6 == Ipv6Spec()
    asked = parse(ipv6={"network": "fd12:3:4:5::/64"}).ipv6
    assert asked == replace(Ipv6Spec(), network=IPv6Network("fd12:3:4:5::/64"))
    assert parse(ipv6='{"network": "fd12:3:4:5::/64"}').ipv6 == asked


def test_calico_takes_blocks_of_the_pod_range() -> None:
    assert parse(cni={"name": "calico"}).cni == CniSpec("calico", "bgp")
    assert parse(cni={"name": "calico", "backend": "ipip", "blockSize": 28}).cni == CniSpec(
        "calico", "ipip", block_size=28
    )


def test_values_as_pulumi_config_writes_them() -> None:
    """`pulumi config set` quotes numbers, and a program sees sections as JSON text."""
    assert parse(nodes={"workers": "3"}).workers == 3
    assert parse(nodes='{"workers": 3, "worker": {"memory": "4GiB"}}').worker_size == NodeSize(None, 4096, None)
    assert parse(kubernetes={"version": "1.37.2"}, nodes=None) == LabSpec("dev")


def test_a_minor_of_kubernetes_means_its_patch_in_the_table() -> None:
    assert {parse(kubernetes={"version": asked}).kubernetes_version for asked in ("1.36", 1.36, "1.36.3")} == {"1.36.3"}
    assert parse(kubernetes={"version": "1.37"}) == parse()


def test_other_namespaces_are_left_alone() -> None:
    assert parse_spec("dev", {"pulumi:tags": {}, "libvirt:uri": "x"}, "x", PARTS) == LabSpec("dev")


@pytest.mark.parametrize(
    ("config", "issue"),
    [
        ({"nodes": {"workers": 0}}, "nodes.workers: is 0; at least 1"),
        (
            {"family": "Course 1"},
            "family: 'Course 1' is no name for a lab; a letter, then letters, digits and dashes, all lower case",
        ),
        ({"family": "c" * 21}, f"family: '{'c' * 21}' has 21 characters; at most 20"),
        ({"nodes": {"workers": 1001}}, "nodes.workers: is 1001; at most 1000"),
        ({"nodes": {"workers": "two"}}, "nodes.workers: is 'two'; a whole number from 1 to 1000"),
        ({"nodes": {"workers": 2.5}}, "nodes.workers: is '2.5'; a whole number from 1 to 1000"),
        ({"nodes": {"workers": True}}, "nodes.workers: is a yes or no (true); a whole number from 1 to 1000"),
        ({"nodes": {"workers": [2]}}, "nodes.workers: is a list ([2]); a whole number from 1 to 1000"),
        ({"nodes": {"worker": 3}}, "nodes.worker: is a number (3); a mapping with vcpus, memory, disk"),
        ({"nodes": {"wrokers": 3}}, "nodes.wrokers: is not a setting; did you mean nodes.workers?"),
        ({"nodes": {"xyz": 3}}, "nodes.xyz: is not a setting; known here: workers, controlPlane, worker"),
        ({"pod_cidr": "10.1.0.0/16"}, "pod_cidr: is not a setting; did you mean podCIDR?"),
        ({"nodes": "{"}, None),
        ({"nodes": {"worker": {"memory": 2048}}}, "nodes.worker.memory: 2048 has no unit; 2048MiB or 2048GiB"),
        ({"nodes": {"worker": {"memory": "2GB"}}}, None),
        ({"nodes": {"worker": {"memory": "512MiB"}}}, "nodes.worker.memory: is 512MiB; at least 1GiB"),
        ({"nodes": {"worker": {"memory": "much"}}}, "nodes.worker.memory: is 'much'; a size such as 2GiB"),
        ({"nodes": {"worker": {"disk": "1GiB"}}}, "nodes.worker.disk: is 1GiB; at least 8GiB"),
        ({"nodes": {"controlPlane": {"vcpus": 1}}}, "nodes.controlPlane.vcpus: is 1; at least 2"),
        ({"controlPlane": {"placement": "host"}}, None),
        ({"network": "192.168.77.1/24"}, None),
        ({"network": "192.168.77.0"}, None),
        ({"network": "lan"}, "network: 'lan' is not an IPv4 range; an IPv4 range such as 192.168.77.0/24"),
        ({"network": "fd00::/64"}, None),
        ({"ipv6": "yes"}, "ipv6: is 'yes'; true or false"),
        ({"ipv6": {"netwrok": "fd00:1::/64"}}, "ipv6.netwrok: is not a setting; did you mean ipv6.network?"),
        (
            {"ipv6": {"network": "10.0.0.0/24"}},
            "ipv6.network: '10.0.0.0/24' is not an IPv6 range; an IPv6 range such as fd00:77::/64",
        ),
        (
            {"ipv6": {"network": "fd00:1::"}},
            "ipv6.network: fd00:1:: has no prefix length; an IPv6 range such as fd00:77::/64",
        ),
        (
            {"ipv6": {"network": "fd00:1::1/64"}},
            "ipv6.network: fd00:1::1/64 is an address in a range, not a range; fd00:1::/64",
        ),
        (
            {"ipv6": {"network": "2001:db8::/64"}},
            "ipv6.network: 2001:db8::/64 is not of this lab alone; a range of fc00::/7, such as fd00:77::/64",
        ),
        ({"ipv6": {"network": "fd00:1::/60"}}, "ipv6.network: fd00:1::/60 has a prefix length of 60; a /64"),
        (
            {"ipv6": {"podCIDR": "fd00:1::/40"}},
            "ipv6.podCIDR: fd00:1::/40 has a prefix length of 40; a prefix length from 48 to 64",
        ),
        (
            {"ipv6": {"serviceCIDR": "fd00:1::/64"}},
            "ipv6.serviceCIDR: fd00:1::/64 has a prefix length of 64; a prefix length from 108 to 123",
        ),
        (
            {"ipv6": {"podCIDR": "fd00:1::/63"}, "nodes": {"workers": 3}},
            "ipv6.podCIDR: fd00:1::/63 is too small for 4 nodes, each of which gets a /64; a /62 or larger",
        ),
        (
            {"ipv6": {"serviceCIDR": "fd00:77::/112"}},
            "ipv6.serviceCIDR: fd00:77::/112 overlaps network fd00:77::/64; ranges that are apart; left out, they are",
        ),
        ({"network": "127.0.0.0/24"}, None),
        ({"network": "169.254.1.0/24"}, None),
        ({"network": "224.1.1.0/24"}, None),
        ({"network": "10.1.1.0/27", "nodes": {"workers": 12}}, None),
        ({"podCIDR": "10.1.0.0/23", "nodes": {"workers": 2}}, None),
        ({"podCIDR": "10.1.0.0/25"}, None),
        ({"podCIDR": "16.0.0.0/7"}, "podCIDR: 16.0.0.0/7 is too large for Kubernetes; a /8 or smaller"),
        ({"serviceCIDR": "10.1.0.0/28"}, None),
        ({"podCIDR": "10.96.0.0/16"}, None),
        ({"network": "10.244.3.0/24"}, None),
        ({"cni": {"name": "calico", "backend": "host-gw"}}, None),
        ({"cni": {"name": "calico", "blockSize": 31}}, "cni.blockSize: is 31; at most 30"),
        ({"cni": {"blockSize": 26}}, "cni.blockSize: flannel has no blocks; leave it out, or name: calico"),
        (
            {"cni": {"name": "calico", "blockSize": 23}, "podCIDR": "10.1.0.0/22", "nodes": {"workers": 3}},
            "cni.blockSize: 10.1.0.0/22 has no /23 for each of 4 nodes; smaller blocks, a /24 for instance",
        ),
        (
            {"cni": {"backend": "vxln"}},
            "cni.backend: 'vxln' is unknown; did you mean vxlan? one of vxlan, host-gw, wireguard",
        ),
        (
            {"ingress": {"controller": "contour"}},
            "ingress.controller: contour is not available yet; one of auto, none, readable, nginx, ingress-nginx, "
            "traefik, haproxy",
        ),
        (
            {"ingress": {"controller": "nginx", "gatewayApi": True}},
            "ingress.gatewayApi: nginx does not serve the Gateway API; ingress.controller: auto or readable, or false",
        ),
        (
            {"ingress": {"controller": "none", "gatewayApi": "true"}},
            "ingress.gatewayApi: there is no controller to serve it; ingress.controller: auto or readable, or false",
        ),
        (
            {"networkPolicy": "kube-network-policies", "cni": {"name": "calico"}},
            "networkPolicy: kube-network-policies is needless: calico enforces NetworkPolicies itself; "
            "none, or cni.name: flannel",
        ),
        (
            {"networkPolicy": "kube-network-policy"},
            "networkPolicy: 'kube-network-policy' is unknown; did you mean kube-network-policies? "
            "one of none, kube-network-policies",
        ),
        ({"networkPolicy": "kube-network-policies", "cni": {"name": "calicoo"}}, None),
        ({"ingress": {"gatewayApi": "on"}}, "ingress.gatewayApi: is 'on'; true or false"),
        ({"ingress": {"controller": "reedable", "gatewayApi": True}}, None),
        (
            {"loadBalancer": {"name": "metalb"}},
            "loadBalancer.name: 'metalb' is unknown; did you mean metallb? one of none, metallb",
        ),
        ({"loadBalancer": "metallb"}, "loadBalancer: is a text (metallb); a mapping with name, pool"),
        ({"kubernetes": {"version": "v1.37.2"}}, None),
        ({"kubernetes": {"version": 1.35}}, None),
        ({"libvirt": "Private"}, None),
        ({"libvirt": "qemu:///session"}, None),
        ({"accel": "xen"}, "accel: 'xen' is unknown; one of auto, kvm, tcg"),
        ({"engine": "terraform"}, "engine: 'terraform' is unknown; one of auto, pulumi, embedded"),
        (
            {"image": {"components": ["cni-calico"]}},
            "image.components: 'cni-calico' is unknown; did you mean cni_calico? a list of "
            "cni_calico, ingress_nginx, ingress_traefik, ingress_haproxy, ingress_ingress_nginx, gateway_nginx, "
            "cni_cilium, node_tools",
        ),
        (
            {"image": {"components": "cni_calico"}},
            "image.components: is a text (cni_calico); a list of cni_calico, ingress_nginx, ingress_traefik, "
            "ingress_haproxy, ingress_ingress_nginx, gateway_nginx, cni_cilium, node_tools",
        ),
        ({"image": {"mirror": "here"}}, "image.mirror: 'here' is not a URL; the URL of a Debian mirror"),
        ({"nodes": {"secure": "AAAB"}}, "nodes: is encrypted; plain settings: a spec holds no secrets"),
        ({"accel": {"secure": "AAAB"}}, "accel: is encrypted; a plain setting: a spec holds no secrets"),
    ],
)
def test_one_issue(config: dict[str, Any], issue: str | None) -> None:
    """One wrong value gives exactly one line; those without a text here are in the golden file below."""
    found = issues(**config)
    assert len(found) == 1, found
    assert issue is None or found == [issue]


def test_messages(golden: Callable[[str, str], None]) -> None:
    """Everything wrong at once, as it is on the screen."""
    config = {
        "nodes": "x",
        "lab:nodes": {
            "workers": 70,
            "count": 3,
            "controlPlane": {"vcpus": "1", "memory": "1GiB", "cpu": 2},
            "worker": {"memory": "2GB", "disk": 20},
        },
        "lab:controlplane": {"placement": "vm"},
        "lab:controlPlane": {"placement": "host"},
        "lab:network": "192.168.77.1/24",
        "lab:podCIDR": "10.96.0.0/19",
        "lab:serviceCIDR": "10.0.0.0/8",
        "lab:cni": {"name": "flannel", "backend": "udp"},
        "lab:kubernetes": {"version": "v1.37.2"},
        "lab:libvirt": "qemu:///session",
        "hoplab:accel": "kvm",
    }
    with pytest.raises(SpecError) as caught:
        parse_spec("Dev_1", config, "Pulumi.Dev_1.yaml", PARTS, FakeHost())
    golden("spec_mistakes.txt", f"{caught.value.message}\n-> {caught.value.remedy}\n")
    assert caught.value.exit_code == 2


def test_messages_of_ranges(golden: Callable[[str, str], None]) -> None:
    cases: list[dict[str, Any]] = [
        {"network": "10.244.3.0/24"},
        {"podCIDR": "192.168.0.0/16"},
        {"network": "10.1.1.0/27", "nodes": {"workers": 12}},
        {"network": "10.1.1.0/24", "nodes": {"workers": 1000}, "podCIDR": "10.8.0.0/13"},
        {"podCIDR": "10.1.0.0/23"},
        {"podCIDR": "10.1.0.0/25"},
        {"serviceCIDR": "10.1.0.0/28"},
        {"serviceCIDR": "10.0.0.0/8", "podCIDR": "172.16.0.0/16"},
        {"network": "127.0.0.0/24"},
        {"network": "169.254.1.0/24"},
        {"network": "224.1.1.0/24"},
        {"network": "fd00::/64"},
        {"network": "192.168.77.0"},
        {"libvirt": "Private"},
        {"nodes": "{"},
    ]
    golden("spec_ranges.txt", "".join(f"{case}\n  " + "\n  ".join(issues(**case)) + "\n" for case in cases))


def test_messages_of_pools(golden: Callable[[str, str], None]) -> None:
    cases: list[dict[str, Any]] = [
        {"loadBalancer": {"pool": "192.168.77.240/29"}},
        *(
            {"loadBalancer": {"name": "metallb", "pool": pool}}
            for pool in (
                "192.168.77",
                "192.168.77.250-192.168.77.240",
                "192.168.78.240/29",
                "192.168.77.250-192.168.78.1",
                "192.168.77.240/28",
                "192.168.77.0-192.168.77.5",
                "192.168.77.1",
                "192.168.77.10",
                "192.168.77.16/29",
            )
        ),
        {"loadBalancer": {"name": "metallb"}, "network": "10.1.1.0/27", "nodes": {"workers": 11}},
    ]
    golden("spec_pools.txt", "".join(f"{case}\n  " + "\n  ".join(issues(**case)) + "\n" for case in cases))


def test_a_pool_is_not_checked_against_what_is_wrong_itself() -> None:
    metallb = {"name": "metallb", "pool": "10.9.9.9"}
    for wrong in ({"network": "lan"}, {"nodes": {"workers": 0}}, {"network": "10.1.1.0/29"}):
        assert not [issue for issue in issues(loadBalancer=metallb, **wrong) if issue.startswith("loadBalancer")]
    assert len(issues(loadBalancer={**metallb, "name": "x"})) == 1


def test_a_network_just_large_enough_is_accepted() -> None:
    assert parse(network="10.1.1.0/27", nodes={"workers": 11}).workers == 11  # numbers 20 to 30, 31 is broadcast
    balanced = parse(network="10.1.1.0/27", nodes={"workers": 10}, loadBalancer={"name": "metallb"})
    assert str(pool_of(balanced)) == "10.1.1.30"
    assert parse(podCIDR="10.1.0.0/22", nodes={"workers": 3}).workers == 3  # with a control-plane VM four /24
    assert parse(podCIDR="10.1.0.0/23", nodes={"workers": 2}, accel="tcg").workers == 2  # hosted: two nodes


def test_host_memory() -> None:
    assert issues(FakeHost(memory_mib=4000)) == [
        "nodes: 2 workers with 2048 MiB each need 4096 MiB, and this host has 4000 MiB; "
        "fewer workers, or less memory for each"
    ]
    assert issues(FakeHost(memory_mib=5000), nodes={"workers": 1, "worker": {"memory": "2GiB"}}, accel="kvm") == [
        "nodes: a worker with 2048 MiB and a control plane with 3072 MiB need 5120 MiB, and this host has 5000 MiB; "
        "fewer workers, or less memory for each"
    ]
    assert parse(FakeHost(memory_mib=4096)).workers == 2


def test_host_ranges_matter_only_outside_a_private_libvirt() -> None:
    host = FakeHost(networks=(IPv4Network("192.168.0.0/16"), IPv4Network("10.96.0.0/24")))
    assert parse(host, libvirt="private").workers == 2
    assert issues(host, libvirt="system") == [
        "network: 192.168.77.0/24 overlaps 192.168.0.0/16, which this host uses; "
        "a range the host does not use, for instance 10.0.0.0/24",
        "serviceCIDR: 10.96.0.0/12 overlaps 10.96.0.0/24, which this host uses; "
        "a range the host does not use, for instance 10.0.0.0/12",
    ]


def test_a_wrong_field_causes_no_further_issue() -> None:
    """A network that cannot be read is not also said to overlap or to be too small."""
    host = FakeHost(networks=(IPv4Network("192.168.77.0/24"),))
    assert len(issues(host, network="x", libvirt="system", nodes={"workers": "x"}, podCIDR="y")) == 3


def test_name_of_the_greatest_length() -> None:
    assert parse_spec("a" * 20, {}, "x", PARTS).lab == "a" * 20


def test_an_issue_reads_as_a_sentence() -> None:
    error = SpecError("x.yaml", [SpecIssue("a", "is 0", "at least 1")])
    assert str(error) == "x.yaml: 1 mistake\n  a: is 0; at least 1"


DIGITS = "9" * 5000  # more than Python converts


@pytest.mark.parametrize(
    ("config", "issue"),
    [
        (
            {"nodes": {"workers": 10**5000}},
            "nodes.workers: is a number of more than 100 digits; a whole number from 1 to 1000",
        ),
        ({"nodes": [10**5000]}, None),
        ({"nodes": f'{{"workers": {DIGITS}}}'}, None),
        ({"nodes": '{"workers":' + "[" * 100_000}, None),
        ({"protect": 10**5000}, "protect: is a value too long to print; true or false"),
        ({"ipv6": 10**5000}, "ipv6: is a value too long to print; true or false"),
        ({"image": {"components": [10**5000]}}, None),
    ],
)
def test_a_value_that_python_cannot_print_is_an_issue(config: dict[str, Any], issue: str | None) -> None:
    found = issues(**config)
    assert len(found) == 1, found
    assert issue is None or found == [issue]
