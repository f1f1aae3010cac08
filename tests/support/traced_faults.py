"""Broken recordings that stop or bend a packet: which packet, and where its trace has to end."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hoplab.observe.facts.api_pods import API_PODS, ApiPod
from hoplab.observe.snapshot import Snapshot
from hoplab.trace.follow import follow
from hoplab.trace.model import Trace
from tests.support.recordings import recording

BENDS = "bends"  # in place of a kind: the packet arrives, and the trace notes what is wrong


@dataclass(frozen=True)
class TracedFault:
    """One broken recording. Pods are ``single``, the ``near`` echo pod beside it and the ``far`` one."""

    file: str  # below tests/recordings/broken
    sender: str
    receiver: str
    at: str  # the place whose cause it is: "node worker2"; "near" for that pod
    kind: str
    cause: str  # in the cause, or in the note
    options: dict[str, Any] = field(default_factory=dict, hash=False)
    drawn: bool = False  # only packets to one of several endpoints do not arrive

    @property
    def name(self) -> str:
        return self.file.rpartition("/")[2].replace("-", " ")

    @property
    def command(self) -> str:
        """Return the ends and options as they are typed."""
        flags = "".join(f" --{name}" + ("" if value is True else f" {value}") for name, value in self.options.items())
        return f"{self.sender} {self.receiver}{flags}"


EVERY_ROUTE = "default via 192.168.77.1 dev eth0"
HOME, OTHER = "node worker2", "node worker1"  # single's node in most recordings, and the other one
FAULTS = (
    TracedFault("a-host-end-left-the-bridge", "single", "near", HOME, "neighbour", "10.244.0.0/24 dev eth0"),
    TracedFault(
        "a-local-service-is-not-dropped-where-it-has-no-pod",
        "outside",
        "worker1:30081",
        OTHER,
        "socket",
        "no socket on TCP port 30081",
    ),
    TracedFault(
        "a-longer-prefix-leads-astray", "single", "far", HOME, "route", "10.244.1.0/25 via 192.168.77.1 dev eth0"
    ),
    TracedFault(
        "a-neighbour-entry-is-gone", "single", "far", HOME, "neighbour", "no neighbour 10.244.1.0 dev flannel.1"
    ),
    TracedFault(
        "a-node-does-not-know-a-clusterip",
        "single",
        "default/kubernetes",
        HOME,
        "translation",
        "destination 10.96.0.1:443",
    ),
    TracedFault(
        "a-pod-has-another-address-than-kubernetes-knows", "far", "near", HOME, "neighbour", "10.244.0.0/24 dev cni0"
    ),
    TracedFault(
        "a-pod-reaches-its-neighbours-by-the-gateway", "near", "single", "near", BENDS, "10.244.0.0/24 via 10.244.0.1"
    ),
    TracedFault("a-pods-gateway-is-not-the-bridge", "near", "outside", "near", "neighbour", "default via 10.244.0.99"),
    TracedFault(
        "a-port-of-the-bridge-lets-nothing-out-where-it-came-in",
        "near",
        "hoplab-verify/echo",
        HOME,
        "port",
        "veth545521a3 hairpin off",
        drawn=True,
    ),
    TracedFault(
        "a-service-without-endpoints-is-not-rejected",
        "single",
        "nobody",
        HOME,
        "translation",
        "destination 10.105.75.170:80",
    ),
    TracedFault("a-veth-is-unplugged", "single", "near", HOME, "link", "veth545521a3@if2 veth mtu 1450 down"),
    TracedFault("an-endpoint-gets-nearly-all-connections", "single", "echo", HOME, BENDS, "99% of connections"),
    TracedFault("an-fdb-entry-is-gone", "single", "far", HOME, "fdb", "no FDB entry de:16:64:34:95:3f dev flannel.1"),
    TracedFault(
        "flannel-1-has-another-mac-than-announced", "far", "single", HOME, "address", "flannel.1 02:00:00:00:00:01"
    ),
    TracedFault("forwarding-is-off", "single", "far", HOME, "sysctl", "net.ipv4.ip_forward = 0"),
    TracedFault(
        "kube-dns-has-another-clusterip", "single", "kube-dns", HOME, "translation", "destination 10.96.0.11:53"
    ),
    TracedFault(
        "kube-mark-masq-does-not-mark",
        "single",
        "service/single",
        HOME,
        "client",
        "source 10.244.0.6:8080 is not 10.101.69.124:80",
    ),
    TracedFault("kube-nodeports-is-never-reached", "outside", "worker2:30080", HOME, "socket", "TCP port 30080"),
    TracedFault(
        "nobody-calls-kube-services-in-prerouting",
        "single",
        "echo",
        HOME,
        "translation",
        "destination 10.102.196.103:80",
    ),
    TracedFault(
        "pod-to-pod-is-masqueraded",
        "single",
        "far",
        HOME,
        BENDS,
        "-A POSTROUTING -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE",
    ),
    TracedFault("the-default-route-is-gone", "single", "198.51.100.9", HOME, "route", "no route to 198.51.100.9"),
    TracedFault(
        "the-masquerade-rule-is-gone",
        "single",
        "outside",
        HOME,
        "translation",
        "no translation of the source 10.244.0.6",
    ),
    TracedFault("the-route-to-the-nodes-own-pods-is-gone", "far", "single", HOME, "route", EVERY_ROUTE),
    TracedFault("the-route-to-the-other-nodes-pods-is-gone", "single", "far", HOME, "route", EVERY_ROUTE),
    TracedFault(
        "the-rules-of-a-kube-svc-chain-are-flushed",
        "single",
        "echo",
        HOME,
        "translation",
        "destination 10.102.196.103:80",
    ),
    TracedFault(
        "two-nodes-answer-arp-for-a-balancers-address",
        "outside",
        "announced",
        HOME,
        BENDS,
        "both answer ARP for 192.168.77.245",
        {"via": "loadbalancer"},
    ),
    TracedFault("calico-bgp/a-bgp-session-is-closed-by-hand", "single", "far", HOME, "route", EVERY_ROUTE),
    TracedFault(
        "calico-ipip/what-is-for-a-pod-elsewhere-goes-by-eth0-and-is-not-wrapped",
        "single",
        "far",
        OTHER,
        BENDS,
        "by eth0, and its reply comes back by tunl0",
    ),
    TracedFault(
        "calico-vxlan/vxlan-calico-has-another-mac-than-announced",
        "far",
        "single",
        OTHER,
        "address",
        "vxlan.calico 02:00:00:00:00:01",
    ),
    TracedFault(
        "cilium-native-cilium/a-backend-is-taken-out-of-the-map",
        "single",
        "echo",
        HOME,
        "program",
        "slot 1 leads nowhere",
        drawn=True,
    ),
    TracedFault(
        "flannel-host-gw/the-route-to-a-host-gw-neighbours-pods-is-gone", "single", "far", OTHER, "route", EVERY_ROUTE
    ),
    TracedFault(
        "flannel-nft-vxlan-nftables/flannels-table-of-nftables-masks-nothing",
        "single",
        "outside",
        OTHER,
        "translation",
        "no translation of the source 10.244.1.4",
    ),
    TracedFault(
        "flannel-vxlan-nftables/a-service-is-in-no-map", "single", "echo", HOME, "rule", "ip daddr @cluster-ips reject"
    ),
    TracedFault(
        "flannel-wireguard/wireguard-does-not-know-whose-a-range-is",
        "single",
        "far",
        OTHER,
        "peer",
        "no peer with allowed ips for 10.244.0.7",
    ),
    TracedFault(
        "younger/an-interface-does-not-forward",
        "far",
        "single",
        HOME,
        "sysctl",
        "net.ipv4.conf.flannel.1.forwarding = 0",
    ),
    TracedFault(
        "calico-bgp-dual/forwarding-of-ipv6-is-off",
        "single",
        "far",
        OTHER,
        "sysctl",
        "net.ipv6.conf.all.forwarding = 0",
        {"ipv6": True},
    ),
    TracedFault(
        "cilium-native-dual-cilium/forwarding-of-ipv6-is-off",
        "single",
        "far",
        HOME,
        "sysctl",
        "net.ipv6.conf.all.forwarding = 0",
        {"ipv6": True},
    ),
    TracedFault(
        "flannel-vxlan-dual/the-route-of-ipv6-to-the-other-nodes-pods-is-gone",
        "single",
        "far",
        HOME,
        "route",
        "default via fd00:77::1 dev eth0",
        {"ipv6": True},
    ),
)
# Recordings whose fault neither stops nor bends a packet: an object, a file or an address beside the way
PASSING = frozenset(
    {
        *("a-node-is-not-ready", "a-nodes-address-is-in-no-network", "a-pod-has-a-public-address"),
        *("a-pod-has-no-loopback-address", "a-pods-address-is-of-another-nodes-range", "a-veth-that-belongs-to-no-pod"),
        *("an-interface-has-a-clusterip", "another-cnis-file-comes-first", "another-table-is-asked-last"),
        *("ipam-does-not-know-of-an-address", "nobody-remembers-where-a-client-was-sent"),
        *("the-gateways-mac-is-written-down-not-learned", "the-mtu-of-cni0-is-wrong"),
        *("the-ranges-last-address-is-not-for-broadcast", "the-userspace-proxy-is-back"),
        *("younger/a-host-port-leads-to-a-pod-that-is-gone", "younger/a-node-is-behind-two-macs"),
        *("younger/a-udp-flow-is-kept-to-an-endpoint-that-is-gone", "younger/the-conntrack-table-is-full"),
        *("cilium-vxlan/nobody-is-said-to-have-another-nodes-pods-address",),  # the range of its node leads there too
        *("flannel-vxlan-policies/nobody-reads-the-queue-of-policies",),  # no policy asks for it
        *("younger/ipam-keeps-the-address-of-a-pod-that-is-gone",),
        *("younger/the-reverse-path-filter-is-strict-everywhere",),
    }
)


def pods(lab: Snapshot) -> dict[str, ApiPod]:
    """Return the pods of the workload by the names that this module uses."""
    known = lab.api[API_PODS]
    single = next((pod for pod in known if pod.label("app") == "single"), None)
    assert single, "the workload of the lessons is not there: `./lab verify` makes it"
    echoes = [pod for pod in known if pod.label("app") == "echo"]
    near = next(pod for pod in echoes if pod.node == single.node)
    return {"single": single, "near": near, "far": next(pod for pod in echoes if pod.node != single.node)}


def traced(lab: Snapshot, sender: str, receiver: str, **options: Any) -> Trace:
    """Return a trace between ends that may be named as in this module."""
    names = {name: f"pod/{pod}" for name, pod in pods(lab).items()}
    return follow(lab, names.get(sender, sender), names.get(receiver, receiver), **options)


@cache
def trace_of(fault: TracedFault) -> Trace:
    """Return the trace of a fault's packet."""
    return traced(recording(f"broken/{fault.file}"), fault.sender, fault.receiver, **fault.options)
