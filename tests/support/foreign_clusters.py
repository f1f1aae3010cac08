"""Recordings of labs seen as clusters that hoplab did not make: without their setting, workload or the usual names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from hoplab.core.errors import LabError
from hoplab.expectations.proxy import iptables as iptables_mode
from hoplab.observe.facts import Facts
from hoplab.observe.facts.api_nodes import API_NODES
from hoplab.observe.facts.api_pods import API_PODS
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import requirements, workload
from hoplab.verify.claims import Claim, ClaimFailed
from hoplab.verify.discovery import Given, discover, provisional
from hoplab.verify.documents import PATHS, Documents
from tests.support.lesson_functions import lessons, read_only

HEALTHY = (
    "calico-bgp",
    "calico-bgp-dual",
    "calico-ipip",
    "calico-vxlan",
    "flannel-host-gw",
    "flannel-nft-vxlan-nftables",
    "flannel-vxlan",
    "flannel-vxlan-dual",
    "flannel-vxlan-nftables",
    "flannel-wireguard",
)
IPIP_VXLAN = {"bgp": ("Never", "Never"), "ipip": ("Always", "Never"), "vxlan": ("Never", "Always")}
UPLINK = "ens3"


def config_map(**data: str) -> Output:
    return Output(0, json.dumps({"kind": "ConfigMap", "data": data}))


def listed(*items: Mapping[str, Any]) -> Output:
    return Output(0, json.dumps({"items": list(items)}))


def documents_of(lab: Snapshot) -> dict[str, Output]:
    """What kubeadm and the manifests of such a cluster leave in the API, from the lab's own setting."""
    has, ipv6 = lab.setting, lab.setting.ipv6
    pods = f"{has.pod_cidr},{ipv6.pod_cidr}" if ipv6 else str(has.pod_cidr)
    services = f"{has.service_cidr},{ipv6.service_cidr}" if ipv6 else str(has.service_cidr)
    networking = f"networking:\n  dnsDomain: cluster.local\n  podSubnet: {pods}\n  serviceSubnet: {services}\n"
    found = {name: Output(404, "", "not found") for name in PATHS}
    found["kubeadm"] = config_map(ClusterConfiguration=f"clusterName: kubernetes\n{networking}")
    found["kube_proxy"] = config_map(
        **{"config.conf": f"clusterCIDR: {pods}\nmode: {has.proxy_mode}\niptables:\n  masqueradeBit: null\n"}
    )
    if has.cni == "flannel":
        net = {
            "Network": str(has.pod_cidr),
            "EnableNFTables": has.cni_nftables,
            "Backend": {"Type": has.backend},
            **({"EnableIPv6": True, "IPv6Network": str(ipv6.pod_cidr)} if ipv6 else {}),
        }
        found["flannel"] = config_map(**{"net-conf.json": json.dumps(net)})
    else:
        ipip, vxlan = IPIP_VXLAN[has.backend]
        spec = {"ipipMode": ipip, "vxlanMode": vxlan, "blockSize": has.block_size}
        pools = [{"metadata": {"name": "default-ipv4-ippool"}, "spec": {"cidr": str(has.pod_cidr), **spec}}]
        pools += [{"metadata": {"name": "v6"}, "spec": {"cidr": str(ipv6.pod_cidr), "blockSize": 122}}] if ipv6 else []
        found["ip_pools"] = listed(*pools)
    if has.pool:
        found["metallb_pools"] = listed({"spec": {"addresses": [str(has.pool)]}})
    return found


def unknown(lab: Snapshot) -> Snapshot:
    """The cluster of a lab before anything was found out of it."""
    return replace(lab, setting=provisional(lab.setting.lab, lab.api[API_NODES]))


def as_foreign(lab: Snapshot, given: Given | None = None) -> Snapshot:
    """The cluster of a lab with what was found out of it as its setting."""
    seen = unknown(lab)
    return replace(seen, setting=discover(seen, Documents(documents_of(lab)), given).setting)


def edited(lab: Snapshot, edit: Callable[[str, str], str]) -> Snapshot:
    """The lab with the output of every command edited: ``edit("node routes", text)``; "names" is for those of nodes."""

    def facts(found: Facts, kind: str) -> Facts:
        return Facts(
            edit("names", found.place),
            {name: replace(output, out=edit(f"{kind} {name}", output.out)) for name, output in found.outputs.items()},
        )

    setting = replace(lab.setting, nodes={edit("names", name): address for name, address in lab.setting.nodes.items()})
    return replace(
        lab,
        setting=setting,
        node_facts={edit("names", name): facts(found, "node") for name, found in lab.node_facts.items()},
        netns_facts={
            edit("names", node): {netns: facts(found, "pod") for netns, found in pods.items()}
            for node, pods in lab.netns_facts.items()
        },
        api=facts(lab.api, "api"),
    )


def without_workload(lab: Snapshot) -> Snapshot:
    """The lab as its API is without the verification workload, and as IPAM is, which has freed its addresses."""

    own = {str(pod.address) for pod in lab.api[API_PODS] if pod.namespace == workload.NAMESPACE and pod.address}
    ends = {pod.host_end.name for pod in lab.pods if pod.api.namespace == workload.NAMESPACE and pod.host_end}

    def edit(place: str, text: str) -> str:
        if place == "node links":
            return json.dumps([link for link in json.loads(text) if link.get("ifname") not in ends])
        if place == "node ipam":
            lines = text.splitlines(keepends=True)
            return "".join(line for line in lines if line.partition(":")[0].rpartition("/")[2] not in own)
        if not place.startswith("api") or not text.startswith("{"):
            return text
        document = json.loads(text)
        if place == "api ipam_blocks":
            for block in document["items"]:
                _free(block["spec"])
        document["items"] = [
            item for item in document["items"] if item.get("metadata", {}).get("namespace") != workload.NAMESPACE
        ]
        return json.dumps(document)

    gone = {pod.netns for pod in lab.pods if pod.api.namespace == workload.NAMESPACE}
    seen = edited(lab, edit)
    pods = {
        node: {netns: facts for netns, facts in found.items() if netns not in gone}
        for node, found in seen.netns_facts.items()
    }
    return replace(seen, netns_facts=pods)


def _free(block: dict[str, Any]) -> None:
    """Free the addresses that a block keeps for pods of the workload."""
    owners = [attribute.get("secondary", {}).get("namespace") for attribute in block.get("attributes", ())]
    block["allocations"] = [
        None if number is not None and owners[number] == workload.NAMESPACE else number
        for number in block.get("allocations", ())
    ]


def _api_chain(address: str) -> str:
    """kube-proxy's chain for the API server's endpoint, whose name is a hash of the address."""
    return iptables_mode.endpoint_chain("default/kubernetes:https", "tcp", f"{address}:6443")


def renamed(lab: Snapshot) -> Snapshot:
    """The lab with other names of nodes, another network of theirs, and another interface in it."""
    words = {
        "worker1": "alpha.example",
        "worker2": "beta.example",
        "192.168.77.": "10.9.8.",
        "4DA8C0": "08090A",  # the same in /proc/net/route
        **{_api_chain("192.168.77.1"): _api_chain("10.9.8.1")},
    }

    def edit(place: str, text: str) -> str:
        for before, after in words.items():
            text = text.replace(before, after)
        if place.startswith("node") and place != "node ipam":  # a pod's own interface keeps its name
            text = text.replace("eth0", UPLINK)
        return text

    return edited(lab, edit)


def outcomes(lab: Snapshot) -> dict[str, str]:
    """How each read-only lesson ends on a cluster, as the plugin has it: "", "skipped: ..." or "failed: ..."."""
    found = {}
    for name in read_only():
        lesson = lessons()[name]
        if reason := next(filter(None, (requirements.skip_reason(lab, **needs) for needs in lesson.needs)), ""):
            found[name] = f"skipped: {reason}"
            continue
        given = {"lab": lab, "claim": Claim()}
        try:
            lesson.function(**{key: given[key] for key in lesson.takes})
            found[name] = ""
        except pytest.skip.Exception as error:
            found[name] = f"skipped: {error}"
        except ClaimFailed as error:
            found[name] = f"failed: {error.why}"
        except LabError as error:
            reason = requirements.unknown_reason(error, lab)
            found[name] = f"skipped: {reason}" if reason else f"failed: {error.message}"
    return found
