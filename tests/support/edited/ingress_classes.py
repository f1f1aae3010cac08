"""A recording of the usual lab with IngressClasses, which it is too old to have, and with a fault in them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hoplab.observe.facts import Facts
from hoplab.observe.facts.api_ingress_classes import API_INGRESS_CLASSES, DEFAULT_CLASS
from hoplab.observe.facts.api_ingresses import API_INGRESSES
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from tests.support.edits import HEALTHY, Fault


def of_classes(*ingresses: str, **default: bool) -> Snapshot:
    """The lab with these classes, and with an Ingress of each of the given ones, "" for none."""
    marks = {name: {DEFAULT_CLASS: str(is_default).lower()} for name, is_default in default.items()}
    classes = [{"metadata": {"name": name, "annotations": marks[name]}, "spec": {"controller": name}} for name in marks]
    found: list[dict[str, Any]] = [
        {"metadata": {"namespace": "shop", "name": f"web{number}"}, "spec": {"ingressClassName": name} if name else {}}
        for number, name in enumerate(ingresses)
    ]
    more = {API_INGRESS_CLASSES.name: classes, API_INGRESSES.name: found}
    outputs = {name: Output(0, json.dumps({"items": items})) for name, items in more.items()}
    return replace(
        HEALTHY,
        setting=replace(HEALTHY.setting, ingress="readable"),
        api=Facts("api", {**HEALTHY.api.outputs, **outputs}),
    )


LESSON = "one_class_is_the_default"
FAULTS = (
    Fault(
        "two classes are the default",
        lambda: of_classes("nginx", nginx=True, readable=True),
        (LESSON,),
        "nginx and readable are default IngressClasses",
    ),
    Fault(
        "no class is the default",
        lambda: of_classes("", nginx=False, readable=False),
        (LESSON,),
        "shop/web0 has no class, and none of nginx and readable is the default",
    ),
)
HEALTHY_ONES = (
    of_classes("", readable=True, nginx=False),
    of_classes("readable", readable=False),  # every Ingress names its class
    of_classes(),
)
