"""The CNI of a cluster that hoplab did not make, and how it sends packets between nodes; pure."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress

from hoplab.core.errors import FactError
from hoplab.expectations import cni as cnis
from hoplab.expectations.cni import calico, cilium, flannel
from hoplab.expectations.registry import modules
from hoplab.observe.facts.api_ipam_blocks import API_IPAM_BLOCKS
from hoplab.observe.facts.cni_config import CNI_CONFIG, called
from hoplab.observe.facts.links import LINKS
from hoplab.observe.facts.nftables import NFTABLES
from hoplab.observe.snapshot import Snapshot
from hoplab.verify.documents import Documents, Found

UNKNOWN = "unknown"
BACKEND_TYPE = "flannel.alpha.coreos.com/backend-type"  # annotation of nodes


def cni(seen: Snapshot) -> Found[str]:
    """Return the CNI whose plugin most nodes call for a pod; the plugin's own name for an unknown one."""
    plugins = Counter[str]()
    for node in seen.nodes:
        with suppress(FactError):
            if configs := node[CNI_CONFIG]:
                plugins.update(called(configs).plugins[:1])
    if not plugins:
        return Found(UNKNOWN, "no file of /etc/cni/net.d names a plugin")
    plugin = plugins.most_common(1)[0][0]
    known = {module.PLUGINS[0]: part.name for part, module in modules(cnis.__name__) if part.usable}
    return Found(known.get(plugin, plugin.removesuffix("-cni")), "/etc/cni/net.d of the nodes")


def backend(name: str, seen: Snapshot, documents: Documents) -> Found[str]:
    """Return how packets get to other nodes, in the spec's words; with what hoplab does not know of it beside it."""
    match name:
        case flannel.PART.name:
            return _flannel(seen, documents)
        case calico.PART.name:
            return _calico(seen, documents)
        case cilium.PART.name:
            return Found(UNKNOWN, "its ConfigMap, which has too many modes, is not read")
        case _:
            return Found("")


def _flannel(seen: Snapshot, documents: Documents) -> Found[str]:
    written = documents.flannel
    if written.backend:
        return Found(" with ".join([written.backend, *written.unusual]), "the ConfigMap of flannel")
    kinds = Counter(kind for node in seen.nodes if (kind := dict(node.api.annotations).get(BACKEND_TYPE)))
    if not kinds:
        return Found(UNKNOWN, "no ConfigMap of flannel and no annotation of a node names it")
    kind, vnis = (
        kinds.most_common(1)[0][0],
        {_vni(dict(node.api.annotations)) for node in seen.nodes} - {None, flannel.VNI},
    )
    return Found(" with ".join([kind, *(f"VNI {vni}" for vni in sorted(map(str, vnis)))]), "annotations of the nodes")


def _vni(annotations: dict[str, str]) -> int | None:
    with suppress(ValueError, TypeError, AttributeError):
        vni = json.loads(annotations.get(flannel.BACKEND_DATA, "")).get("VNI")
        return vni if isinstance(vni, int) else None
    return None


def _calico(seen: Snapshot, documents: Documents) -> Found[str]:
    if documents.ebpf:
        return Found("eBPF", "the FelixConfiguration")
    if documents.pools:
        modes = {(pool.ipip, pool.vxlan) for pool in documents.pools}
        known = {("Never", "Never"): "bgp", ("Always", "Never"): "ipip", ("Never", "Always"): "vxlan"}
        words = sorted(known.get(pair, f"ipipMode {pair[0]} and vxlanMode {pair[1]}") for pair in modes)
        return Found(", ".join(words), "the IPPools")
    links = {link.name for node in seen.nodes for link in node[LINKS] if link.up}
    kind = "vxlan" if calico.VXLAN in links else "ipip" if calico.IPIP in links else "bgp"
    return Found(kind, "the interfaces of the nodes")


def block_size(seen: Snapshot, documents: Documents) -> int:
    """Return the prefix length of Calico's blocks; 0 where there are none."""
    if documents.pools:
        return documents.pools[0].block_size
    with suppress(FactError):
        return next((block.cidr.prefixlen for block in seen.api[API_IPAM_BLOCKS]), 0)
    return 0


def writes_nftables(name: str, seen: Snapshot, documents: Documents) -> bool:
    """Return whether the CNI's own rules are in nftables."""
    if name != flannel.PART.name:
        return False
    if documents.flannel.nftables is not None:
        return documents.flannel.nftables
    names = [table.partition(" ")[2] for table in flannel.PART.nft_tables]
    for node in seen.nodes:
        with suppress(FactError):
            if any(node[NFTABLES].table(table) for table in names):
                return True
    return False
