"""A recording of the usual lab with the facts about DNS, which it is too old to have, and with a fault in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hoplab.observe.facts import Facts
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Pod, Snapshot
from tests.support.edits import HEALTHY, Fault, api_item, in_api

COREFILE = """\
.:53 {
    errors
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
    }
    forward . /etc/resolv.conf {  # the node's
       max_concurrent 1000
    }
    loop
}
"""
OLD = HEALTHY
DNS, FOLDER = OLD.setting.dns_ip, "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes"
COREDNS = tuple(pod for pod in OLD.pods if pod.api.label("k8s-app") == "kube-dns")
ECHO = next(pod for pod in OLD.pods if pod.api.label("app") == "echo")
LOOP = '[FATAL] plugin/loop: Loop (127.0.0.1:38117 -> :53) detected for zone ".", see coredns.io/plugins/loop'


def node_text(node: str, servers: Mapping[Pod, tuple[str, ...]], kubelet: str, default: str = "192.168.77.1") -> str:
    """What the command of the fact prints on a node whose pods have these servers."""
    lines = ["/etc/resolv.conf:# made by systemd-resolved", "/etc/resolv.conf:nameserver 127.0.0.53"]
    lines.append(f"/run/systemd/resolve/resolv.conf:nameserver {default}")
    for number, (pod, asked) in enumerate(servers.items()):
        if pod.node.name == node:
            lines.append(f"{FOLDER}/{number:064x}/hostname:{pod.api.name}")
            lines += [f"{FOLDER}/{number:064x}/resolv.conf:nameserver {server}" for server in asked]
            lines.append(f"{FOLDER}/{number:064x}/resolv.conf:options ndots:5")
    return "\n".join([*lines, "clusterDNS:", f"- {kubelet}", "clusterDomain: cluster.local", ""])


def with_dns(
    *,
    corefile: str = COREFILE,
    asked: Mapping[Pod, tuple[str, ...]] | None = None,
    kubelet: str = str(DNS),
    status: Mapping[str, Any] | None = None,
    log: str = "",
) -> Snapshot:
    """The lab with everything about DNS. ``status`` is that of CoreDNS's first container, ``log`` its last line."""
    own = {pod: ("192.168.77.1",) if pod in COREDNS else (str(DNS),) for pod in OLD.pods}
    servers = {**own, **(asked or {})}
    crashed = COREDNS[0]
    file = f"/var/log/pods/kube-system_{crashed.api.name}_4ab5/coredns/7.log"
    logs = f"==> {file} <==\n2026-11-28T18:00:00.1Z stdout F [INFO] 127.0.0.1:1\n2026-11-28T18:00:01Z stdout F {log}\n"
    more = {
        node: {
            "resolv_conf": Output(0, node_text(node, servers, kubelet)),
            "dns_log": Output(0, logs if log and node == crashed.node.name else ""),
        }
        for node in OLD.node_facts
    }

    def pod_state(item: dict[str, Any]) -> None:
        item["status"]["containerStatuses"] = [{"name": "coredns", "ready": True, **(status or {})}]

    maps = [{"metadata": {"name": "coredns"}, "data": {"Corefile": corefile}}] if corefile else []
    lab = in_api("pods", with_policies)
    lab = in_api("pods", api_item(crashed.api.name, pod_state), lab)
    api = {**lab.api.outputs, "pod_states": lab.api.outputs["pods"], "corefile": Output(0, json.dumps({"items": maps}))}
    nodes = {name: Facts(name, {**facts.outputs, **more[name]}) for name, facts in OLD.node_facts.items()}
    return replace(lab, api=Facts("api", api), node_facts=nodes)


def with_policies(text: str) -> str:
    document = json.loads(text)
    for item in document["items"]:
        system = item["metadata"].get("labels", {}).get("k8s-app") == "kube-dns"
        item["spec"]["dnsPolicy"] = "Default" if system else "ClusterFirst"
    return json.dumps(document)


CRASHES = {
    "ready": False,
    "restartCount": 4,
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {"terminated": {"reason": "Error", "exitCode": 1}},
}
ITSELF, CRASH, ASK = "coredns_does_not_ask_itself", "coredns_does_not_crash", "pods_ask_the_clusters_dns"
FAULTS = (
    Fault(
        "CoreDNS forwards to its loopback",
        lambda: with_dns(corefile=COREFILE.replace("/etc/resolv.conf", "127.0.0.1")),
        (ITSELF,),
        "CoreDNS forwards . to 127.0.0.1, which is CoreDNS itself",
    ),
    Fault(
        "CoreDNS has the node's stub resolver",
        lambda: with_dns(asked={COREDNS[0]: ("127.0.0.53",)}),
        (ITSELF,),
        f"CoreDNS forwards . to 127.0.0.53 of /etc/resolv.conf in {COREDNS[0]}, which is CoreDNS itself",
    ),
    Fault(
        "CoreDNS crashes",
        lambda: with_dns(status=CRASHES, log=LOOP),
        (CRASH,),
        f"coredns of {COREDNS[0]} on {COREDNS[0].node.name} crashes (CrashLoopBackOff, 4 restarts): {LOOP}",
    ),
    Fault(
        "a pod asks another DNS server",
        lambda: with_dns(asked={ECHO: ("10.96.0.99",)}),
        (ASK,),
        f"resolv.conf of pod {ECHO} on {ECHO.node.name} names 10.96.0.99, not {DNS}, which is kube-dns",
    ),
    Fault(
        "a kubelet has another clusterDNS",
        lambda: with_dns(kubelet="10.96.0.99"),
        (ASK,),
        f"gives new pods the DNS server 10.96.0.99, not {DNS}",
    ),
)
