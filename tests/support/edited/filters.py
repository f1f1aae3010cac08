"""The usual lab with one rule more, in a table that some program keeps: what drops packets on the way.

The rules are from public reports; the project and number of each is beside it. No recording has the facts yet that list
these tables, so they are added here, with what a healthy node prints: nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hoplab.observe.facts import Facts
from hoplab.observe.facts.iptables_legacy import IPTABLES_LEGACY
from hoplab.observe.facts.nft_ruleset import NFT_RULESET
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from tests.support import edits
from tests.support.edits import FIRST, SECOND, Edit, Fault


def with_all_tables(lab: Snapshot) -> Snapshot:
    """A lab with the facts of all tables: of nftables those of its parts, of iptables-legacy none."""

    def more(node: str, facts: Facts) -> Facts:
        added = {NFT_RULESET.name: facts.outputs["nftables"], IPTABLES_LEGACY.name: Output(0, "")}
        return Facts(node, {**facts.outputs, **added})

    return replace(lab, node_facts={node: more(node, facts) for node, facts in lab.node_facts.items()})


HEALTHY = with_all_tables(edits.HEALTHY)
ON_ONE_NODE = "nothing_on_the_way_drops_it_on_one_node"
BETWEEN_NODES = "nothing_on_the_way_drops_it_between_nodes"
TO_THE_NODE = "nothing_drops_what_a_pod_sends_to_its_node"
TO_OUTSIDE = "nothing_drops_what_a_pod_sends_to_the_outside"
TO_SERVICE = "nothing_drops_what_a_node_sends_to_a_service"
BY_NODE_PORT = "nothing_drops_what_comes_in_by_a_node_port"
BY_BALANCER = "nothing_drops_what_comes_in_by_a_load_balancer"
TO_KUBELETS = "nothing_drops_what_the_api_server_sends_to_kubelets"
THROUGH_SERVICES = (TO_SERVICE, BY_NODE_PORT, BY_BALANCER)  # these cross to pods of the other node too
ALL_RULES = "one_iptables_lists_all_rules"
PODS = HEALTHY.setting.pod_cidr


def on_node(fact: str, edit: Edit, node: str = FIRST.name) -> Callable[[], Snapshot]:
    return lambda: edits.on_node(fact, edit, HEALTHY, node)


def inserted(table: str, chain: str, rule: str) -> Edit:
    """A rule at the beginning of a chain, as `iptables -I` puts it there."""

    def edit(text: str) -> str:
        before, star, after = text.partition(f"*{table}\n")
        first = next((line for line in after.splitlines() if line.startswith("[") or line == "COMMIT"), "COMMIT")
        return f"{before}{star}{after.replace(first, f'[0:0] -A {chain} {rule}{chr(10)}{first}', 1)}"

    return edit


def policy_is_drop(table: str) -> Edit:
    """FORWARD of a table drops what none of its rules accepts."""
    return lambda text: re.sub(rf"(\*{table}\n(?:[^*]*\n)?:FORWARD) ACCEPT", r"\1 DROP", text)


def legacy(*rules: str) -> Edit:
    """Tables of iptables-legacy, as it prints them."""
    lines = ["*filter", ":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"]
    return lambda _: "\n".join([*lines, *(f"[0:0] -A {rule}" for rule in rules), "COMMIT", ""])


def nft_table(family: str, name: str, chain: dict[str, Any], *rules: list[dict[str, Any]]) -> Edit:
    """A table of nftables with one base chain."""
    own = {"family": family, "table": name}
    objects: list[dict[str, Any]] = [{"table": {"family": family, "name": name}}, {"chain": {**own, **chain}}]
    objects += [{"rule": {**own, "chain": chain["name"], "expr": rule}} for rule in rules]
    return lambda text: f"{text}\n{json.dumps({'nftables': objects})}\n"


REJECT: dict[str, Any] = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
FORWARD = {"name": "filter_FORWARD", "type": "filter", "hook": "forward", "prio": 10, "policy": "accept"}
SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}


def dropped(rule: str, where: str, node: str) -> str:
    return f"`{rule}` in {where}, of {node} drops"


def fault(
    name: str, rule: str, caught_by: tuple[str, ...], what: str = "", node: str = FIRST.name, table: str = "filter"
) -> Fault:
    """A rule that drops: "INPUT -p udp ..."."""
    chain, _, rest = rule.partition(" ")
    says = dropped(f"-A {rule}", f"iptables {table}, chain {chain}", node) + what
    return Fault(name, on_node("iptables", inserted(table, chain, rest), node), caught_by, says)


FAULTS = (
    fault(  # flannel 1704
        "the port of VXLAN is blocked",
        "INPUT -p udp -m udp --dport 8472 -j DROP",
        (BETWEEN_NODES, *THROUGH_SERVICES),
        f" VXLAN, udp {FIRST.address} to {SECOND.address}:8472",
        SECOND.name,
    ),
    fault(
        "a node may not send VXLAN",
        "OUTPUT -o eth0 -p udp -m udp --dport 8472 -j DROP",
        (BETWEEN_NODES, *THROUGH_SERVICES),
        f" VXLAN, udp {FIRST.address} to {SECOND.address}:8472",
    ),
    fault(  # flannel 699, 609
        "FORWARD drops what pods send to pods",
        f"FORWARD -s {PODS} -d {PODS} -j DROP",
        (ON_ONE_NODE, BETWEEN_NODES, *THROUGH_SERVICES),
    ),
    fault(
        "replies between pods of a node are dropped",
        f"FORWARD -s {FIRST.pod_cidr} -d {FIRST.pod_cidr} -m conntrack --ctstate ESTABLISHED -j DROP",
        (ON_ONE_NODE,),
        " a reply, tcp",
    ),
    Fault(  # kubernetes 108718: Docker does that in filter, where flannel's own rules accept what pods send
        "a policy is DROP where no rule accepts",
        on_node("iptables", policy_is_drop("mangle"), SECOND.name),
        (ON_ONE_NODE, BETWEEN_NODES, TO_OUTSIDE, *THROUGH_SERVICES),
        dropped("policy DROP", "iptables mangle, chain FORWARD", SECOND.name),
    ),
    Fault(  # kubernetes 109811
        "a rule of iptables-legacy drops what pods send",
        on_node("iptables_legacy", legacy(f"FORWARD -s {PODS} -j DROP")),
        (ALL_RULES, ON_ONE_NODE, BETWEEN_NODES, TO_OUTSIDE, *THROUGH_SERVICES),
        f"{FIRST.name} also has iptables-legacy tables with 1 rule",
        first=ON_ONE_NODE,
        first_says=dropped(f"-A FORWARD -s {PODS} -j DROP", "iptables-legacy filter, chain FORWARD", FIRST.name),
    ),
    Fault(  # flannel 2055
        "a firewall's own table rejects what it does not know",
        on_node("nft_ruleset", nft_table("inet", "firewalld", FORWARD, [REJECT])),
        (ON_ONE_NODE, BETWEEN_NODES, TO_OUTSIDE, *THROUGH_SERVICES),
        dropped("reject with icmpx admin-prohibited", "nftables inet firewalld, chain filter_FORWARD", FIRST.name),
    ),
    Fault(
        "a rule of the bridge drops what a pod sends",
        on_node(
            "nft_ruleset",
            nft_table(
                "bridge",
                "own",
                {**FORWARD, "prio": 0},
                [{"match": {"op": "==", "left": SADDR, "right": str(edits.POD.address)}}, {"drop": None}],
            ),
        ),
        (ON_ONE_NODE,),
        dropped(f"ip saddr {edits.POD.address} drop", "nftables bridge own, chain filter_FORWARD", FIRST.name),
    ),
    fault(  # flannel 2116
        "pods do not reach their own node",
        "INPUT -i cni0 -m conntrack --ctstate NEW -j DROP",
        (TO_THE_NODE,),
        " tcp 10.244.",
    ),
    fault(
        "new connections of pods to the outside are dropped",
        f"FORWARD -s {PODS} -o eth0 -m conntrack --ctstate NEW -j DROP",
        (TO_OUTSIDE,),
        " tcp 10.244.",
    ),
    fault(
        "replies from outside are dropped before they are for a pod again",
        f"PREROUTING -s {HEALTHY.setting.gateway}/32 -d {FIRST.address}/32 -p tcp -m tcp --sport 80 -j DROP",
        (TO_OUTSIDE,),
        " a reply, tcp",
        table="mangle",
    ),
    fault(
        "a node may not send to services",
        f"OUTPUT -d {HEALTHY.setting.service_cidr} -j DROP",
        (TO_SERVICE,),
        f" tcp {FIRST.address} to 10.",
        table="mangle",
    ),
    fault(
        "NodePorts are closed",
        "PREROUTING -i eth0 -p tcp -m tcp --dport 30000:32767 -j DROP",
        (BY_NODE_PORT,),
        f" tcp {HEALTHY.setting.gateway} to {FIRST.address}:30080",
        table="mangle",
    ),
    fault(
        "the address of a load balancer is blocked",
        "PREROUTING -d 203.0.113.80/32 -j DROP",
        (BY_BALANCER,),
        f" tcp {HEALTHY.setting.gateway} to 203.0.113.80:80",
        table="mangle",
    ),
    fault(
        "replies for what a node masked are dropped at its tunnel",
        f"PREROUTING -i flannel.1 -d {FIRST.pod_cidr[0]}/32 -j DROP",
        (TO_SERVICE, BY_BALANCER),  # the pod behind the NodePort is on this node
        " a reply, tcp",
        table="mangle",
    ),
    fault(
        "the port of the kubelet is closed",
        "INPUT -i eth0 -p tcp -m tcp --dport 10250 -j DROP",
        (TO_KUBELETS,),
        f" tcp {HEALTHY.setting.gateway} to {FIRST.address}:10250",
    ),
    Fault(  # kubernetes 94754
        "a rule is of another version of iptables",
        on_node("iptables", inserted("mangle", "KUBE-PROXY-CANARY", "-m conntrack [unsupported revision] -j RETURN")),
        (ALL_RULES,),
        f"a rule of mangle on {FIRST.name} was written by another version of iptables",
    ),
    Fault(  # kilo 402
        "iptables cannot list a table",
        on_node("iptables", lambda text: f"{text}# Table `raw' is incompatible, use 'nft' tool.\n"),
        (ALL_RULES,),
        f"iptables on {FIRST.name} cannot list its table raw, which only `nft` can",
    ),
)
