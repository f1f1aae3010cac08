"""What the commands of facts really print, for tests that need a text of each."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from hoplab.core.paths import PROJECT
from hoplab.observe.facts import Fact, discover
from tests.support.edited.dns import LOOP, with_dns
from tests.support.edited.ingress_classes import of_classes
from tests.support.edited.tls import certified
from tests.support.files import CAPTURED

EVERY: dict[str, Fact[Any]] = {fact.name: fact for where in ("node", "pod", "api") for fact in discover(where)}


@cache
def real_outputs() -> dict[str, list[str]]:
    """What the commands really printed: on a lab, or (facts made since) in a network namespace."""
    texts: dict[str, list[str]] = {}
    for name in ("flannel-vxlan", "flannel-vxlan-dual", "flannel-wireguard"):
        recorded = json.loads((PROJECT / "tests" / "recordings" / f"{name}.json").read_text())
        node = next(iter(recorded["nodes"].values()))
        pod = next(iter(next(iter(recorded["pods"].values())).values()))
        before = set(texts)  # of the labs after the first one, what it does not have
        for found in (node, pod, recorded["api"]):
            for fact, output in found.items():
                # Calico's are asked for everywhere, and a lab without WireGuard says nothing of it
                if output["code"] == 0 and output["out"].strip() and fact not in before:
                    texts.setdefault(fact, []).append(output["out"])
    texts["ipam_blocks6"] = [captured("ipam_blocks.json").replace("10.244.235.128/26", "fd00:244:1::40/122")]
    made_up = of_classes("", "nginx", nginx=True, other=False).api.outputs
    texts |= {name: [made_up[name].out] for name in ("ingresses", "ingress_classes")}
    young: tuple[str, ...] = ("tls_secrets", "clock", "pod_states", "corefile", "resolv_conf", "dns_log")
    for lab in (certified(), with_dns(log=LOOP)):
        for facts in (lab.api, *(node.facts for node in lab.nodes)):
            texts |= {name: [facts.outputs[name].out] for name in young if name in facts.outputs}
            young = tuple(name for name in young if not any(texts.get(name, ())))
    for name, *files in (
        ("bgp", "bgp.txt"),
        ("bpf_programs", "bpftool-net.json"),
        ("cilium_endpoints", "cilium-endpoint.json"),
        ("cilium_ipcache", "cilium-ipcache.json"),
        ("cilium_policy", "cilium-policy.json"),
        ("cilium_services", "cilium-lb.json"),
        ("counters", "counters.txt"),
        ("disks", "df.txt"),
        ("ipam_blocks", "ipam_blocks.json"),
        ("ipam", "ipam.txt"),
        ("ip6tables_legacy", "ip6tables-legacy.txt"),
        ("ipset", "ipset.txt"),
        ("iptables_legacy", "iptables-legacy.txt"),
        ("nfqueue", "nfqueue.txt"),
        ("nft_ruleset", "nft-ruleset.json"),
        ("nftables", "nft-kube-proxy.json", "nft-other.json"),
        ("rules", "ip-rule.json"),
        ("rules6", "ip-rule.json"),
        ("sockets", "ss.txt"),
        ("sysctls6", "sysctls6.txt"),
        ("units", "units.txt"),
    ):
        texts.setdefault(name, []).extend(captured(file) for file in files)
    return texts


def captured(name: str) -> str:
    return (CAPTURED / name).read_bytes().decode()  # as it is: host-local ends lines with \r\n
