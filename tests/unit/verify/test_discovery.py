"""What is found out of a cluster that hoplab did not make: over recordings of labs, whose settings are known."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from hoplab.expectations import cni
from hoplab.expectations.registry import UnknownPart
from hoplab.observe.script import Output
from hoplab.observe.setting import Setting
from hoplab.observe.snapshot import Snapshot
from hoplab.verify.discovery import DiscoveryError, Given, discover
from hoplab.verify.documents import Documents
from tests.support import foreign_clusters
from tests.support.edits import in_api, on_node
from tests.support.foreign_clusters import HEALTHY, config_map, documents_of, listed, unknown
from tests.support.recordings import recording

FLANNEL, CALICO = recording("flannel-vxlan"), recording("calico-vxlan")


def differences(found: Setting, has: Setting) -> dict[str, tuple[object, object]]:
    both = {field.name: (getattr(found, field.name), getattr(has, field.name)) for field in fields(Setting)}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


def found_of(lab: Snapshot, **documents: Output) -> Setting:
    return discover(unknown(lab), Documents({**documents_of(lab), **documents})).setting


@pytest.mark.parametrize("name", HEALTHY)
def test_the_setting_is_the_one_that_the_lab_has(name: str) -> None:
    lab = recording(name)
    assert differences(found_of(lab), lab.setting) == {"foreign": (True, False)}


# Not in the facts of hosts and objects, but in documents only: ranges that are larger than what is used of them.
ONLY_WRITTEN = {"foreign", "pod_cidr", "pool", "ipv6", "nodes6"}


@pytest.mark.parametrize("name", HEALTHY)
def test_without_documents_the_hosts_say_the_rest(name: str) -> None:
    lab = recording(name)
    found = discover(unknown(lab), Documents({}), Given(service_cidr=lab.setting.service_cidr)).setting
    assert differences(found, lab.setting).keys() <= ONLY_WRITTEN
    assert found.pod_cidr.subnet_of(lab.setting.pod_cidr)
    assert all(node.pod_cidr.subnet_of(found.pod_cidr) for node in lab.nodes)


def test_ranges_may_be_given() -> None:
    given = Given(IPv4Network("10.0.0.0/8"), IPv4Network("172.30.0.0/16"))
    found = discover(unknown(FLANNEL), Documents({}), given)
    assert (found.setting.pod_cidr, found.setting.service_cidr) == (given.pod_cidr, given.service_cidr)
    assert "10.0.0.0/8 (from --pod-cidr)" in found.text and "172.30.0.0/16 (from --service-cidr)" in found.text


def test_everything_that_was_found_is_shown_with_its_source() -> None:
    found = discover(unknown(FLANNEL), Documents(documents_of(FLANNEL)))
    assert found.text.splitlines() == [
        "cluster dev, which hoplab did not make",
        "  kubernetes      v1.37.2 (from the kubelets)",
        "  node worker1    192.168.77.20 on eth0",
        "  node worker2    192.168.77.21 on eth0",
        "  nodes' network  192.168.77.0/24 (from the addresses of eth0 on the nodes)",
        "  gateway         192.168.77.1 (from the default route of worker1)",
        "  pods            10.244.0.0/16 (from podSubnet in kubeadm-config)",
        "  services        10.96.0.0/12 (from serviceSubnet in kubeadm-config)",
        "  CNI             flannel vxlan (from /etc/cni/net.d of the nodes; the ConfigMap of flannel)",
        "  kube-proxy      iptables (from the ConfigMap of kube-proxy)",
        "  ingress         readable (from the pod ingress-readable/ingress-4fpt6)",
        "  load balancer   metallb (from the pod metallb-system/metallb-controller-c87c4db59-42s77)",
        "  DNS             10.96.0.10 (from the service kube-system/kube-dns)",
    ]


def test_kube_proxys_own_default_is_what_it_runs_in() -> None:
    lab = recording("flannel-vxlan-nftables")
    assert found_of(lab, kube_proxy=proxy_conf("clusterCIDR: 10.244.0.0/16")).proxy_mode == "nftables"
    text = discover(unknown(lab), Documents({**documents_of(lab), "kube_proxy": proxy_conf("mode: iptables")})).text
    assert "iptables with no clusterCIDR (from the ConfigMap of kube-proxy; the nodes have rules of nftables)" in text


def test_names_and_the_nodes_network_may_be_others() -> None:
    lab = foreign_clusters.renamed(FLANNEL)
    found = found_of(lab)
    assert found.nodes == {"alpha.example": IPv4Address("10.9.8.20"), "beta.example": IPv4Address("10.9.8.21")}
    assert (found.network, found.gateway) == (IPv4Network("10.9.8.0/24"), IPv4Address("10.9.8.1"))
    assert found.uplinks == {"alpha.example": "ens3", "beta.example": "ens3"}


def net_conf(**conf: object) -> Output:
    return config_map(**{"net-conf.json": json.dumps(conf)})


def proxy_conf(text: str) -> Output:
    return config_map(**{"config.conf": text})


def pool(**spec: object) -> dict[str, object]:
    return {"metadata": {"name": "mine"}, "spec": {"cidr": "10.244.0.0/16", **spec}}


@pytest.mark.parametrize(
    ("document", "field", "value"),
    [
        ({"flannel": net_conf(Backend={"Type": "udp"})}, "backend", "udp"),
        (
            {"flannel": net_conf(Backend={"Type": "vxlan", "VNI": 4096, "Port": 4789})},
            "backend",
            "vxlan with VNI 4096 with Port 4789",
        ),
        (
            {"flannel": net_conf(Backend={"Type": "vxlan", "DirectRouting": True})},
            "backend",
            "vxlan with DirectRouting",
        ),
        ({"kube_proxy": proxy_conf("mode: ''\nclusterCIDR: 10.244.0.0/16")}, "proxy_mode", "iptables"),
        ({"kube_proxy": proxy_conf("mode: ipvs\nclusterCIDR: 10.244.0.0/16")}, "proxy_mode", "ipvs"),
        ({"kube_proxy": proxy_conf("mode: iptables")}, "proxy_mode", "iptables with no clusterCIDR"),
        (
            {"kube_proxy": proxy_conf("detectLocalMode: NodeCIDR")},
            "proxy_mode",
            "iptables with detectLocalMode NodeCIDR",
        ),
        (
            {
                "kube_proxy": proxy_conf(
                    "clusterCIDR: 10.244.0.0/16\niptables: {masqueradeAll: true, masqueradeBit: 10}"
                )
            },
            "proxy_mode",
            "iptables with masqueradeAll with masqueradeBit 10",
        ),
        ({"kube_proxy": proxy_conf("{ not yaml")}, "proxy_mode", "iptables"),
    ],
)
def test_modes_that_hoplab_does_not_know_are_named(document: dict[str, Output], field: str, value: str) -> None:
    assert getattr(found_of(FLANNEL, **document), field) == value


@pytest.mark.parametrize(
    ("documents", "backend"),
    [
        ({"ip_pools": listed(pool(vxlanMode="CrossSubnet"))}, "ipipMode Never and vxlanMode CrossSubnet"),
        ({"felix": listed({"spec": {"bpfEnabled": True}})}, "eBPF"),
        ({"ip_pools": listed(pool(ipipMode="Always"), pool(cidr="10.0.0.0/8", disabled=True))}, "ipip"),
    ],
)
def test_modes_of_calico(documents: dict[str, Output], backend: str) -> None:
    assert found_of(CALICO, **documents).backend == backend


def test_the_pool_of_calico_comes_before_kubeadms_range() -> None:
    found = found_of(CALICO, ip_pools=listed(pool(cidr="192.168.0.0/16", blockSize=27, vxlanMode="Always")))
    assert (found.pod_cidr, found.block_size, found.backend) == (IPv4Network("192.168.0.0/16"), 27, "vxlan")


def with_plugin(plugin: str) -> Snapshot:
    """A lab whose nodes call one plugin for a pod, or "" for none."""
    text = f'==> /etc/cni/net.d/05-it.conflist <==\n{{"name": "it", "plugins": [{{"type": "{plugin}"}}]}}\n'
    seen, file = FLANNEL, text if plugin else ""
    for node in ("worker1", "worker2"):
        seen = on_node("cni_config", lambda _: file, seen, node)
    return seen


def test_an_unknown_cni_and_none_have_names() -> None:
    found = found_of(with_plugin("antrea-cni"))
    assert (found.cni, found.backend) == ("antrea", "")
    assert found_of(with_plugin("")).cni == "unknown"


def test_a_cilium_of_others_is_in_no_mode_that_is_known() -> None:
    found = found_of(with_plugin("cilium-cni"))
    assert (found.cni, found.backend) == ("cilium", "unknown")
    with pytest.raises(UnknownPart, match=r"needs cilium as hoplab knows it \(vxlan, native\), not unknown"):
        cni.expectations(replace(FLANNEL, setting=replace(found, foreign=True)))


def test_another_dns_address_is_written_down() -> None:
    seen = in_api("services", lambda text: text.replace('"10.96.0.10"', '"10.96.0.53"'), FLANNEL)
    assert found_of(seen).dns == found_of(seen).dns_ip == IPv4Address("10.96.0.53")


def test_services_by_the_objects_of_the_api() -> None:
    items = (
        {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.112.0.0/16"]}},
        {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12"]}},
    )
    found = discover(unknown(FLANNEL), Documents({"service_cidrs": listed(*items)}))
    assert found.setting.service_cidr == IPv4Network("10.96.0.0/12") and "the ServiceCIDR objects" in found.text


def test_nodes_in_several_subnets() -> None:
    seen = on_node(
        "addresses",
        lambda text: text.replace('"local":"192.168.77.20","prefixlen":24', '"local":"192.168.77.20","prefixlen":27'),
        FLANNEL,
        "worker1",
    )
    assert found_of(seen).network == IPv4Network("192.168.77.0/24")


# What cannot be found out, and what is not a cluster that lessons can be checked on


def no_range(lab: Snapshot) -> Snapshot:
    def edit(text: str) -> str:
        document = json.loads(text)
        for item in document["items"]:
            item["spec"] = {}
        return json.dumps(document)

    return in_api("nodes", edit, lab)


def fails(lab: Snapshot, documents: dict[str, Output], given: Given | None = None) -> DiscoveryError:
    with pytest.raises(DiscoveryError) as caught:
        discover(unknown(lab), Documents(documents), given)
    assert caught.value.remedy
    return caught.value


def test_services_that_nothing_tells() -> None:
    error = fails(FLANNEL, {"kubeadm": Output(403, "", "forbidden"), "service_cidrs": Output(404, "", "")})
    assert "range of the services can't be found out" in error.message and "--service-cidr" in error.remedy
    assert error.message.endswith("the API server refuses /api/v1/namespaces/kube-system/configmaps/kubeadm-config")


def test_pods_that_nothing_tells() -> None:
    error = fails(no_range(FLANNEL), {}, Given(service_cidr=IPv4Network("10.96.0.0/12")))
    assert "range of the pods can't be found out" in error.message and "--pod-cidr" in error.remedy


def test_several_pools_of_calico() -> None:
    error = fails(CALICO, {"ip_pools": listed(pool(), pool(cidr="10.7.0.0/16"))})
    assert "Calico has several pools: 10.244.0.0/16, 10.7.0.0/16" in error.message and "--pod-cidr" in error.remedy


def test_a_host_that_is_not_the_node() -> None:
    seen = on_node("addresses", lambda text: text.replace("192.168.77.20", "192.168.77.99"), FLANNEL, "worker1")
    error = fails(seen, documents_of(FLANNEL))
    assert "the host that was taken for node worker1 does not have its address 192.168.77.20; it has 192.168.77.99" in (
        error.message
    )
    assert "of another cluster" in error.remedy


def test_a_node_without_ipv4() -> None:
    seen = in_api("nodes", lambda text: text.replace('"192.168.77.20"', '"fd00:77::20"'), FLANNEL)
    error = fails(seen, documents_of(FLANNEL))
    assert error.message == "node worker1 has no InternalIP of IPv4, which lessons need"


def test_another_container_runtime() -> None:
    seen = in_api("nodes", lambda text: text.replace("containerd://2.4.2", "cri-o://1.37"), FLANNEL)
    assert "node worker1 runs pods by cri-o://1.37" in fails(seen, documents_of(FLANNEL)).message


def test_without_a_default_route_an_address_of_nobody_stands_for_the_outside() -> None:
    def edit(text: str) -> str:
        return json.dumps([route for route in json.loads(text) if route["dst"] != "default"])

    seen = FLANNEL
    for node in ("worker1", "worker2"):
        seen = on_node("routes", edit, seen, node)
    assert found_of(seen).gateway == IPv4Address("192.0.2.1")


def test_ipv6_is_left_out_where_a_range_is_not_found() -> None:
    lab = recording("flannel-vxlan-dual")
    documents = {**documents_of(lab), "kubeadm": documents_of(FLANNEL)["kubeadm"]}
    found = discover(unknown(lab), Documents(documents))
    assert found.setting.ipv6 is None and found.setting.nodes6 == {}
    assert "IPv6            left out" in found.text
    assert replace(found.setting, foreign=False) != lab.setting
