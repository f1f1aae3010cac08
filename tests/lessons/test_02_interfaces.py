"""Chapter 2, interfaces and veth pairs: ``ip -d link``, ``/etc/cni/net.d``."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from hoplab.expectations import cni
from hoplab.expectations.cni import calico, cilium
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.api_ipam_blocks import API_IPAM_BLOCKS
from hoplab.observe.facts.cni_config import CNI_CONFIG, MULTUS, called
from hoplab.observe.facts.ipam import IPAM
from hoplab.observe.facts.links import LINKS
from hoplab.observe.snapshot import Node, Snapshot
from hoplab.verify import leftovers
from hoplab.verify.claims import Claim, counted, listed

pytestmark = pytest.mark.remedy("ssh {node} ip -d link")


@pytest.mark.rests_on("a_pod_hangs_on_a_veth_pair", "every_pod_has_its_own_address")
@pytest.mark.remedy(
    "ssh {node} ip -d link show {dev}",
    mends="ssh {node} sudo ip link set {dev} up",
    says="(?P<dev>[^ ]+) of [^ ]+ is down",
)
def test_a_node_has_the_interfaces_of_its_cni(lab: Snapshot, claim: Claim) -> None:
    """A node has lo, eth0, the interfaces of its CNI (flannel VXLAN: cni0 and flannel.1; Calico: a tunnel or none) and
    one veth per pod. Veths to what is no pod (a container of Docker) or to further interfaces of a pod (Multus) are not
    the CNI's."""
    seen = []
    for node in lab.nodes:
        expected = cni.expectations(lab)[node.name].interfaces
        for name in expected:
            link = node.link(name)
            claim.require(link, f"{node.name} has no interface {name}", listed(known.name for known in node[LINKS]))
            claim.require(link and link.up, f"{name} of {node.name} is down")
        others = _other_veths(lab, node)
        veths = [link for link in node[LINKS] if link.kind == "veth" and link.name not in (*expected, *others)]
        pods = [pod for pod in lab.own_address_pods if pod.node == node.name]
        claim.require(
            len(veths) == len(pods),
            f"{node.name} has {counted(len(veths), 'veth')} for {counted(len(pods), 'pod')}",
            *(link.name for link in veths),
            *pods,
        )
        seen.append(f"{node.name} has {listed(expected)} and {counted(len(veths), 'veth')} for as many pods")
    claim.saw("; ".join(seen))


def _other_veths(lab: Snapshot, node: Node) -> frozenset[str]:
    """Return the names of veths to other namespaces that are not the CNI's."""
    bridge = cni.expectations(lab)[node.name].bridge
    ends_of_cni = (calico.HOST_END, cilium.HOST_END)
    ends = {pod.host_end.name for pod in lab.pods_on(node) if pod.host_end}
    further = {link.peer_index for pod in lab.pods_on(node) for link in pod[LINKS] if link.name != "eth0"}
    return frozenset(
        link.name
        for link in node[LINKS]
        if link.peer_elsewhere
        and link.name not in ends
        and (link.index in further or (link.master != bridge if bridge else not link.name.startswith(ends_of_cni)))
    )


@pytest.mark.rests_on("every_pod_has_its_own_address")
def test_a_pod_hangs_on_a_veth_pair(lab: Snapshot, claim: Claim) -> None:
    """A pod's eth0 and an interface of its node are the two ends of one veth pair: each names the other's index."""
    claim.require(lab.pods, "no pod's network namespace was found")
    for pod in lab.pods:
        eth0, host = pod.eth0, pod.host_end
        claim.require(eth0, f"{pod} has no eth0")
        claim.require(host, f"{pod.node.name} has no interface with the index that the eth0 of {pod} names", eth0)
        assert eth0 and host
        claim.require(
            eth0.kind == host.kind == "veth" and eth0.peer_elsewhere and host.peer_elsewhere,
            f"the eth0 of {pod} and {host.name} are not a veth pair between two namespaces",
            eth0,
            host,
        )
        claim.require(host.peer_index == eth0.index, f"{host.name} names another peer than the eth0 of {pod}", host)
        claim.require(eth0.up and host.up, f"one end of the pair of {pod} is down", eth0, host)
    claim.saw(
        listed(
            f"{pod}: eth0 is {pod.eth0.index}, {pod.host_end.name} is {pod.host_end.index}"
            for pod in lab.pods
            if pod.eth0 and pod.host_end
        )
    )


@pytest.mark.needs(cni="flannel")
@pytest.mark.rests_on("a_pod_hangs_on_a_veth_pair", "a_node_has_the_interfaces_of_its_cni")
@pytest.mark.remedy(
    "ssh {node} bridge -d link show dev {dev}",
    mends="ssh {node} sudo bridge link set dev {dev} hairpin on",
    says="^(?P<dev>[^ ]+), the end .* has no hairpin mode",
)
@pytest.mark.remedy(
    "ssh {node} ip -d link show {dev}",
    mends="ssh {node} sudo ip link set {dev} master {bridge}",
    says="^(?P<dev>[^ ]+), the end .* is a port of .*, not of (?P<bridge>[^ ]+)",
)
def test_the_host_end_is_a_port_of_the_bridge(lab: Snapshot, claim: Claim) -> None:
    """With a bridge CNI the node's end of the pair is a port of the bridge; Calico routes to it instead."""
    expected = cni.expectations(lab)
    for pod in lab.pods:
        bridge = expected[pod.node.name].bridge
        claim.require(pod.host_end, f"the node's end of the pair of {pod} is missing")
        assert pod.host_end
        claim.require(
            pod.host_end.master == bridge,
            f"{pod.host_end.name}, the end of {pod} on {pod.node.name}, is a port of "
            f"{pod.host_end.master or 'no bridge'}, not of {bridge}",
        )
        claim.require(  # a pod that reaches itself through a service comes back by the port it left by
            pod.host_end.port and pod.host_end.port.hairpin,
            f"{pod.host_end.name}, the end of {pod} on {pod.node.name}, has no hairpin mode",
        )
    claim.saw(
        listed(
            f"{expected[node.name].bridge} of {node.name} has {counted(len(lab.pods_on(node)), 'port')}"
            for node in lab.nodes
            if expected[node.name].bridge
        )
    )


@pytest.mark.needs(cni="calico")
@pytest.mark.rests_on("a_pod_hangs_on_a_veth_pair")
def test_calico_has_no_bridge(lab: Snapshot, claim: Claim) -> None:
    """Calico has no bridge: the node routes to each pod's end, which is named cali and a digest of the pod's name."""
    for node in lab.nodes:
        used = {link.master for link in node[LINKS]} | {
            entry.dev for entry in node[ADDRESSES] if entry.address not in lab.setting.pod_cidr
        }  # by others, Docker for one; whether a pod is at one of them is looked at below
        bridges = [link.name for link in node[LINKS] if link.kind == "bridge" and link.name not in used]
        claim.require(not bridges, f"{node.name} has {counted(len(bridges), 'bridge')}: {listed(bridges)}")
    for pod in lab.pods:
        claim.require(pod.host_end, f"the node's end of the pair of {pod} is missing")
        assert pod.host_end
        wanted = calico.host_end(pod.api)
        claim.require(pod.host_end.name == wanted, f"the end of {pod} is {pod.host_end.name}, not {wanted}")
        claim.require(
            not pod.host_end.master,
            f"{wanted}, the end of {pod} on {pod.node.name}, is a port of {pod.host_end.master}",
        )
    claim.saw(
        listed(f"{node.name} has {counted(len(lab.pods_on(node)), 'cali* interface')}" for node in lab.nodes)
        + ", ports of nothing"
    )


@pytest.mark.rests_on("a_node_has_the_interfaces_of_its_cni", "a_pod_hangs_on_a_veth_pair")
@pytest.mark.remedy(
    "ssh {node} ip link show {dev}",
    mends="ssh {node} sudo ip link set {dev} mtu {mtu}",
    says="^(?P<dev>[^ ]+) on [^ ]+ has the MTU [0-9]+, not (?P<mtu>[0-9]+)",
)
def test_encapsulation_leaves_room_in_the_mtu(lab: Snapshot, claim: Claim) -> None:
    """Encapsulation between nodes takes its bytes, 50 for VXLAN and 20 for IPIP, from the MTU of the pods; with Cilium
    from that of their default route."""
    expected, seen = cni.expectations(lab), []
    for node in lab.nodes:
        outer, tunnel, bridge = node.link(node.uplink), expected[node.name].tunnel, expected[node.name].bridge
        claim.require(outer, f"{node.name} has no {node.uplink}")
        assert outer
        room = outer.mtu - expected[node.name].overhead
        if expected[node.name].mtu_by_route:
            inner = {f"the default route of {pod}": pod.mtu for pod in lab.pods_on(node)}
        else:
            links = {f"eth0 of {pod}": pod.eth0 for pod in lab.pods_on(node)}
            links |= {name: node.link(name) for name in (bridge, tunnel.dev if tunnel else "") if name}
            inner = {name: link.mtu if link else None for name, link in links.items()}
        for name, mtu in inner.items():
            smaller = bool(lab.setting.foreign and mtu and mtu < room)  # somebody may have chosen it
            claim.require(mtu == room or smaller, f"{name} on {node.name} has the MTU {mtu}, not {room}")
        seen.append(f"{node.name} sends {room} " + (f"inside of {outer.mtu} bytes" if tunnel else "bytes as they are"))
    claim.saw(listed(seen))


@pytest.mark.needs(backend="vxlan", programs=False)
@pytest.mark.rests_on("a_node_has_the_interfaces_of_its_cni", "every_node_has_its_own_address")
def test_vxlan_is_sent_from_the_nodes_address(lab: Snapshot, claim: Claim) -> None:
    """A VXLAN interface sends through eth0 with the node's own address as source."""
    for node in lab.nodes:
        tunnel = cni.expectations(lab)[node.name].tunnel
        link = node.link(tunnel.dev) if tunnel else None
        claim.require(link and link.vxlan, f"{node.name} has no VXLAN interface")
        assert link and link.vxlan
        claim.require(
            (link.vxlan.dev, link.vxlan.local) == (node.uplink, str(node.address)),
            f"{link.name} of {node.name} sends from {link.vxlan.local} by {link.vxlan.dev}",
        )
        claim.require(tunnel and link.vxlan.id == tunnel.vni, f"{link.name} of {node.name} has the VNI {link.vxlan.id}")
    claim.saw(listed(f"{node.name} sends from {node.address}" for node in lab.nodes))


@pytest.mark.remedy("ssh {node} sudo ls -l /etc/cni/net.d")
def test_the_runtime_is_told_which_plugin_to_call(lab: Snapshot, claim: Claim) -> None:
    """When a pod starts, the container runtime calls the plugins of the first file in /etc/cni/net.d; Multus there
    calls those of another one."""
    known = cni.get_cni(lab.setting.cni)
    for node in lab.nodes:
        claim.require(node[CNI_CONFIG], f"{node.name} has no file in /etc/cni/net.d")
        first, found = node[CNI_CONFIG][0], called(node[CNI_CONFIG])
        claim.require(
            MULTUS in first.plugins or PurePath(first.path).name == known.CONFIG_FILE,
            f"the first file on {node.name} is {first.path}, not {known.CONFIG_FILE}",
        )
        claim.require(
            found.plugins == known.PLUGINS or (lab.setting.foreign and found.plugins[:1] == known.PLUGINS[:1]),
            f"{found.path} on {node.name} calls {listed(found.plugins)}{found.problem and f': {found.problem}'}",
        )
    claim.saw(f"{known.CONFIG_FILE} on {counted(len(lab.nodes), 'node')} calls {listed(known.PLUGINS)}")


@pytest.mark.needs(cni="flannel")
@pytest.mark.rests_on("a_nodes_range_has_its_ends", "every_pod_has_its_own_address")
@pytest.mark.rests_on("nodes_are_ready_with_a_range_each", "pods_are_in_their_nodes_range", anywhere=True)
@pytest.mark.remedy("ssh {node} sudo ls -l /var/lib/cni/networks/cbr0")
def test_ipam_gave_each_pod_its_address(lab: Snapshot, claim: Claim) -> None:
    """When a pod starts, the IPAM plugin gives it a free address of its node's range and records the owner in a
    file."""
    for node in lab.nodes:
        given = {lease.address: lease for lease in node[IPAM]}
        for pod in lab.pods_on(node):
            found = given.get(pod.address)
            claim.require(
                found and found.dev == "eth0",
                f"IPAM on {node.name} has not given {pod.address} to the eth0 of {pod}",
                *given.values(),
            )
        outside = [lease for lease in given.values() if lease.address not in node.pod_cidr]
        claim.require(not outside, f"IPAM on {node.name} gives addresses outside of {node.pod_cidr}", *outside)
    claim.saw(
        listed(f"{node.name} gave {counted(len(node[IPAM]), 'address')} of {node.pod_cidr}" for node in lab.nodes)
    )


@pytest.mark.needs(cni="calico")
@pytest.mark.rests_on("every_pod_has_its_own_address")
@pytest.mark.rests_on("blocks_do_not_overlap", anywhere=True)
def test_calico_wrote_down_who_has_which_address(lab: Snapshot, claim: Claim) -> None:
    """Calico's IPAM takes an address from one of the node's blocks and records the pod in the block."""
    taken = {address: (block, who) for block in lab.api[API_IPAM_BLOCKS] for address, who in block.taken.items()}
    for pod in lab.pods:
        block, who = taken.get(pod.address, (None, ""))
        claim.require(block, f"no block has {pod.address}, the address of {pod}", *lab.api[API_IPAM_BLOCKS])
        assert block
        claim.require(who == str(pod), f"{block.cidr} says that {pod.address} is of {who}, not of {pod}")
        claim.require(
            block.node == pod.node.name, f"{pod} of {pod.node.name} has {pod.address} from a block of {block.node}"
        )
    claim.saw(
        listed(
            f"{node.name} has {listed(block.cidr for block in calico.blocks(lab, node))}, "
            f"{counted(len(lab.pods_on(node)), 'pod')} in it"
            for node in lab.nodes
        )
    )


def test_every_reserved_address_is_a_pods(lab: Snapshot, claim: Claim) -> None:
    """IPAM frees the address of a pod that is gone: every reserved one is a pod's. What remains is lost to new pods."""
    reserved = 0
    for node in lab.nodes:
        kept = leftovers.reservations(lab, node)
        claim.require(
            not kept,
            f"on {node.name} IPAM keeps {listed(lease.address for lease in kept)} for pods that are gone",
            *kept,
        )
        reserved += len(node[IPAM])
    if lab.setting.cni == "calico":
        lost = leftovers.taken(lab)
        claim.require(not lost, f"Calico's IPAM: {listed(lost)}, which is gone" if lost else "", *lost)
        reserved += sum(len(block.taken) for block in lab.api[API_IPAM_BLOCKS])
    claim.saw(f"{counted(reserved, 'address')} reserved on {counted(len(lab.nodes), 'node')}, each in use")
