"""Chapter 7, iptables: ``iptables-save -c``, and ``nft list table ip kube-proxy`` where kube-proxy works with that."""

from __future__ import annotations

import pytest

from hoplab.expectations import proxy
from hoplab.expectations.proxy import iptables as iptables_mode
from hoplab.expectations.proxy import nftables as nftables_mode
from hoplab.observe.facts.base_chains import BASE_CHAINS
from hoplab.observe.facts.iptables import IPTABLES
from hoplab.observe.facts.iptables_hook_order import IPTABLES_HOOK_ORDER
from hoplab.observe.facts.nft_expressions import Nat, Verdict
from hoplab.observe.snapshot import Snapshot
from hoplab.verify.claims import Claim, counted, listed
from hoplab.verify.remedies import RESTART_KUBE_PROXY

pytestmark = pytest.mark.remedy("ssh {node} sudo iptables-save")

BUILT_IN = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}

# A table's place among those that are called at the same hook; nat has two, before the routing decision and after it.
# (The kernel's own, older iptables calls security at 50.)
PRIORITIES = {"raw": (-300,), "mangle": (-150,), "nat": (-100, 100), "filter": (0,), "security": (150,)}
AFTER_ROUTING = ("postrouting", "input")
HOOKS_IN_ORDER = ("prerouting", "input", "forward", "output", "postrouting")  # as a packet may meet them


@pytest.mark.needs(proxy="iptables")
def test_tables_and_their_hooks(lab: Snapshot, claim: Claim) -> None:
    """Each table has built-in chains at certain hooks only: nat has no FORWARD, filter no PREROUTING."""
    for node in lab.nodes:
        claim.require({"filter", "nat"} <= set(node[IPTABLES].tables), f"{node.name} has no filter or no nat table")
        for table in node[IPTABLES].tables:
            found = {name for name, chain in node[IPTABLES].chains(table).items() if chain.policy}
            claim.require(
                found == set(BUILT_IN[table]), f"{table} on {node.name} has the built-in chains {listed(found)}"
            )
        for table, chains in BUILT_IN.items():  # a table that nobody has used is not there: tried in a namespace
            made = [chain.hook.upper() for chain in node[IPTABLES_HOOK_ORDER] if chain.table == table]
            claim.require(
                sorted(made) == sorted(chains),
                f"{table}, where all its chains are used, is called at {listed(made)} on {node.name}",
                *node[IPTABLES_HOOK_ORDER],
            )
    claim.saw(listed(f"{table} has {', '.join(chains)}" for table, chains in BUILT_IN.items()))


@pytest.mark.needs(proxy="iptables")
@pytest.mark.rests_on("tables_and_their_hooks")
def test_tables_are_called_in_their_order(lab: Snapshot, claim: Claim) -> None:
    """At a hook the kernel calls the tables in the order raw, mangle, nat (DNAT), filter, nat (SNAT), security."""
    orders: dict[str, list[str]] = {}
    for node in lab.nodes:
        called = [chain for chain in node[BASE_CHAINS] if chain.family == "ip" and chain.table in PRIORITIES]
        claim.require(called, f"no table is called at any hook of {node.name}")
        for chain in (*called, *node[IPTABLES_HOOK_ORDER]):
            wanted = PRIORITIES[chain.table][-1 if chain.hook in AFTER_ROUTING else 0]
            claim.require(
                chain.priority == wanted,
                f"{chain} on {node.name} is called at {chain.priority}, not at {wanted}",
                *called,
            )
        by_hook = sorted(node[IPTABLES_HOOK_ORDER], key=lambda chain: chain.priority)
        orders = {hook: [chain.table for chain in by_hook if chain.hook == hook] for hook in HOOKS_IN_ORDER}
    claim.saw("; ".join(f"{hook}: {', '.join(tables)}" for hook, tables in orders.items() if tables))


@pytest.mark.needs(proxy="iptables")
@pytest.mark.rests_on("tables_and_their_hooks")
@pytest.mark.remedy("ssh {node} sudo iptables-save -t nat", mends=RESTART_KUBE_PROXY)
def test_kube_proxy_hooks_in_its_chains(lab: Snapshot, claim: Claim) -> None:
    """kube-proxy has chains of its own, reached from PREROUTING, OUTPUT, POSTROUTING and FORWARD."""
    for node in lab.nodes:
        for table, names in iptables_mode.CHAINS.items():
            for name in names:
                claim.require(name in node[IPTABLES].chains(table), f"{node.name} has no chain {name} in {table}")
        for table, hook, chain in iptables_mode.HOOKS:
            rules = node[IPTABLES].rules(table, hook)
            claim.require(
                any(rule.target == chain for rule in rules),
                f"{hook} of {table} on {node.name} never calls {chain}",
                *rules,
            )
    claim.saw(listed(f"{hook} of {table} calls {chain}" for table, hook, chain in iptables_mode.HOOKS))


@pytest.mark.needs(proxy="nftables")
@pytest.mark.remedy("ssh {node} sudo nft list table ip kube-proxy", mends=RESTART_KUBE_PROXY)
def test_kube_proxys_table_is_called_by_the_kernel(lab: Snapshot, claim: Claim) -> None:
    """kube-proxy's table has base chains of its own, which the kernel calls at its hooks beside those of iptables."""
    for node in lab.nodes:
        table = nftables_mode.table(node)
        found = {chain.name: chain for chain in table.chains.values() if chain.hook}
        for wanted in nftables_mode.BASE_CHAINS:
            chain = found.pop(wanted.name, None)
            claim.require(
                chain and (chain.kind, chain.hook, chain.priority) == (wanted.kind, wanted.hook, wanted.priority),
                f"{node.name} has no chain `{wanted}`",
                *table.chains,
            )
            assert chain
            called = [
                expression.chain
                for rule in chain.rules
                for expression in rule.expressions
                if isinstance(expression, Verdict)
            ]
            claim.require(
                set(wanted.calls) <= set(called),
                f"{chain.name} on {node.name} calls {listed(called)}, not {listed(wanted.calls)}",
                *chain.rules,
            )
        claim.require(not found, f"{listed(found)} of {node.name} is called by the kernel too, nobody knows what for")
    claim.saw(listed(nftables_mode.BASE_CHAINS))


@pytest.mark.needs(proxy="nftables")
@pytest.mark.rests_on("kube_proxys_table_is_called_by_the_kernel")
@pytest.mark.remedy("ssh {node} sudo nft list table ip kube-proxy", mends=RESTART_KUBE_PROXY)
def test_a_service_is_found_in_a_map(lab: Snapshot, claim: Claim) -> None:
    """Services are elements of a map: one lookup of address, protocol and port leads to the service's chain."""
    services = [service for service in proxy.expectations(lab) if service.endpoints]
    for node in lab.nodes:
        sets = nftables_mode.table(node).sets
        for service in (service for service in services if service.on(node.name).endpoints):
            for name, key, chain in (
                (nftables_mode.BY_ADDRESS, (service.cluster_ip, service.protocol, service.port), service.chain),
                (nftables_mode.BY_NODE_PORT, (service.protocol, service.node_port), service.external_chain),
            ):
                element = sets[name].find(*key) if name in sets else None
                claim.require(
                    (name == nftables_mode.BY_NODE_PORT and not service.node_port)
                    or (element and element.value == Verdict("goto", chain)),
                    f"{name} on {node.name} does not lead {' . '.join(map(str, key))} to {chain}",
                    *(sets[name].elements if name in sets else ()),
                )
    example = sets[nftables_mode.BY_ADDRESS].find(services[-1].cluster_ip, services[-1].protocol, services[-1].port)
    claim.saw(
        f"{nftables_mode.BY_ADDRESS} has {counted(len(sets[nftables_mode.BY_ADDRESS].elements), 'element')}, "
        f"for one `{example}`"
    )


@pytest.mark.needs(proxy="nftables")
@pytest.mark.rests_on("kube_proxys_table_is_called_by_the_kernel")
@pytest.mark.remedy("ssh {node} sudo nft list table ip kube-proxy", mends=RESTART_KUBE_PROXY)
def test_one_rule_draws_one_of_the_endpoints(lab: Snapshot, claim: Claim) -> None:
    """A service's chain is one rule: it looks a random number (numgen random) up in a map of the endpoints."""
    seen = []
    for node in lab.nodes:
        for service in (service.on(node.name) for service in proxy.expectations(lab)):
            if len(service.endpoints) < 2 or service.affinity:
                continue
            rules = nftables_mode.rules(node, service.chain)
            nat = [
                expression
                for rule in rules
                for expression in getattr(rule, "expressions", ())
                if isinstance(expression, Nat)
            ]
            wanted = f"numgen random mod {len(service.endpoints)}"
            claim.require(
                len(rules) == 1 and nat and nat[0].chosen and nat[0].chosen.key == (wanted,),
                f"{service.chain} on {node.name} does not choose by `{wanted}`",
                *rules,
            )
            seen.append(f"{service}: `{rules[0]}`")
    claim.saw(seen[-1] if seen else "no service has more than one endpoint: none is chosen")


@pytest.mark.needs(proxy="nftables")
def test_iptables_knows_no_service(lab: Snapshot, claim: Claim) -> None:
    """In nftables mode no iptables chain handles services: the chains that exist belong to the kubelet or the CNI."""
    chains = 0
    for node in lab.nodes:
        for table in node[IPTABLES].tables:
            names = node[IPTABLES].chains(table)
            found = [name for name in names if name.startswith(iptables_mode.OF_SERVICES)]
            claim.require(not found, f"{table} of iptables on {node.name} has {listed(found)}")
            chains += len(names)
    claim.saw(f"none among {counted(chains, 'chain')}")
