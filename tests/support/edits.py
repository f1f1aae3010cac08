"""Edits of a recording: the lab as it would be seen with one thing of it changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hoplab.observe.facts import Facts
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Pod, Snapshot
from tests.support.lesson_functions import failures, read_only
from tests.support.recordings import recording

Edit = Callable[[str], str]

HEALTHY = recording("flannel-vxlan")
FIRST = next(pod.node for pod in HEALTHY.pods if pod.api.label("app") == "single")  # of a service with the policy Local
SECOND = next(node for node in HEALTHY.nodes if node is not FIRST)
POD = next(pod for pod in HEALTHY.pods if pod.node.name == FIRST.name and pod.api.label("app") == "echo")


def on_node(fact: str, edit: Edit, lab: Snapshot = HEALTHY, node: str = FIRST.name) -> Snapshot:
    """The lab with one fact of one node edited."""
    return replace(lab, node_facts={**lab.node_facts, node: edited_facts(lab.node_facts[node], fact, edit)})


def in_pod(fact: str, edit: Edit, lab: Snapshot = HEALTHY, pod: Pod = POD) -> Snapshot:
    """... of one pod's namespace."""
    here = lab.netns_facts[pod.node.name]
    found = {**here, pod.netns: edited_facts(here[pod.netns], fact, edit)}
    return replace(lab, netns_facts={**lab.netns_facts, pod.node.name: found})


def in_api(fact: str, edit: Edit, lab: Snapshot = HEALTHY) -> Snapshot:
    return replace(lab, api=edited_facts(lab.api, fact, edit))


def edited_facts(facts: Facts, fact: str, edit: Edit) -> Facts:
    before = facts.outputs[fact].out
    after = edit(before)
    assert after != before, f"nothing to break in {fact} of {facts.place}"
    return Facts(facts.place, {**facts.outputs, fact: Output(0, after)})


def without(**wanted: Any) -> Edit:
    """A JSON list without the objects that have these values."""

    def edit(text: str) -> str:
        return json.dumps([item for item in json.loads(text) if not _has(item, wanted)])

    return edit


def changed(wanted: Mapping[str, Any], **to: Any) -> Edit:
    """A JSON list with values changed in the objects that have the wanted ones."""

    def edit(text: str) -> str:
        return json.dumps([{**item, **to} if _has(item, wanted) else item for item in json.loads(text)])

    return edit


def _has(item: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(item.get(key) == value for key, value in wanted.items())


def added(*items: Any) -> Edit:
    return lambda text: json.dumps([*json.loads(text), *items])


def lines_without(pattern: str) -> Edit:
    return lambda text: "".join(line for line in text.splitlines(keepends=True) if not re.search(pattern, line))


def api_item(name: str, change: Callable[[dict[str, Any]], None]) -> Edit:
    """A Kubernetes list with one object changed."""

    def edit(text: str) -> str:
        document = json.loads(text)
        for item in document["items"]:
            if item["metadata"]["name"] == name:
                change(item)
        return json.dumps(document)

    return edit


@dataclass(frozen=True)
class Fault:
    """One thing broken: which lessons must fail, and what the first of them has to name."""

    name: str
    broken: Callable[[], Snapshot]
    caught_by: tuple[str, ...]
    says: str
    exactly: bool = True  # no other lesson fails
    first: str = ""  # the lesson that verification names first, where it is another one, ...
    first_says: str = ""  # ... and what that says

    @property
    def named_first(self) -> tuple[str, str]:
        """The lesson that verification names first, and what it says."""
        return self.first or self.caught_by[0], self.first_says or self.says

    def fails_its_lessons(self) -> None:
        found = failures(read_only(), self.broken())
        assert self.says in found.get(self.caught_by[0], ""), found
        assert set(found) == set(self.caught_by) or (not self.exactly and set(found) > set(self.caught_by)), found


def address_of(dev: str, address: str) -> dict[str, Any]:
    """As `ip -j address` shows it."""
    return {"ifname": dev, "addr_info": [{"family": "inet", "local": address, "prefixlen": 32}]}


def objects_without(text: str, *names: str) -> str:
    """A Kubernetes list without some objects."""
    document = json.loads(text)
    return json.dumps({"items": [item for item in document["items"] if item["metadata"]["name"] not in names]})


def announced_by(*addresses: str, name: str = "announced", lab: Snapshot = HEALTHY) -> Snapshot:
    """The lab whose load balancer gave these addresses to a service."""
    given = {"loadBalancer": {"ingress": [{"ip": address} for address in addresses]}}
    return in_api("services", api_item(name, lambda item: item.update(status=given)), lab)


def also(lesson: str, says: str, broken: Callable[[], Snapshot], *, first: str = "", first_says: str = "") -> Fault:
    return Fault(says, broken, (lesson,), says, exactly=False, first=first, first_says=first_says)
