"""The ingress controller and the load balancer of a cluster that hoplab did not make; pure."""

from __future__ import annotations

from contextlib import suppress

from hoplab.core.errors import FactError
from hoplab.expectations import ingress as ingresses
from hoplab.expectations.registry import modules
from hoplab.observe.facts.api_ingress_classes import API_INGRESS_CLASSES
from hoplab.observe.facts.api_pods import API_PODS
from hoplab.observe.snapshot import Snapshot
from hoplab.spec.model import AddressRange
from hoplab.verify.documents import Documents, Found

NONE = "none"
METALLB = "metallb"


def ingress(seen: Snapshot) -> Found[str]:
    """Return the ingress controller: by the IngressClasses, otherwise by the pods of those that hoplab knows."""
    known = [(part.name, module) for part, module in modules(ingresses.__name__) if part.usable]
    with suppress(FactError):
        named = {module.CONTROLLER: name for name, module in known}
        classes = sorted(seen.api[API_INGRESS_CLASSES], key=lambda found: (not found.default, found.name))
        if classes:
            return Found(named.get(classes[0].controller, classes[0].controller), f"the IngressClass {classes[0].name}")
    for name, module in known:
        for pod in seen.api[API_PODS]:
            if pod.namespace == module.NAMESPACE and module.LABELS.items() <= dict(pod.labels).items():
                return Found(name, f"the pod {pod}")
    return Found(NONE)


def load_balancer(seen: Snapshot) -> Found[str]:
    """Return what gives addresses to Services of type LoadBalancer: MetalLB by its pods, or none."""
    for pod in seen.api[API_PODS]:
        if METALLB in (pod.label("app"), pod.label("app.kubernetes.io/name")) or pod.namespace == f"{METALLB}-system":
            return Found(METALLB, f"the pod {pod}")
    return Found(NONE)


def pool(documents: Documents) -> AddressRange | None:
    """Return the first range of MetalLB's pools; None where there is none of IPv4."""
    for text in documents.metallb_ranges:
        with suppress(ValueError):
            return AddressRange.parse(text)
    return None
