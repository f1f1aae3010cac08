"""The formats of a graph."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from hoplab.graph.d2 import d2
from hoplab.graph.dot import dot
from hoplab.graph.mermaid import mermaid
from hoplab.graph.model import Graph
from hoplab.graph.svg import svg


def json_text(graph: Graph) -> str:
    return json.dumps(graph.document(), indent=2) + "\n"


FORMATS: Mapping[str, Callable[[Graph], str]] = {
    "svg": svg,
    "mermaid": mermaid,
    "dot": dot,
    "d2": d2,
    "json": json_text,
}
