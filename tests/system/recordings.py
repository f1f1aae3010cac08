"""Records a lab that runs, healthy and then broken in each of the places of tests/system/faults: tests/recordings.

    .venv/bin/python -m tests.system.recordings dev
    .venv/bin/python -m tests.system.recordings dev younger

Of a broken lab only what differs from the healthy one is kept, and of that what facts see: counters, and what changes
from moment to moment (connections, sockets), are as they were on the healthy one.
"""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Set
from dataclasses import replace
from typing import Any

from hoplab.core.errors import FactError
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.expectations.parts import known_parts
from hoplab.observe.facts import Facts, discover
from hoplab.observe.facts.iptables import IPTABLES
from hoplab.observe.recording_format import load, save
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot, take
from hoplab.verify import requirements
from tests.support.lesson_functions import applies, failures, read_only
from tests.system.faults import FAULTS, Fault, Site, opened, wait

FOLDER = PROJECT / "tests" / "recordings"
HEALTHY = FOLDER / "flannel-vxlan.json"
BROKEN = FOLDER / "broken"
FEW = {  # of other labs than the usual one there is one broken recording each
    "flannel-vxlan-nftables": "a service is in no map",
    "flannel-nft-vxlan-nftables": "flannel's table of nftables masks nothing",
    "flannel-wireguard": "WireGuard does not know whose a range is",
    "flannel-host-gw": "the route to a host-gw neighbour's pods is gone",
    "flannel-vxlan-policies": "nobody reads the queue of policies",
    "flannel-vxlan-dual": "the route of IPv6 to the other node's pods is gone",
    "calico-bgp-dual": "forwarding of IPv6 is off",
    "calico-bgp": "a BGP session is closed by hand",
    "calico-ipip": "what is for a pod elsewhere goes by eth0 and is not wrapped",
    "calico-vxlan": "vxlan.calico has another MAC than announced",
    "cilium-vxlan": "nobody is said to have another node's pod's address",
    "cilium-native-cilium": "a backend is taken out of the map",
    "cilium-native-dual-cilium": "forwarding of IPv6 is off",
}

# Lessons whose facts these recordings are older than: on machines their fault fails these too
OLDER_THAN = {"flannel-vxlan-nftables": {"nothing_drops_what_a_node_sends_to_a_service"}}

# Faults that are younger than the recordings; they have a healthy recording of their own, with the younger facts
YOUNGER = FOLDER / "younger" / HEALTHY.name
BROKEN_YOUNGER = BROKEN / "younger"
YOUNGER_FAULTS = frozenset(
    {
        "the reverse-path filter is strict everywhere",
        "the conntrack table is full",
        "IPAM keeps the address of a pod that is gone",
        "an interface does not forward",
        "a UDP flow is kept to an endpoint that is gone",
        "a node is behind two MACs",
        "a host port leads to a pod that is gone",
    }
)
MOMENTARY = {"conntrack", "sockets", "counters", "dns_log", "units", "disks"}
MATTERS = {"a UDP flow is kept to an endpoint that is gone": {"conntrack"}}  # of these, to some faults
ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
COUNTED = re.compile(r"\[\d+:\d+\]|(?<= on ).*")  # counters of a rule or chain, the date of an iptables-save


def main(lab: str, *again: str) -> None:
    """Everything; or the younger faults alone; or, on the lab of a minute ago, only these files of ``broken`` again."""
    younger = again == ("younger",)
    again = () if younger else again
    with opened(LabPaths(lab)) as site:
        name = name_of(site.session.snapshot)
        original, folder = FOLDER / f"{name}.json", BROKEN / name if name in FEW else BROKEN
        original, folder = (YOUNGER, BROKEN_YOUNGER) if younger else (original, folder)
        for place in (original.parent, folder):
            place.mkdir(parents=True, exist_ok=True)
        healthy = load(original) if again else site.session.snapshot
        wrong = failures(read_only(), site.session.snapshot)
        assert wrong == {}, wrong
        if not again:
            save(healthy, original, known_parts())
            print(f"{original}: {original.stat().st_size // 1024} KiB", flush=True)
        faults = [fault for fault in recorded(healthy) if (fault.name in YOUNGER_FAULTS) == younger]
        for fault in faults:
            if fault.file in (again or {fault.file}):
                file, noise = folder / fault.file, MOMENTARY - MATTERS.get(fault.name, set())
                save(without_noise(broken(fault, site, healthy), healthy, noise), file, known_parts(), like=original)
                print(f"{file}: {file.stat().st_size} bytes", flush=True)
    for file in folder.glob("*.json"):
        if file.name not in {fault.file for fault in faults}:
            file.unlink()


def name_of(lab: Snapshot) -> str:
    """Of a lab's recording: "flannel-vxlan", "calico-bgp", "flannel-nft-vxlan" (flannel's own rules are in nftables);
    with "-dual" where there is IPv6 too, "-policies" where a program enforces NetworkPolicies, and "-nftables" for the
    other mode of kube-proxy."""
    has = lab.setting
    name = f"{has.cni}{'-nft' if has.cni_nftables else ''}-{has.backend}{'-dual' if has.ipv6 else ''}"
    name += "-policies" if has.network_policy != "none" else ""
    return name if has.proxy_mode == "iptables" else f"{name}-{has.proxy_mode}"


def recorded(lab: Snapshot) -> tuple[Fault, ...]:
    """The faults that such a lab can have, and that are seen without packets."""
    found = (
        fault
        for fault in FAULTS
        if any(applies(name, lab) for name in fault.caught_by) and not requirements.skip_reason(lab, **fault.needs)
    )
    few = FEW.get(name_of(lab))
    return tuple(fault for fault in found if few in (None, fault.name))


def broken(fault: Fault, site: Site, healthy: Snapshot) -> Snapshot:
    """The lab while it is broken there; and it is left repaired."""
    seen = healthy

    def noticed() -> bool:
        nonlocal seen
        seen = look(site, healthy)
        return set(failures(read_only(), seen)) == set(fault.caught_by)

    with fault.broken(site):
        wait(noticed)
    return seen


def look(site: Site, healthy: Snapshot) -> Snapshot:
    def ask(path: str) -> Output:
        status, answer = site.session.api("GET", path)
        return Output(0 if status == 200 else status, json.dumps(answer))

    return take(healthy.setting, healthy.versions, site.session.hosts, ask, known_parts())


def without_noise(seen: Snapshot, healthy: Snapshot, noise: Set[str] = MOMENTARY) -> Snapshot:
    """What was seen, with the healthy lab's own text wherever facts see no difference."""
    return replace(
        seen,
        node_facts={
            node: _facts(facts, healthy.node_facts[node], "node", noise) for node, facts in seen.node_facts.items()
        },
        netns_facts={
            node: {
                netns: _facts(facts, healthy.netns_facts[node][netns], "pod", noise)
                for netns, facts in found.items()
                if netns in healthy.netns_facts[node]
            }
            for node, found in seen.netns_facts.items()
        },
        api=_facts(seen.api, healthy.api, "api", noise),
    )


def _facts(seen: Facts, healthy: Facts, where: Any, noise: Set[str]) -> Facts:
    def kept(name: str, output: Output) -> Output:
        before = healthy.outputs[name]
        if name in MOMENTARY - noise:
            return replace(output, out=_with_strangers(output.out, before.out))
        if name in noise or _same(seen, healthy, known[name]):
            return before
        return replace(output, out=_uncounted(output.out, before.out)) if name == IPTABLES.name else output

    known = {fact.name: fact for fact in discover(where)}
    return Facts(seen.place, {name: kept(name, output) for name, output in seen.outputs.items()})


def _same(seen: Facts, healthy: Facts, fact: Any) -> bool:
    try:
        return bool(seen[fact] == healthy[fact])
    except FactError:
        return False


def _with_strangers(text: str, before: str) -> str:
    """What was there before, and the lines with an address that was not."""
    known = set(ADDRESS.findall(before))
    return before + "".join(f"{line}\n" for line in text.splitlines() if set(ADDRESS.findall(line)) - known)


def _uncounted(text: str, before: str) -> str:
    """An iptables-save with the counters and dates of another one wherever that has the same line otherwise."""
    known = {COUNTED.sub("", line): line for line in before.splitlines()}
    return "".join(f"{known.get(COUNTED.sub('', line), line)}\n" for line in text.splitlines())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # what is broken is repaired before it goes
    main(*sys.argv[1:])
