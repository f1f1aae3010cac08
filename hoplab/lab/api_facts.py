"""Facts that a verb asks of a lab's Kubernetes API, without a look at the whole lab."""

from __future__ import annotations

import json

from hoplab.cluster.api import Requests
from hoplab.observe.facts import Fact, T


def read_fact(api: Requests, fact: Fact[T]) -> T:
    """Return a fact of the API; raise ClusterError where it answers otherwise, FactError where its answer is none."""
    return fact.parse(json.dumps(api.read(fact.command)))
