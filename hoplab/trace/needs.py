"""The facts that a trace depends on: so a look for one takes less time than one at everything."""

from __future__ import annotations

from hoplab.observe.facts import Fact, discover
from hoplab.observe.facts.addresses import ADDRESSES, ADDRESSES6
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS, API_ENDPOINTS6
from hoplab.observe.facts.api_ingresses import API_INGRESSES
from hoplab.observe.facts.api_nodes import API_NODES
from hoplab.observe.facts.api_pods import API_PODS
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.facts.bpf_programs import BPF_PROGRAMS
from hoplab.observe.facts.cilium_endpoints import CILIUM_ENDPOINTS
from hoplab.observe.facts.cilium_ipcache import CILIUM_IPCACHE
from hoplab.observe.facts.cilium_policy import CILIUM_POLICY
from hoplab.observe.facts.cilium_services import CILIUM_SERVICES
from hoplab.observe.facts.fdb import FDB
from hoplab.observe.facts.ipset import IPSET
from hoplab.observe.facts.iptables import IP6TABLES, IPTABLES
from hoplab.observe.facts.iptables_legacy import IP6TABLES_LEGACY, IPTABLES_LEGACY
from hoplab.observe.facts.links import LINKS
from hoplab.observe.facts.neighbours import NEIGHBOURS, NEIGHBOURS6
from hoplab.observe.facts.nft_ruleset import NFT_RULESET
from hoplab.observe.facts.routes import ROUTES, ROUTES6
from hoplab.observe.facts.rules import RULES, RULES6
from hoplab.observe.facts.sockets import SOCKETS
from hoplab.observe.facts.sysctls import SYSCTLS, SYSCTLS6
from hoplab.observe.facts.wireguard import WIREGUARD
from hoplab.observe.snapshot import PLACES

NEEDED: frozenset[str] = frozenset(
    fact.name
    for fact in (
        *(ADDRESSES, LINKS, ROUTES, RULES, NEIGHBOURS, FDB, SYSCTLS, SOCKETS, WIREGUARD),
        *(IPTABLES, IPTABLES_LEGACY, IPSET, NFT_RULESET),
        *(BPF_PROGRAMS, CILIUM_ENDPOINTS, CILIUM_IPCACHE, CILIUM_POLICY, CILIUM_SERVICES),
        *(API_NODES, API_PODS, API_SERVICES, API_ENDPOINTS, API_INGRESSES),
    )
)
# of a packet of IPv6: another one of IPv4 may carry it, or follow it
NEEDED6: frozenset[str] = NEEDED | frozenset(
    fact.name
    for fact in (
        *(ADDRESSES6, ROUTES6, RULES6, NEIGHBOURS6, SYSCTLS6),
        *(IP6TABLES, IP6TABLES_LEGACY, API_ENDPOINTS6),
    )
)


def others(*, ipv6: bool = False) -> frozenset[str]:
    """Return the names of the facts that no trace of this family depends on."""
    every: tuple[Fact[object], ...] = tuple(fact for where in PLACES for fact in discover(where))
    return frozenset(fact.name for fact in every) - (NEEDED6 if ipv6 else NEEDED)
