"""What a lesson requires of a lab: the arguments of its ``needs`` markers."""

from __future__ import annotations

from hoplab.core.errors import UnavailableError
from hoplab.observe.facts import discover
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.outage import WORKLOAD
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import workload

FORBIDDEN = (401, 403)  # answers of the API to an account without the right to read


def skip_reason(
    lab: Snapshot,
    *,
    cni: str = "",
    backend: str = "",
    proxy: str = "",
    nodes: int = 1,
    ingress: bool = False,
    load_balancer: str = "",
    service: str = "",
    ipv6: bool = False,
    cni_nftables: bool | None = None,
    facts: tuple[str, ...] = (),
) -> str:
    """Return why a lesson with these requirements does not apply to the lab; "" when it applies.

    Raise UnavailableError where a part of the lab that the lesson requires could not be looked at.
    """
    has = lab.setting
    if cni and has.cni != cni:
        return f"needs the CNI {cni}; this lab has {has.cni}"
    if backend and has.backend != backend:
        return f"needs {cni or 'a CNI'} with the backend {backend}; this lab has {has.backend}"
    if proxy and has.proxy_mode != proxy:
        return f"needs kube-proxy in {proxy} mode; this lab has {has.proxy_mode}"
    if ingress and has.ingress == "none":
        return "needs an ingress controller; this lab has none"
    if load_balancer and has.load_balancer != load_balancer:
        return f"needs the load balancer {load_balancer}; this lab has {has.load_balancer}"
    if service and f"{workload.NAMESPACE}/{service}" not in map(str, lab.api[API_SERVICES]):
        _raise_outage(lab, WORKLOAD)
        return f"needs the service {service} of the verification workload, which is younger than this recording"
    if cni_nftables is not None and has.cni_nftables != cni_nftables:
        return f"needs a CNI that writes {'nftables' if cni_nftables else 'iptables'}; this lab's does not"
    if reason := _without_fact(lab, facts):
        return reason
    if ipv6 and not has.ipv6:
        return "needs a dual-stack lab (ipv6 in its spec); this one has IPv4 alone"
    if len(lab.nodes) < nodes:
        for name in lab.lost_nodes:
            _raise_outage(lab, name)
        return f"needs {nodes} nodes; this lab has {len(lab.nodes)}"
    return ""


def _raise_outage(lab: Snapshot, place: str) -> None:
    """Raise UnavailableError where the place has an outage."""
    if outage := lab.outage(place):
        raise UnavailableError(outage.problem)


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
