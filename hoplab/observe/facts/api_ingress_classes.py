"""IngressClasses as the Kubernetes API returns them: their controllers, and which one is the default."""

from __future__ import annotations

from dataclasses import dataclass

from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Entries, Item, gather_kubernetes

DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"  # annotation


@dataclass(frozen=True)
class ApiIngressClass:
    """One IngressClass."""

    name: str
    controller: str  # "nginx.org/ingress-controller"
    default: bool  # of an Ingress that names no class

    def __str__(self) -> str:
        words = self.name, f" of {self.controller}" if self.controller else "", ", the default" if self.default else ""
        return "".join(words)


def parse(text: str) -> Entries[ApiIngressClass]:
    return gather_kubernetes(text, "ingressclasses", lambda item: (_class(item),))


def _class(item: Item) -> ApiIngressClass:
    meta = item.item("metadata")
    return ApiIngressClass(
        name=meta.text("name"),
        controller=item.item("spec").text("controller"),
        default=meta.item("annotations").text(DEFAULT_CLASS) == "true",
    )


API_INGRESS_CLASSES = Fact("ingress_classes", "/apis/networking.k8s.io/v1/ingressclasses", parse, frozenset({"api"}))
