"""A recording of a lab whose kube-proxy is in nftables mode, with one thing broken at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hoplab.expectations import proxy
from hoplab.observe.snapshot import Snapshot
from tests.support.edits import Fault, in_api, objects_without, on_node
from tests.support.recordings import recording

HEALTHY = recording("flannel-vxlan-nftables")
FIRST = HEALTHY.nodes[0]
SERVICES = {expected.service: expected for expected in proxy.expectations(HEALTHY)}
ECHO, NOBODY, STICKY, SINGLE, LOCAL = (
    SERVICES[f"hoplab-verify/{name}"] for name in ("echo", "nobody", "sticky", "single", "single-local")
)
HOME = LOCAL.endpoints[0].node
AWAY = next(node.name for node in HEALTHY.nodes if node.name != HOME)
ADDRESS = str(ECHO.cluster_ip)

LEADS = "a_service_leads_to_its_endpoints"
SHARE = "every_endpoint_gets_the_same_share"
MARKED = "marked_packets_are_masked"
TABLE = "kube_proxys_table_is_called_by_the_kernel"
MAP = "a_service_is_found_in_a_map"
DRAWN = "one_rule_draws_one_of_the_endpoints"
LAST = "node_ports_come_last"
STAYS = "a_local_service_stays_on_its_node"
KEEPS = "a_sticky_service_remembers_its_clients"
KNOWN = "only_rules_know_a_cluster_ip"
REJECTS = "a_service_without_endpoints_rejects"
IN_IPTABLES = "iptables_knows_no_service"

Object = dict[str, Any]
Change = Callable[[str, Object], Object | None]  # of an object of a kind: None takes it out


def table(change: Change, node: str = FIRST.name, *more: Object) -> Snapshot:
    """The lab with the objects of kube-proxy's table on a node changed: chains, rules, sets and maps."""

    def edit(text: str) -> str:
        line = next(line for line in text.splitlines() if line.startswith("{"))
        changed = [
            {kind: kept}
            for item in json.loads(line)["nftables"]
            for kind, found in item.items()
            if (kept := change(kind, found)) is not None
        ]
        return json.dumps({"nftables": [*changed, *more]})

    return on_node("nftables", edit, HEALTHY, node)


def without(kind: str, word: str = "", **wanted: Any) -> Change:
    """Objects of a kind with these values, and a word somewhere in them, go."""

    def change(found: str, item: Object) -> Object | None:
        hit = found == kind and all(item.get(key) == value for key, value in wanted.items())
        return None if hit and word in json.dumps(item) else item

    return change


def changed(kind: str, to: Callable[[Object], Object], **wanted: Any) -> Change:
    """Objects of a kind with these values become others."""

    def change(found: str, item: Object) -> Object:
        hit = found == kind and all(item.get(key) == value for key, value in wanted.items())
        return {**item, **to(item)} if hit else item

    return change


def emptied(name: str, word: str = "") -> Change:
    """Elements of a set or map go, those with a word in them."""

    def change(found: str, item: Object) -> Object:
        if found not in ("set", "map") or item["name"] != name:
            return item
        return {**item, "elem": [element for element in item["elem"] if word not in json.dumps(element)]}

    return change


def more(**items: Object) -> Snapshot:
    """The lab with more objects in kube-proxy's table, one of each kind."""
    own = {"family": "ip", "table": "kube-proxy"}
    return table(lambda _kind, item: item, FIRST.name, *({kind: {**own, **item}} for kind, item in items.items()))


def drawn(modulus: int) -> Callable[[Object], Object]:
    """Lots are drawn among another number."""
    return lambda rule: dict(json.loads(json.dumps(rule).replace('"mod": 2', f'"mod": {modulus}')))


def only(word: str) -> Callable[[Object], Object]:
    """A rule without the expressions that have a word in them."""
    return lambda rule: {"expr": [expression for expression in rule["expr"] if word not in expression]}


NOT_TWO: Object = {
    "first": DRAWN,
    "first_says": f"{ECHO.chain} on {FIRST.name} does not choose by `numgen random mod 2`",
}

FAULTS = (
    Fault(
        "the kernel does not call kube-proxy's table before routing",
        lambda: table(without("chain", name="nat-prerouting"), HOME),
        (TABLE, LEADS, SHARE, MARKED, LAST, STAYS, KEEPS),
        f"{HOME} has no chain `nat-prerouting {{ type nat hook prerouting priority -100 }}`",
        exactly=False,
    ),
    Fault(
        "a base chain is called too late",
        lambda: table(changed("chain", lambda _chain: {"prio": 200}, name="nat-postrouting")),
        (TABLE,),
        "has no chain `nat-postrouting { type nat hook postrouting priority 100 }`",
    ),
    Fault(
        "a base chain calls nothing",
        lambda: table(without("rule", chain="nat-output")),
        (TABLE,),
        f"nat-output on {FIRST.name} calls nothing, not services",
    ),
    Fault(
        "the kernel calls one chain more",
        lambda: more(chain={"name": "stray", "type": "filter", "hook": "input", "prio": -5, "policy": "accept"}),
        (TABLE,),
        f"stray of {FIRST.name} is called by the kernel too",
    ),
    Fault(
        "a service is in no map",
        lambda: table(emptied("service-ips", ADDRESS)),
        (MAP, LEADS, SHARE, KNOWN),
        f"service-ips on {FIRST.name} does not lead {ADDRESS} . tcp . 80 to {ECHO.chain}",
    ),
    Fault(
        "a NodePort is in no map",
        lambda: table(emptied("service-nodeports", "30080")),
        (MAP, LAST),
        "service-nodeports on",
    ),
    Fault(
        "a number that nobody has is drawn too",
        lambda: table(changed("rule", drawn(3), chain=ECHO.chain)),
        (LEADS, SHARE, DRAWN),
        f"on {FIRST.name} {ECHO} may also lead nowhere",
        **NOT_TWO,
    ),
    Fault(
        "an endpoint gets no connections",
        lambda: table(changed("rule", drawn(1), chain=ECHO.chain)),
        (SHARE, LEADS, DRAWN),
        f"the shares of {ECHO} are 1.00 for",
        **NOT_TWO,
    ),
    Fault(
        "a service's chain draws among another number",
        lambda: table(changed("rule", drawn(4), chain=ECHO.chain)),
        (DRAWN, LEADS, SHARE),
        f"{ECHO.chain} on {FIRST.name} does not choose by `numgen random mod 2`",
    ),
    Fault(
        "what comes from outside of the pod range is not marked",
        lambda: table(without("rule", "@cluster-ips", chain="services")),
        (MARKED,),
        "is not marked",
    ),
    Fault(
        "nothing is masked",
        lambda: table(without("rule", chain="masquerading")),
        (MARKED,),
        "not masquerading",
    ),
    Fault(
        "the mark is not taken off",
        lambda: table(changed("rule", only("mangle"), chain="masquerading")),
        (MARKED,),
        "the mark 0x4000 stays on the packet",
    ),
    Fault(
        "NodePorts are not looked up",
        lambda: table(without("rule", "@service-nodeports", chain="services")),
        (LAST,),
        "is not for the node's own addresses",
        exactly=False,
    ),
    Fault(
        "what comes to a NodePort is not marked",
        lambda: table(without("rule", "mangle", chain=SINGLE.external_chain)),
        (LAST,),
        "what comes to port 30080 is not marked",
    ),
    Fault(
        "a node without a pod of a Local service does not drop",
        lambda: table(emptied("no-endpoint-nodeports"), AWAY),
        (STAYS,),
        f"{AWAY}, without a pod of {LOCAL}, ends port 30081 in ACCEPT",
    ),
    Fault(
        "a Local service leaves its node",
        lambda: on_node(
            "nftables", lambda text: text.replace(LOCAL.external_chain, SINGLE.external_chain), HEALTHY, AWAY
        ),
        (STAYS,),
        f"on {AWAY} port 30081 leads to",
        exactly=False,
        first=MAP,
        first_says=f"service-nodeports on {AWAY} does not lead tcp . 30081 to {LOCAL.external_chain}",
    ),
    Fault(
        "a Local service masks its clients",
        lambda: table(
            changed("rule", only("match"), chain=LOCAL.external_chain, comment="masquerade local traffic"), HOME
        ),
        (STAYS,),
        f"on {HOME} what comes to port 30081 is marked",
    ),
    Fault(
        "clients are forgotten at once",
        lambda: on_node("nftables", lambda text: text.replace('"timeout": 10800', '"timeout": 1'), HEALTHY),
        (KEEPS,),
        f"{STICKY} keeps clients by",
    ),
    Fault(
        "lots are drawn before anybody remembers a client",
        lambda: table(without("rule", "@affinity-", chain=STICKY.chain)),
        (KEEPS,),
        f"{STICKY} keeps clients by nothing",
    ),
    Fault(
        "no service has session affinity",
        lambda: in_api("services", lambda text: text.replace('"timeoutSeconds":10800', '"timeoutSeconds":0'), HEALTHY),
        (KEEPS,),
        "no service has session affinity",
        exactly=False,
    ),
    Fault(
        "no service has the external policy Local",
        lambda: in_api("services", lambda text: text.replace('"Local"', '"Cluster"'), HEALTHY),
        (STAYS,),
        "no service has the external policy Local",
        exactly=False,
    ),
    Fault(
        "a service without endpoints is in no map",
        lambda: table(emptied("no-endpoint-services")),
        (KNOWN,),  # it is refused all the same, as every wrong port of a ClusterIP
        f"the rules of {FIRST.name} lack {NOBODY.cluster_ip}",
    ),
    Fault(
        "a service without endpoints is not rejected",
        lambda: table(without("rule", chain="filter-forward")),
        (REJECTS, TABLE),
        f"forward on {FIRST.name} ends in ACCEPT",
        first=TABLE,
        first_says=f"filter-forward on {FIRST.name} calls nothing",
    ),
    Fault(
        "every service has endpoints",
        lambda: in_api("services", lambda text: objects_without(text, "nobody"), HEALTHY),
        (REJECTS,),
        "every service has endpoints",
    ),
    Fault(
        "a service without endpoints has a chain",
        lambda: more(chain={"name": NOBODY.chain}, rule={"chain": NOBODY.chain, "expr": [{"drop": None}]}),
        (REJECTS,),
        f"has rules in {NOBODY.chain}",
    ),
    Fault(
        "a node does not know a ClusterIP",
        lambda: table(emptied("cluster-ips", ADDRESS)),
        (KNOWN, MARKED),
        f"the rules of {FIRST.name} lack {ADDRESS}",
    ),
    Fault(
        "kube-proxy left rules of its other mode",
        lambda: on_node(
            "iptables",
            lambda text: text.replace("*nat\n", "*nat\n:KUBE-SVC-NPX46M4PTMTKRN6Y - [0:0]\n"),
            HEALTHY,
            FIRST.name,
        ),
        (IN_IPTABLES,),
        f"nat of iptables on {FIRST.name} has KUBE-SVC-NPX46M4PTMTKRN6Y",
    ),
)
