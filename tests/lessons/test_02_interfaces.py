"""Chapter 2, interfaces and veth pairs: ``ip -d link``, ``/etc/cni/net.d``."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from hoplab import cni
from hoplab.claims import Claim, counted, listed
from hoplab.facts.cni_config import CNI_CONFIG
from hoplab.facts.ipam import IPAM
from hoplab.facts.links import LINKS
from hoplab.snapshot import Snapshot


def test_a_node_has_the_interfaces_of_its_cni(lab: Snapshot, claim: Claim) -> None:
    """A node has lo, eth0, what its CNI makes (with flannel VXLAN: cni0 and flannel.1) and one veth per pod."""
    seen = []
    for node in lab.nodes:
        promised = cni.promises(lab)[node.name].interfaces
        for name in promised:
            link = node.link(name)
            claim.require(link, f"{node.name} has no interface {name}", listed(each.name for each in node[LINKS]))
            claim.require(link and link.up, f"{name} of {node.name} is down")
        veths = [link for link in node[LINKS] if link.kind == "veth" and link.name not in promised]
        pods = [pod for pod in lab.own_address_pods if pod.node == node.name]
        claim.require(
            len(veths) == len(pods),
            f"{node.name} has {counted(len(veths), 'veth')} for {counted(len(pods), 'pod')}",
            *(link.name for link in veths),
            *pods,
        )
        seen.append(f"{node.name} has {listed(promised)} and {counted(len(veths), 'veth')} for as many pods")
    claim.saw("; ".join(seen))


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


def test_the_host_end_is_a_port_of_the_bridge(lab: Snapshot, claim: Claim) -> None:
    """With a bridge CNI the node's end of the pair is a port of the bridge (with Calico it would be routed instead)."""
    promised = cni.promises(lab)
    for pod in lab.pods:
        bridge = promised[pod.node.name].bridge
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
            f"{promised[node.name].bridge} of {node.name} has {counted(len(lab.pods_on(node)), 'port')}"
            for node in lab.nodes
        )
    )


@pytest.mark.needs(cni="flannel", backend="vxlan")
def test_encapsulation_leaves_room_in_the_mtu(lab: Snapshot, claim: Claim) -> None:
    """VXLAN puts 50 bytes around a frame, so pods, cni0 and flannel.1 have an MTU that much smaller than eth0's."""
    promised, seen = cni.promises(lab), []
    for node in lab.nodes:
        outer, wrapper = node.link("eth0"), node.link("flannel.1")
        claim.require(outer and wrapper and wrapper.vxlan, f"{node.name} has no eth0 or no VXLAN interface flannel.1")
        assert outer and wrapper and wrapper.vxlan
        room = outer.mtu - promised[node.name].overhead
        claim.require(
            (wrapper.vxlan.dev, wrapper.vxlan.local) == ("eth0", str(node.address)),
            f"flannel.1 of {node.name} sends from {wrapper.vxlan.local} by {wrapper.vxlan.dev}",
        )
        inner = {"flannel.1": wrapper, "cni0": node.link("cni0")}
        inner |= {f"eth0 of {pod}": pod.eth0 for pod in lab.pods_on(node)}
        for name, link in inner.items():
            mtu = link.mtu if link else None
            claim.require(mtu == room, f"{name} on {node.name} has the MTU {mtu}, not {room}")
        seen.append(f"{node.name} sends {room} inside of {outer.mtu} bytes")
    claim.saw(listed(seen))


def test_the_runtime_is_told_which_plugin_to_call(lab: Snapshot, claim: Claim) -> None:
    """When a pod starts, the container runtime calls the plugins of the first file in /etc/cni/net.d."""
    known = cni.chosen(lab.setting.cni)
    for node in lab.nodes:
        claim.require(node[CNI_CONFIG], f"{node.name} has no file in /etc/cni/net.d")
        first = min(node[CNI_CONFIG], key=lambda config: config.path)
        claim.require(
            PurePath(first.path).name == known.CONFIG_FILE,
            f"the first file on {node.name} is {first.path}, not {known.CONFIG_FILE}",
        )
        claim.require(first.plugins == known.PLUGINS, f"{first.path} on {node.name} calls {listed(first.plugins)}")
    claim.saw(f"{known.CONFIG_FILE} on {counted(len(lab.nodes), 'node')} calls {listed(known.PLUGINS)}")


@pytest.mark.needs(cni="flannel")
def test_ipam_gave_each_pod_its_address(lab: Snapshot, claim: Claim) -> None:
    """When a pod starts, the IPAM plugin gives it a free address of its node's range and writes down who has it."""
    for node in lab.nodes:
        given = {each.address: each for each in node[IPAM]}
        for pod in lab.pods_on(node):
            found = given.get(pod.address)
            claim.require(
                found and found.dev == "eth0",
                f"IPAM on {node.name} has not given {pod.address} to the eth0 of {pod}",
                *given.values(),
            )
        outside = [each for each in given.values() if each.address not in node.pod_cidr]
        claim.require(not outside, f"IPAM on {node.name} gives addresses outside of {node.pod_cidr}", *outside)
    claim.saw(
        listed(f"{node.name} gave {counted(len(node[IPAM]), 'address')} of {node.pod_cidr}" for node in lab.nodes)
    )
