"""Faults of labs with Cilium: its programs and the entries of its maps, by the tools in the agent's container."""

from __future__ import annotations

from hoplab.observe.facts import _cilium
from tests.system.faults.commands import on_node
from tests.system.faults.fault import CILIUM, Broken, Fault

MAPS = "/sys/fs/bpf/tc/globals/"
PORT = "0x1f 0x90"  # 8080, of the pods of the verification workload


def by_agents_tools(broken: str, repaired: str) -> Broken:
    """``agent COMMAND`` runs a program where the agent runs, which stands still."""
    # a function in parentheses: braces are for what commands are filled in with
    agent = f'agent() ( {_cilium.ENTER} "$@"; ); '
    return on_node(agent + broken, agent + repaired)


def taken_out(name: str, part: str, more: str = "") -> Broken:
    """The entry of a map that has the pod's address at the beginning of its ``part``, "key" or "value"."""
    bytes_ = 4 + len(more.split())
    return by_agents_tools(
        f"wanted=$(printf '0x%02x ' $(echo {{pod_address}} | tr . ' '))'{more}'; "
        f'agent bpftool -j map dump pinned {MAPS}{name} | jq -r --arg wanted "$wanted" '
        f'\'.[] | select((.{part}[:{bytes_}] | join(" ")) == ($wanted | rtrimstr(" "))) | '
        '"key hex \\(.key | join(" ")) value hex \\(.value | join(" "))"\' >$saved; test -s $saved; '
        f"agent bpftool map delete pinned {MAPS}{name} $(sed 's/ value.*//' $saved)",
        f"agent bpftool map update pinned {MAPS}{name} $(cat $saved); rm $saved",
    )


FAULTS = (
    Fault(
        "a pod's program is detached",
        by_agents_tools(
            'agent bpftool -j net show dev {host_end} | jq -r \'.[0].tc[] | select(.kind == "tcx/ingress") | '
            '"\\(.link_id) \\(.prog_id)"\' >$saved; read -r link program <$saved; agent bpftool link detach id $link',
            "read -r link program <$saved; agent bpftool net attach tcx_ingress id $program dev {host_end}; rm $saved",
        ),
        ("a_program_takes_what_a_pod_sends",),
        "{node} has no program cil_from_container at ingress of {host_end}",
        needs=CILIUM,
    ),
    Fault(
        "nobody is said to have another node's pod's address",
        by_agents_tools(
            "agent cilium-dbg bpf ipcache list -o json | jq -r '.\"{other_pod}/32\"[0]' >$saved; "
            "agent cilium-dbg bpf ipcache delete {other_pod}/32",
            "agent cilium-dbg bpf ipcache update {other_pod}/32 --tunnelendpoint {other_address} "
            "--identity $(sed 's/identity=\\([0-9]*\\).*/\\1/' $saved); rm $saved",
        ),
        ("a_map_knows_whose_an_address_is",),
        "the map of {node} has no {other_pod} of",
        needs={**CILIUM, "backend": "vxlan"},
    ),
    Fault(
        "a backend is taken out of the map",
        taken_out("cilium_lb4_backends_v3", "value", PORT),
        ("a_map_leads_a_service_to_its_endpoints",),
        "on {node} the map leads hoplab-verify/",
        needs=CILIUM,
    ),
    Fault(
        "a pod is taken out of its node's map",
        taken_out("cilium_lxc", "key"),
        ("a_map_knows_the_pods_of_its_node",),
        "the map of {node} has no {pod_address} of {pod}",
        needs=CILIUM,
    ),
    Fault(
        "a chain of kube-proxy is left",
        on_node("iptables -t nat -N KUBE-SVC-LEFT", "iptables -t nat -X KUBE-SVC-LEFT"),
        ("no_rule_of_kube_proxy_is_left",),
        "{node} has chains of kube-proxy: KUBE-SVC-LEFT",
        needs={**CILIUM, "proxy": "cilium"},
    ),
)
