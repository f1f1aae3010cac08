"""Chapter 3, routes: tunnels between nodes, ``bridge fdb``, ``ip neigh``, ``wg show``, ``ping -M do``."""

from __future__ import annotations

import pytest

from hoplab.expectations import cni
from hoplab.observe.capture import Capture
from hoplab.observe.facts.fdb import FDB, FdbEntry
from hoplab.observe.facts.neighbours import NEIGHBOURS
from hoplab.observe.facts.wireguard import WIREGUARD
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import full_size, workload
from hoplab.verify.claims import EVIDENCE, Claim, counted, listed
from hoplab.verify.remedies import RESTART_FLANNEL
from hoplab.verify.session import LabSession

pytestmark = pytest.mark.remedy("ssh {node} ip neigh")


@pytest.mark.needs(backend="vxlan", nodes=2, programs=False)
@pytest.mark.rests_on("a_node_has_the_interfaces_of_its_cni", "the_announced_mac_is_the_interfaces")
@pytest.mark.rests_on(
    "nodes_are_ready_with_a_range_each",
    "pods_are_in_their_nodes_range",
    "every_node_has_its_own_address",
    anywhere=True,
)
@pytest.mark.remedy("ssh {node} bridge fdb show", mends=RESTART_FLANNEL, cni="flannel")
def test_who_unwraps_is_written_down(lab: Snapshot, claim: Claim) -> None:
    """With VXLAN every remote node has a neighbour entry (its VXLAN MAC) and an FDB entry (its address)."""
    entries = 0
    for node in lab.nodes:
        expected = cni.expectations(lab)[node.name]
        entries += claim.each_met(expected.neighbours, node[NEIGHBOURS], where=node.name, kind="neighbour")
        entries += claim.each_met(expected.fdb, node[FDB], where=node.name, kind="FDB entry")
    first = lab.nodes[0]
    claim.saw(f"{counted(entries, 'entry')}; on {first.name}: {listed(cni.expectations(lab)[first.name].fdb)}")


@pytest.mark.needs(backend="vxlan", programs=False)
@pytest.mark.rests_on("nodes_are_ready_with_a_range_each", anywhere=True)
@pytest.mark.remedy("ssh {node} bridge fdb show", mends=RESTART_FLANNEL, cni="flannel")
def test_every_fdb_entry_is_of_one_node(lab: Snapshot, claim: Claim) -> None:
    """With VXLAN every FDB entry leads to a node, and a node is behind one MAC: one of a node that is gone, or of a
    MAC that a node had before, leads frames to nobody."""
    addresses, entries = {str(node.address) for node in lab.cluster_nodes}, 0
    for node in lab.nodes:
        tunnel = cni.expectations(lab)[node.name].tunnel
        known: dict[str, FdbEntry] = {}
        for entry in node[FDB]:
            if not (tunnel and entry.dev == tunnel.dev and entry.dst) or entry.is_group:
                continue
            claim.require(entry.dst in addresses, f"on {node.name} {entry} leads to no node of the cluster")
            claim.require(
                entry.dst not in known,
                f"on {node.name} {entry.dst} is behind two MACs at once, "
                f"{listed(sorted({entry.mac, known[entry.dst].mac if entry.dst in known else ''}))}",
                *node[FDB][:EVIDENCE],
            )
            known[entry.dst] = entry
        entries += len(known)
    claim.saw(f"{counted(entries, 'entry')} on {counted(len(lab.nodes), 'node')}, one for each other node")


@pytest.mark.needs(backend="vxlan", programs=False)
@pytest.mark.rests_on("a_node_has_the_interfaces_of_its_cni")
@pytest.mark.remedy("ssh {node} ip -d link show type vxlan", mends=RESTART_FLANNEL, cni="flannel")
def test_the_announced_mac_is_the_interfaces(lab: Snapshot, claim: Claim) -> None:
    """A node's VXLAN interface has the MAC that the other nodes expect: flanneld announces it through the Kubernetes
    API, Felix derives it from the node's name."""
    seen = []
    for node in lab.nodes:
        tunnel = cni.expectations(lab)[node.name].tunnel
        link = node.link(tunnel.dev) if tunnel else None
        claim.require(link and tunnel, f"{node.name} has no VXLAN interface")
        assert link and tunnel
        claim.require(
            link.mac == tunnel.mac, f"the others expect {tunnel.mac} of {node.name}, but {tunnel.dev} has {link.mac}"
        )
        seen.append(f"that of {node.name} is {tunnel.mac}")
    claim.saw(listed(seen))


@pytest.mark.needs(backend="wireguard", nodes=2)
@pytest.mark.rests_on("a_node_has_the_interfaces_of_its_cni")
@pytest.mark.rests_on(
    "nodes_are_ready_with_a_range_each",
    "pods_are_in_their_nodes_range",
    "every_node_has_its_own_address",
    anywhere=True,
)
@pytest.mark.remedy("ssh {node} sudo wg show")
def test_who_decrypts_is_written_down(lab: Snapshot, claim: Claim) -> None:
    """With WireGuard every other node is a peer: packets to its pods are encrypted with its key and sent to its
    address, and only this peer may send from the pods' addresses."""
    peers = 0
    for node in lab.nodes:
        expected = cni.expectations(lab)[node.name].peers
        peers += claim.each_met(expected, node[WIREGUARD], where=node.name, kind="peer")
        claim.require(
            len([peer for peer in node[WIREGUARD] if peer.dev == expected[0].dev]) == len(expected),
            f"{node.name} has a peer that is no node",
            *node[WIREGUARD],
        )
    claim.saw(f"{counted(peers, 'peer')}; on {lab.nodes[0].name}: {lab.nodes[0][WIREGUARD][0]}")


@pytest.mark.beside_scaling
@pytest.mark.needs(nodes=2)
@pytest.mark.rests_on(
    "who_unwraps_is_written_down",
    "who_decrypts_is_written_down",
    "vxlan_is_sent_from_the_nodes_address",
    "encapsulation_leaves_room_in_the_mtu",
    "the_longest_prefix_decides",
    "nodes_forward",
    "the_host_end_is_a_port_of_the_bridge",
    "calicos_gateway_is_nobodys_address",
    "a_pods_gateway_is_its_nodes_bridge",
    "nothing_on_the_way_drops_it_between_nodes",
)
def test_between_nodes_a_packet_travels_wrapped(session: LabSession, claim: Claim) -> None:
    """Between nodes a pod's packet travels inside a packet from node to node (UDP for VXLAN, IP for IPIP, encrypted for
    WireGuard) or, without a tunnel, unchanged."""
    pod, other = session.echo_pods[:2]
    mine, yours = (cni.expectations(session.snapshot)[end.node.name].tunnel for end in (pod, other))
    between = f"host {pod.address} and host {other.address}"
    seen = session.request(
        pod,
        f"http://{other.address}:{workload.PORT}/",
        {"outer": Capture(pod.node.uplink, f"({between}) or ({mine.filter})" if mine else between)},
    )
    claim.require(seen.answered, f"{other} does not answer {pod}: {seen.why}")
    ours = [packet for packet in seen.packets["outer"] if (packet.inner or packet).dst == other.address]
    if mine and mine.encrypted:
        claim.require(not ours, f"what is for {other} can be read on {pod.node.uplink} of {pod.node.name}", *ours)
        ends = (pod.node.address, other.node.address)
        ours = [packet for packet in seen.packets["outer"] if (packet.src, packet.dst) == ends]
    claim.require(ours, f"nothing for {other} left {pod.node.name} by {pod.node.uplink}", *seen.packets["outer"])
    if mine and mine.encrypted:
        claim.saw(f"on {pod.node.uplink} of {pod.node.name}: {ours[0]}, which is all that can be read of it", *ours)
        return
    for packet in ours:
        claim.require(
            bool(packet.inner) == bool(mine),
            f"what left {pod.node.name} for {other} is {'' if packet.inner else 'not '}wrapped",
            packet,
        )
        inner = packet.inner or packet
        claim.require(inner.src == pod.address, f"the inner packet is not from {pod.address}", packet)
        if mine and yours:
            vni = packet.vni if mine.vni is None else mine.vni  # Cilium's is the identity of the sender
            claim.require(
                (packet.src, packet.dst, packet.vni) == (pod.node.address, other.node.address, vni),
                f"the outer packet is not from {pod.node.address} to {other.node.address} with the VNI {mine.vni}",
                packet,
            )
            claim.require(
                not mine.mac  # of programs: they write both, and nothing looks them up
                or (inner.eth_src, inner.eth_dst) == (mine.mac, yours.mac),
                f"the inner packet is not from the {mine.dev} of {pod.node.name} to that of {other.node.name}",
                f"{inner.eth_src} > {inner.eth_dst}",
            )
    claim.saw(f"on {pod.node.uplink} of {pod.node.name}: {ours[0]}", *ours)


@pytest.mark.beside_scaling
@pytest.mark.rests_on(
    "encapsulation_leaves_room_in_the_mtu",
    "between_nodes_a_packet_travels_wrapped",
    "pods_of_one_node_need_no_gateway",
    "nothing_drops_what_a_pod_sends_to_its_node",
    "the_outside_sees_the_nodes_address",
    "the_longest_prefix_decides",
    "nodes_forward",
)
@pytest.mark.remedy("ssh {node} ip -s -d link")
def test_a_packet_of_full_size_arrives_in_one_piece(session: LabSession, claim: Claim) -> None:
    """A packet as large as the MTU arrives without being cut into pieces: between pods, from and to nodes, and
    outside."""
    paths = full_size.paths(session)
    silent = full_size.unanswered(session, paths)
    for path, why in silent.items():
        fits = full_size.largest(session, path)
        less = f"{fits} do" if fits else "smaller ones do not either"
        claim.require(False, f"from {path} {path.size} bytes do not arrive in one piece and return, {less}", why)
    sizes = sorted({path.size for path in paths})
    claim.saw(f"{listed(sizes)} bytes on {counted(len(paths), 'path')}, for instance from {paths[0]}")
