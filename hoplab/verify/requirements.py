"""What a lesson requires of a lab: the arguments of its ``needs`` markers.

On a cluster that hoplab did not make (``Setting.foreign``) more can be missing: parts that hoplab does not know, tools
on its hosts, the verification workload, a network that all nodes share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hoplab.core.errors import LabError, UnavailableError
from hoplab.expectations.cni import by_programs
from hoplab.expectations.parts import known_parts
from hoplab.expectations.policy import of as enforcer_of
from hoplab.expectations.registry import UnknownPart
from hoplab.observe.facts import CommandMissing, discover
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.outage import WORKLOAD
from hoplab.observe.setting import Setting
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import workload

OWN_LAB = "is about what only a lab of hoplab has; this cluster was not made by it"
TRAFFIC = "sends packets: only with --traffic, on the running cluster"
OWN_INGRESS = "is about an ingress controller as hoplab installs it; this cluster has {}"
NO_OUTSIDE = "needs a client outside: run it on a machine in {}, the nodes' network"
FORBIDDEN = (401, 403)  # answers of the API to an account without the right to read


def skip_reason(
    lab: Snapshot,
    *,
    cni: str = "",
    backend: str = "",
    proxy: str = "",
    nodes: int = 1,
    ingress: bool = False,
    gateway_api: bool = False,
    load_balancer: str = "",
    service: str = "",
    ipv6: bool = False,
    cni_nftables: bool | None = None,
    policies: bool | None = None,
    policy: str = "",
    programs: bool | None = None,
    kube_proxy: bool = False,
    facts: tuple[str, ...] = (),
    own_lab: bool = False,
    one_subnet: bool = False,
    node_ranges: bool = False,
    workload_pods: bool = False,
    outside: bool = False,  # of lessons with traffic only: session_reason
) -> str:
    """Return why a lesson with these requirements does not apply to the lab; "" when it applies.

    Raise UnavailableError where a part of the lab that the lesson requires could not be looked at.
    """
    has = lab.setting
    if has.foreign and (
        reason := _foreign_reason(
            lab, own_lab=own_lab, one_subnet=one_subnet, node_ranges=node_ranges, workload_pods=workload_pods
        )
    ):
        return reason
    if cni and has.cni != cni:
        return f"needs the CNI {cni}; this lab has {has.cni}"
    if backend and has.backend != backend:
        return f"needs {cni or 'a CNI'} with the backend {backend}; this lab has {has.backend}"
    if proxy and has.proxy_mode != proxy:
        return f"needs kube-proxy in {proxy} mode; this lab has {has.proxy_mode}"
    if (ingress and has.ingress == "none") or (gateway_api and not has.has_gateways):
        of_gateways = "the Gateway API (ingress.gatewayApi or ingress.gateway in its spec)"
        wanted = of_gateways if gateway_api else "an ingress controller"
        return f"needs {wanted}; this lab has none"
    if load_balancer and has.load_balancer != load_balancer:
        return f"needs the load balancer {load_balancer}; this lab has {has.load_balancer}"
    if service and f"{workload.NAMESPACE}/{service}" not in map(str, lab.api[API_SERVICES]):
        _raise_outage(lab, WORKLOAD)
        why = "which only --traffic creates" if has.foreign else "which is younger than this recording"
        return f"needs the service {service} of the verification workload, {why}"
    if cni_nftables is not None and has.cni_nftables != cni_nftables:
        return f"needs a CNI that writes {'nftables' if cni_nftables else 'iptables'}; this lab's does not"
    if (
        reason := _program_reason(lab, programs, kube_proxy=kube_proxy)
        or _policy_reason(has, policies, policy)
        or _without_fact(lab, facts)
    ):
        return reason
    if ipv6 and not has.ipv6:
        return "needs a dual-stack lab (ipv6 in its spec); this one has IPv4 alone"
    if len(lab.nodes) < nodes:
        for name in lab.lost_nodes:
            _raise_outage(lab, name)
        return f"needs {nodes} nodes; this lab has {len(lab.nodes)}"
    return ""


def _foreign_reason(lab: Snapshot, *, own_lab: bool, one_subnet: bool, node_ranges: bool, workload_pods: bool) -> str:
    """Return which of the requirements that every lab of hoplab meets this cluster does not; "" for none."""
    if own_lab:
        return OWN_LAB
    if one_subnet and (apart := _apart(lab)):
        return f"needs all nodes in one subnet; this cluster's are in {', '.join(apart)}"
    if node_ranges and (lacking := [node.name for node in lab.nodes if node.api.pod_cidr is None]):
        return f"needs a podCIDR for each node; {lacking[0]} has none"
    if workload_pods and not any(service.namespace == workload.NAMESPACE for service in lab.api[API_SERVICES]):
        return "needs the verification workload, which only --traffic creates"
    return ""


def _apart(lab: Snapshot) -> list[str]:
    """Return the subnets of the nodes' addresses where there are several, otherwise none."""
    found = {
        str(entry.network): None for node in lab.nodes for entry in node[ADDRESSES] if entry.address == node.api.address
    }
    return list(found) if len(found) > 1 or any(subnet.endswith("/32") for subnet in found) else []


def session_reason(lab: Snapshot, needs: Iterable[Mapping[str, Any]], *, outside: bool) -> str:
    """Return why a lesson with traffic does not apply to a foreign cluster; ``outside``: whether a client there is."""
    for wanted in needs if lab.setting.foreign else ():
        if wanted.get("ingress"):
            return OWN_INGRESS.format(lab.setting.ingress)
        if wanted.get("outside") and not outside:
            return NO_OUTSIDE.format(lab.setting.network)
    return ""


def unknown_reason(error: BaseException, lab: Snapshot) -> str:
    """Return why a lesson that ended with this error cannot be checked on a foreign cluster; "" where it failed."""
    unknown = isinstance(error, UnknownPart | CommandMissing)
    return error.message if lab.setting.foreign and unknown and isinstance(error, LabError) else ""


def _raise_outage(lab: Snapshot, place: str) -> None:
    """Raise UnavailableError where the place has an outage."""
    if outage := lab.outage(place):
        raise UnavailableError(outage.problem)


def _policy_reason(has: Setting, policies: bool | None, policy: str) -> str:
    """Return why a lesson about NetworkPolicy does not apply; "" when it does."""
    if policies and not enforcer_of(has):
        return "needs something that enforces policies: networkPolicy in the spec, Cilium, or Calico with iptables"
    if policies is False and enforcer_of(has):
        return "needs a lab in which nothing enforces policies"
    if policy and has.network_policy != policy:
        return f"needs networkPolicy: {policy}; this lab has {has.network_policy}"
    return ""


def _program_reason(lab: Snapshot, programs: bool | None, *, kube_proxy: bool) -> str:
    """Return why a lesson about tables and rules, or about programs in their place, does not apply; "" when it does."""
    has, taken = lab.setting, by_programs(lab)
    proxy = known_parts().proxy.get(has.proxy_mode)
    if programs and not taken:
        return f"needs a CNI of eBPF programs; {has.cni} is none"
    if programs is False and taken:
        return f"needs a CNI whose packets pass the kernel's tables and rules; here programs of {has.cni} take them"
    if kube_proxy and proxy is not None and proxy.cni:
        return f"needs the rules of kube-proxy; this lab has none, {proxy.cni} does its work"
    return ""


def _without_fact(lab: Snapshot, facts: tuple[str, ...]) -> str:
    """Return which of the facts is not there, and why; "" when all are."""
    for fact in facts:
        if _lacks(lab, fact):
            return f"needs the fact {fact}, which is younger than this recording"
        if fact in lab.api.outputs and lab.api.outputs[fact].code in FORBIDDEN:
            return f"needs the fact {fact}, which this account of the cluster may not read"
    return ""


def _lacks(lab: Snapshot, fact: str) -> bool:
    """Return whether a recording is older than the fact; raise UnavailableError where the API was not looked at."""
    if fact in lab.api.outputs:
        return False
    if lab.api.unavailable and fact in {known.name for known in discover("api")}:
        raise UnavailableError(lab.api.unavailable)
    return any(fact not in node.facts.outputs for node in lab.nodes)
