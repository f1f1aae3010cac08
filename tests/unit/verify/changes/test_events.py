"""Changes grouped by what happened, and what of two looks at a healthy lab is no change."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from hoplab.observe.facts import Facts
from hoplab.observe.facts.ipam import IPAM
from hoplab.observe.outage import Outage
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.verify.changes.compare import compare
from hoplab.verify.changes.entry import Place
from hoplab.verify.changes.events import difference
from hoplab.verify.changes.text import document, lines
from tests.support.edits import (
    FIRST,
    HEALTHY,
    POD,
    SECOND,
    api_item,
    in_api,
    lines_without,
    objects_without,
    on_node,
    without,
)
from tests.support.hurt import NO_API, refused, with_output, without_api, without_nodes
from tests.support.recordings import RECORDED_LABS, recording

assert POD.host_end
VETH = POD.host_end.name


def rewritten(lab: Snapshot, edit: Callable[[str], str]) -> Snapshot:
    """Return the lab with all its outputs, and the names of its pods' namespaces, edited."""

    def facts(found: Facts) -> Facts:
        return Facts(found.place, {name: replace(out, out=edit(out.out)) for name, out in found.outputs.items()})

    return replace(
        lab,
        node_facts={node: facts(found) for node, found in lab.node_facts.items()},
        netns_facts={
            node: {edit(netns): facts(found) for netns, found in inside.items()}
            for node, inside in lab.netns_facts.items()
        },
        api=facts(lab.api),
    )


def without_pod(lab: Snapshot) -> Snapshot:
    """Return the lab as it is when POD is gone: each host has forgotten it."""
    address = str(POD.address)

    def no_endpoint(text: str) -> str:
        document = json.loads(text)
        for item in document["items"]:
            found = item.get("endpoints") or []
            item["endpoints"] = [one for one in found if address not in one["addresses"]]
        return json.dumps(document)

    def no_rules(text: str) -> str:
        chains = set(re.findall(rf"-A (KUBE-SEP-\w+) .*{re.escape(address)}", text))
        services = "|".join(re.findall(rf"-A (KUBE-SVC-\w+) .*-j (?:{'|'.join(chains)})", text))
        kept = lines_without("|".join([re.escape(address) + r"\b", *chains]))(text)
        return re.sub(rf"(-A (?:{services}) .*) -m statistic --mode random --probability 0\.50*", r"\1", kept)

    lab = in_api("pods", lambda text: objects_without(text, POD.api.name), lab)
    lab = in_api("endpoints", no_endpoint, lab)
    for fact, edit in (
        ("links", without(ifname=VETH)),
        ("fdb", without(ifname=VETH)),
        ("sysctls", lines_without(f"/{VETH}/")),
        ("ipam", lines_without(rf"/{address}:")),
        ("iptables", no_rules),
    ):
        lab = on_node(fact, edit, lab, FIRST.name)
    lab = on_node("iptables", no_rules, lab, SECOND.name)
    inside = {netns: facts for netns, facts in lab.netns_facts[POD.node.name].items() if netns != POD.netns}
    return replace(lab, netns_facts={**lab.netns_facts, POD.node.name: inside})


@pytest.mark.parametrize("name", RECORDED_LABS)
def test_a_healthy_lab_does_not_differ_from_itself(name: str) -> None:
    lab = recording(name)
    found = difference(lab, rewritten(lab, lambda text: text))  # another object, with nothing parsed yet
    assert (list(lines(found, everything=True)), found.notes, found.same) == ([], (), True)


@pytest.mark.parametrize("name", RECORDED_LABS)
def test_counters_and_learned_entries_are_no_change(name: str) -> None:
    def later(text: str) -> str:
        text = re.sub(r"\[\d+:\d+\]", "[7:420]", text)
        text = re.sub(r'("(?:packets|bytes|handle|ifindex_|updated|used)": ?)\d+', r"\g<1>77", text)
        text = text.replace('"REACHABLE"', '"STALE"').replace("# Completed on Wed", "# Completed on Thu")
        return re.sub(r"(nf_conntrack_count:)\d+", r"\g<1>9", text)

    lab = recording(name)
    found = difference(lab, rewritten(lab, later))
    assert list(lines(found)) == [] and found.notes == ()


def test_a_pod_that_is_gone_is_one_event() -> None:
    found = difference(HEALTHY, without_pod(HEALTHY))
    (event,) = found.events
    assert (event.headline.kind, event.headline.verb) == ("pod", "gone")
    kinds = {(change.place.node, change.kind) for change in event.details}
    here = {"interface", "sysctl", "FDB entry", "IPAM reservation", "network namespace", "chain", "rule"}
    assert kinds == {("", "endpoint"), (SECOND.name, "chain"), (SECOND.name, "rule")} | {(FIRST.name, k) for k in here}
    said = list(lines(found))
    assert said[:2] == ["Kubernetes", f"  - pod {POD} on {FIRST.name}, {POD.address}"]
    assert len(said) <= 6
    (back,) = difference(without_pod(HEALTHY), HEALTHY).events
    assert (back.headline.kind, back.headline.verb, len(back.details)) == ("pod", "new", len(event.details))
    assert len(list(lines(found, everything=True))) == len(event.details) + 2


def test_pods_that_were_replaced_are_one_event_each() -> None:
    """Two labs of one setting, or one lab some days later: all pods have other names, veths and sandboxes."""
    lab = recording("flannel-vxlan")
    other = {pod.api.name: f"{pod.api.name[:-5]}zzzz{'bcdfghjklmnp'[n]}" for n, pod in enumerate(lab.pods)}
    other |= {pod.host_end.name: f"veth0000{n:04}" for n, pod in enumerate(lab.pods) if pod.host_end}
    other |= {pod.netns: f"cni-{n:08}-0000" for n, pod in enumerate(lab.pods)}
    containers = [one.container for node in lab.nodes for one in node[IPAM]]
    other |= {container: f"{n:064}" for n, container in enumerate(containers)}
    names = re.compile("|".join(map(re.escape, sorted(other, key=len, reverse=True))))
    found = difference(lab, rewritten(lab, lambda text: names.sub(lambda match: other[match[0]], text)))
    assert {event.headline.kind for event in found.events} == {"pod"}
    assert len(found.events) == len(lab.pods)
    echo = next(pod for pod in lab.pods if pod.api.label("app") == "echo")
    assert f"  ~ pod {echo} was replaced by hoplab-verify/{other[echo.api.name]}" in lines(found)


def test_what_follows_from_an_interface_is_below_it() -> None:
    gone = on_node("links", without(ifname=VETH))
    gone = on_node("sysctls", lines_without(f"/{VETH}/"), gone)
    (event,) = difference(HEALTHY, gone).events
    assert event.headline.entry.name == f"{VETH} of {POD}"
    assert {change.kind for change in event.details} == {"sysctl"}


def test_a_service_with_another_address_explains_its_rules() -> None:
    services = json.loads(HEALTHY.api.outputs["services"].out)["items"]
    service = next(one for one in services if one["metadata"]["name"] == "echo")
    name, address = service["metadata"]["name"], service["spec"]["clusterIP"]

    def move(item: dict[str, dict[str, object]]) -> None:
        item["spec"].update(clusterIP="10.96.0.77", clusterIPs=["10.96.0.77"])

    moved = in_api("services", api_item(name, move))
    for node in HEALTHY.nodes:
        moved = on_node("iptables", lambda text: text.replace(f"{address}/", "10.96.0.77/"), moved, node.name)
    (event,) = difference(HEALTHY, moved).events
    assert event.headline.fields["clusterIP"] == (address, "10.96.0.77")
    assert {change.kind for change in event.details} == {"rule"}
    assert {change.place for change in event.details} == {Place(node.name) for node in HEALTHY.nodes}


def test_a_name_is_found_as_a_whole_word_only() -> None:
    """10.244.0.3 is not in 10.244.0.31: the rule for another pod is an event of its own."""
    rule = f"-A KUBE-NODEPORTS -s {POD.address}1/32 -j RETURN\n"
    lab = on_node("iptables", lambda text: text.replace("-A KUBE-NODEPORTS", f"{rule}-A KUBE-NODEPORTS", 1))
    both = difference(HEALTHY, without_pod(HEALTHY)).events
    assert len(difference(lab, without_pod(HEALTHY)).events) == len(both) + 1


def test_many_changes_that_are_alike_are_one_line() -> None:
    lab = on_node("sysctls", lambda text: text.replace("rp_filter:0", "rp_filter:2"))
    found = difference(HEALTHY, lab)
    heading, line = lines(found)
    assert heading == FIRST.name
    assert re.fullmatch(r"  ~ \d+ sysctls: 0 -> 2: net\.ipv4\.conf\.\S+; net\.ipv4\.conf\.\S+ and \d+ more", line)
    assert len(list(lines(found, everything=True))) == len(found.events) + 1


def test_a_part_that_could_not_be_looked_at_is_a_change_and_no_loss() -> None:
    found = difference(HEALTHY, without_nodes(HEALTHY, SECOND.name))
    assert [line for line in lines(found) if line.startswith("  ")] == [f"  + outage {refused(SECOND.name)}"]
    both = difference(without_nodes(HEALTHY, SECOND.name), without_nodes(HEALTHY, SECOND.name))
    assert both.same and both.notes == (f"not compared: {refused(SECOND.name)}",)
    lost = difference(HEALTHY, without_api(HEALTHY))
    assert list(lines(lost)) == ["Kubernetes", f"  + outage {NO_API}"]
    assert lost.notes == ("not compared, because one side lacks it: endpoints, nodes, pods, services",)


def test_a_machine_that_only_one_side_has() -> None:
    names = [name for name in HEALTHY.node_facts if name != SECOND.name]
    smaller = replace(
        HEALTHY,
        node_facts={name: HEALTHY.node_facts[name] for name in names},
        netns_facts={name: HEALTHY.netns_facts[name] for name in names},
    )
    assert list(lines(difference(HEALTHY, smaller))) == [SECOND.name, f"  - machine {SECOND.name}"]


def test_facts_that_one_side_lacks_or_that_cannot_be_read_are_noted() -> None:
    newer = with_output(HEALTHY, SECOND.name, clock="100 101 102", sysctls="nonsense")
    found = difference(HEALTHY, newer)
    assert found.same
    assert found.notes[0] == "not compared, because one side lacks it: clock"
    assert found.notes[1].startswith("not compared: sysctls on worker") and "is not a sysctl" in found.notes[1]
    listed = HEALTHY.node_facts[SECOND.name].outputs["links"].out.rstrip().removesuffix("]")
    entry = with_output(HEALTHY, SECOND.name, links=listed + ', {"mtu": "x"}]')
    assert any("links.mtu should not be str" in note for note in difference(HEALTHY, entry).notes)


def test_labs_of_other_settings_are_compared_and_it_is_said() -> None:
    found = difference(recording("flannel-vxlan"), recording("flannel-host-gw"))
    assert not found.same
    settings = next(note for note in found.notes if note.startswith("their settings differ: "))
    assert "backend vxlan and host-gw" in settings
    assert found.notes[0].startswith("these are two labs, ")
    renamed = replace(HEALTHY, setting=replace(HEALTHY.setting, lab="blue"), versions={**HEALTHY.versions, "cni": "9"})
    notes = difference(HEALTHY, renamed).notes
    assert notes == ("these are two labs, dev and blue", "they were made of different versions: cni none and 9")


def test_the_same_as_json() -> None:
    found = difference(HEALTHY, without_pod(HEALTHY))
    (event,) = document(found)["events"]
    headline = {key: value for key, value in event.items() if key != "details"}
    assert headline == {
        "node": "",
        "pod": "",
        "change": "gone",
        "kind": "pod",
        "within": "",
        "before": f"{POD} on {FIRST.name}, {POD.address}",
        "after": None,
        "fields": {},
    }
    assert len(event["details"]) == len(found.events[0].details)
    mtu = document(difference(HEALTHY, on_node("links", lambda text: text.replace('"mtu":1450', '"mtu":1400'))))
    assert {tuple(event["fields"]["mtu"]) for event in mtu["events"]} == {("1450", "1400")}
    assert document(difference(HEALTHY, HEALTHY)) == {"same": True, "notes": [], "events": []}


def test_an_outage_of_a_service_that_is_no_node() -> None:
    hurt = replace(HEALTHY, outages=(Outage("etcd", "etcd does not answer"),))
    assert list(lines(difference(HEALTHY, hurt))) == ["Kubernetes", "  + outage etcd does not answer"]


def test_a_namespace_without_a_known_pod_is_named_itself() -> None:
    facts = HEALTHY.netns_facts[SECOND.name]
    more = {**facts, "cni-stray": Facts("stray", {"links": Output(0, "[]")})}
    lab = replace(HEALTHY, netns_facts={**HEALTHY.netns_facts, SECOND.name: more})
    assert list(lines(difference(HEALTHY, lab))) == [SECOND.name, "  + network namespace cni-stray"]
    assert len(compare(HEALTHY, lab).changes) == 1
