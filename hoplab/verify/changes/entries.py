"""The table of facts that are compared: what reads the entries of each; and what of a lab has no entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hoplab.observe.facts import Fact
from hoplab.observe.facts.addresses import ADDRESSES, ADDRESSES6
from hoplab.observe.facts.api_corefile import API_COREFILE
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS, API_ENDPOINTS6
from hoplab.observe.facts.api_ingress_classes import API_INGRESS_CLASSES
from hoplab.observe.facts.api_ingresses import API_INGRESSES
from hoplab.observe.facts.api_ipam_blocks import API_IPAM_BLOCKS, API_IPAM_BLOCKS6
from hoplab.observe.facts.api_nodes import API_NODES
from hoplab.observe.facts.api_pod_states import API_POD_STATES
from hoplab.observe.facts.api_pods import API_PODS
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.facts.api_tls_secrets import API_TLS_SECRETS
from hoplab.observe.facts.base_chains import BASE_CHAINS
from hoplab.observe.facts.bgp import BGP
from hoplab.observe.facts.bpf_programs import BPF_PROGRAMS
from hoplab.observe.facts.cilium_ipcache import CILIUM_IPCACHE
from hoplab.observe.facts.cilium_services import CILIUM_SERVICES
from hoplab.observe.facts.clock import CLOCK
from hoplab.observe.facts.cni_config import CNI_CONFIG
from hoplab.observe.facts.conntrack import CONNTRACK
from hoplab.observe.facts.disks import DISKS
from hoplab.observe.facts.fdb import FDB
from hoplab.observe.facts.ipam import IPAM
from hoplab.observe.facts.ipset import IPSET
from hoplab.observe.facts.iptables import IP6TABLES, IPTABLES
from hoplab.observe.facts.iptables_legacy import IP6TABLES_LEGACY, IPTABLES_LEGACY
from hoplab.observe.facts.links import LINKS
from hoplab.observe.facts.neighbours import NEIGHBOURS, NEIGHBOURS6
from hoplab.observe.facts.nfqueue import NFQUEUE
from hoplab.observe.facts.nft_ruleset import NFT_RULESET
from hoplab.observe.facts.nftables import NFTABLES, NFTABLES6
from hoplab.observe.facts.resolv_conf import RESOLV_CONF
from hoplab.observe.facts.routes import ROUTES, ROUTES6
from hoplab.observe.facts.rules import RULES, RULES6
from hoplab.observe.facts.sockets import SOCKETS
from hoplab.observe.facts.sysctls import SYSCTLS, SYSCTLS6
from hoplab.observe.facts.units import NODE_UNITS
from hoplab.observe.facts.wireguard import WIREGUARD
from hoplab.verify.changes import hosts, maps, objects, rulesets
from hoplab.verify.changes.entry import Entry


@dataclass(frozen=True)
class Reading:
    """A fact, and the function that yields the entries of what it was parsed to."""

    fact: Fact[Any]
    entries: Callable[[Any], Iterator[Entry]]


# In the order in which changes of one place are said
READINGS = (
    Reading(API_NODES, objects.nodes),
    Reading(API_PODS, objects.pods),
    Reading(API_POD_STATES, objects.pod_states),
    Reading(API_SERVICES, objects.services),
    Reading(API_ENDPOINTS, objects.endpoints),
    Reading(API_ENDPOINTS6, objects.endpoints),
    Reading(API_INGRESS_CLASSES, objects.ingress_classes),
    Reading(API_INGRESSES, objects.ingresses),
    Reading(API_TLS_SECRETS, objects.tls_secrets),
    Reading(API_COREFILE, objects.corefile),
    Reading(API_IPAM_BLOCKS, objects.ipam_blocks),
    Reading(API_IPAM_BLOCKS6, objects.ipam_blocks),
    Reading(CLOCK, hosts.clock),
    Reading(NODE_UNITS, hosts.units),
    Reading(DISKS, hosts.disks),
    Reading(LINKS, hosts.links),
    Reading(ADDRESSES, hosts.addresses),
    Reading(ADDRESSES6, hosts.addresses),
    Reading(RULES, hosts.policy_rules),
    Reading(RULES6, hosts.policy_rules),
    Reading(ROUTES, hosts.routes),
    Reading(ROUTES6, hosts.routes),
    Reading(BGP, hosts.bgp),
    Reading(WIREGUARD, hosts.wireguard),
    Reading(NEIGHBOURS, hosts.neighbours),
    Reading(NEIGHBOURS6, hosts.neighbours),
    Reading(FDB, hosts.fdb),
    Reading(SYSCTLS, hosts.sysctls),
    Reading(SYSCTLS6, hosts.sysctls),
    Reading(CNI_CONFIG, hosts.cni_configs),
    Reading(IPAM, hosts.reservations),
    Reading(RESOLV_CONF, hosts.resolvers),
    Reading(SOCKETS, hosts.sockets),
    Reading(BASE_CHAINS, rulesets.base_chains),
    Reading(IPTABLES, rulesets.iptables("iptables")),
    Reading(IP6TABLES, rulesets.iptables("ip6tables")),
    Reading(IPTABLES_LEGACY, rulesets.iptables("iptables-legacy")),
    Reading(IP6TABLES_LEGACY, rulesets.iptables("ip6tables-legacy")),
    Reading(NFTABLES, rulesets.nftables),
    Reading(NFTABLES6, rulesets.nftables),
    Reading(NFT_RULESET, rulesets.nftables),
    Reading(NFQUEUE, hosts.packet_queues),
    Reading(IPSET, rulesets.ipsets),
    Reading(BPF_PROGRAMS, maps.programs),
    Reading(CILIUM_SERVICES, maps.services),
    Reading(CILIUM_IPCACHE, maps.owners),
    Reading(CONNTRACK, hosts.flows),
)

# Facts without entries, by name, and why
LEFT_OUT = {
    "proc_routes": "another form of the fact routes",
    "counters": "counts packets",
    "dns_log": "lines of a log",
    "cilium_endpoints": "numbers that the agent of a node gives its pods",
    "cilium_policy": "identities and endpoints by numbers, which another node or start has otherwise",
    "unreachable": "an experiment with the kernel",
    "subnet_sums": "an experiment with the kernel",
    "all_hooks": "an experiment with the kernel",
}
