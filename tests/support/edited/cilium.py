"""The imaginary lab with Cilium, with one thing broken at a time."""

from __future__ import annotations

import json
from collections.abc import Callable

from hoplab.observe.snapshot import Snapshot
from tests.support import edits
from tests.support.edits import Edit, Fault, changed, without
from tests.support.imaginary import cilium
from tests.support.recordings import recording

LABS = {backend: cilium.lab(backend) for backend in ("vxlan", "native")}
VXLAN, NATIVE = LABS.values()
ALONE = recording("cilium-native-cilium")  # without kube-proxy
FIRST, SECOND = VXLAN.nodes[:2]
POD = next(pod for pod in VXLAN.pods_on(FIRST) if pod.api.label("app") == "echo")
FAR = next(pod for pod in VXLAN.pods_on(SECOND) if pod.api.label("app") == "echo")
HOST_END = POD.host_end.name if POD.host_end else ""
DNS = f"{VXLAN.setting.dns_ip}:53/UDP"


def on_node(fact: str, edit: Edit, lab: Snapshot = VXLAN) -> Snapshot:
    return edits.on_node(fact, edit, lab, FIRST.name)


def detached(dev: str, lab: Snapshot = VXLAN) -> Callable[[], Snapshot]:
    """The lab without programs at an interface."""

    def edit(text: str) -> str:
        (found,) = json.loads(text)
        return json.dumps([{**found, "tc": [entry for entry in found["tc"] if entry["devname"] != dev]}])

    return lambda: on_node("bpf_programs", edit, lab)


def in_map(
    fact: str, key: str, change: Callable[[list[str]], list[str]] | None = None, lab: Snapshot = VXLAN
) -> Callable[[], Snapshot]:
    """The lab with one entry of a map gone or changed."""

    def edit(text: str) -> str:
        found = json.loads(text)
        entry = found.pop(key)
        return json.dumps({**found, key: change(entry)} if change else found)

    return lambda: on_node(fact, edit, lab)


def replaced(old: str, new: str) -> Callable[[list[str]], list[str]]:
    return lambda entry: [value.replace(old, new) for value in entry]


PROGRAMS, SERVICES = "a_program_takes_what_a_pod_sends", "a_map_leads_a_service_to_its_endpoints"
ENDPOINTS, ADDRESSES = "a_map_knows_the_pods_of_its_node", "a_map_knows_whose_an_address_is"
NOTHING_LEFT = "no_rule_of_kube_proxy_is_left"

FAULTS = (
    Fault(
        "a pod's program is detached", detached(HOST_END), (PROGRAMS,), f"ingress of {HOST_END}, which is the end of"
    ),
    Fault(
        "a pod's pair has no end on the node",
        lambda: on_node("links", without(ifname=HOST_END)),
        (PROGRAMS,),
        f"the node's end of the pair of {POD} is missing",
        exactly=False,
    ),
    Fault(
        "what wraps has no program",
        detached("cilium_vxlan"),
        (PROGRAMS,),
        f"{FIRST.name} has no program cil_from_overlay at ingress of cilium_vxlan",
    ),
    Fault(
        "a service is not in the map",
        in_map("cilium_services", f"{DNS} (0)"),
        (SERVICES,),
        f"the map of services on {FIRST.name} lacks kube-system/kube-dns:dns",
    ),
    Fault(
        "a pod is not behind its service in the map",
        in_map("cilium_services", f"{DNS} (1)"),
        (SERVICES,),
        f"on {FIRST.name} the map leads kube-system/kube-dns:dns",
    ),
    Fault(
        "a service leads to a pod that is gone",
        in_map("cilium_services", f"{DNS} (1)", lambda _: ["backend 7 not found"]),
        (SERVICES,),
        "nowhere",
    ),
    Fault(
        "a pod is not in its node's map",
        in_map("cilium_endpoints", f"{POD.address}:0"),
        (ENDPOINTS,),
        f"the map of {FIRST.name} has no {POD.address} of {POD}",
    ),
    Fault(
        "a pod is at another interface in the map",
        in_map("cilium_endpoints", f"{POD.address}:0", replaced("ifindex=", "ifindex=9")),
        (ENDPOINTS,),
        f"the map of {FIRST.name} has {POD.address} of {POD} at interface 9",
    ),
    Fault(
        "nobody is said to have a pod's address",
        in_map("cilium_ipcache", f"{FAR.address}/32"),
        (ADDRESSES,),
        f"the map of {FIRST.name} has no {FAR.address} of {FAR}",
    ),
    Fault(
        "a pod is behind a wrong node in the map",
        in_map("cilium_ipcache", f"{FAR.address}/32", replaced(str(SECOND.address), "192.168.77.99")),
        (ADDRESSES,),
        f"of {FAR} behind 192.168.77.99, not {SECOND.address}",
    ),
    Fault(
        "a pod has no identity",
        in_map("cilium_ipcache", f"{POD.address}/32", replaced("identity=6000", "identity=0")),
        (ADDRESSES,),
        f"gives {POD.address} of {POD} no identity",
    ),
    Fault(
        "a pod's route has room for no encapsulation",
        lambda: edits.in_pod("routes", changed({"dst": "default"}, metrics=[]), VXLAN, POD),
        ("encapsulation_leaves_room_in_the_mtu",),
        f"the default route of {POD} on {FIRST.name} has the MTU 1500, not 1450",
    ),
    Fault(
        "the route to another node's pods is gone",
        lambda: on_node("routes", without(dst=str(SECOND.pod_cidr)), NATIVE),
        ("a_node_routes_every_other_range_to_its_node",),
        f"{FIRST.name} has no route {SECOND.pod_cidr} via {SECOND.address} dev eth0 proto kernel",
        exactly=False,
    ),
    Fault(
        "a chain of kube-proxy is left",
        lambda: on_node("iptables", lambda text: text.replace("*nat\n", "*nat\n:KUBE-SVC-LEFT - [0:0]\n"), ALONE),
        (NOTHING_LEFT,),
        f"{ALONE.nodes[0].name} has chains of kube-proxy: KUBE-SVC-LEFT",
    ),
    Fault(
        "a NodePort is in no map",
        in_map("cilium_services", f"{ALONE.nodes[0].address}:30080/TCP (0)", lab=ALONE),
        (NOTHING_LEFT,),
        f"the map of services on {ALONE.nodes[0].name} lacks port 30080 of {ALONE.nodes[0].address}",
    ),
)
