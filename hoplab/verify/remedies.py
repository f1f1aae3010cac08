"""The commands that show why a claim fails, and mend it where that is safe: a marker of its lesson.

    pytestmark = pytest.mark.remedy("ssh {node} ip -d link")  # of a whole module

    @pytest.mark.remedy(
        "ssh {node} ip link show {dev}",
        mends="ssh {node} sudo ip link set {dev} up",
        says="(?P<dev>[^ ]+) of [^ ]+ is down",
    )
    def test_...

Both are verbs of `./lab`; on a cluster that hoplab did not make they are programs of the user, `ssh` with the node's
name and `kubectl`. They are filled in with what the failure names: {node}, {namespace} and {pod}, {netns} of the
pod, {service}, the groups of ``says``, and {service_rules}, the command that lists kube-proxy's rules. A command that
lacks one of them is left out. A remedy with ``says`` is for failures whose sentence it matches; it comes before those
without, and one of the lesson before one of its module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hoplab.verify.places import Named, Places

# A program that starts writes its rules and routes anew
_POD_OF_NODE = "--field-selector spec.nodeName={node}"
RESTART_FLANNEL = f"kubectl delete pod -n kube-flannel -l app=flannel {_POD_OF_NODE}"
RESTART_KUBE_PROXY = f"kubectl delete pod -n kube-system -l k8s-app=kube-proxy {_POD_OF_NODE}"

PROGRAMS = ("ssh", "kubectl")  # verbs that are programs too
DEFAULT_LAB = "dev"  # what `./lab` takes without --lab
SERVICE_RULES = {"nftables": "nft list table ip kube-proxy"}  # what lists kube-proxy's rules in a mode


@dataclass(frozen=True)
class Remedy:
    """Two commands for failures of a lesson."""

    shows: str
    mends: str = ""
    says: str = ""  # a pattern that the reason of the failure has to contain
    cni: str = ""  # for labs with this CNI only

    def values(self, why: str, places: Places) -> Mapping[str, str] | None:
        """Return the groups of the pattern; None where the remedy is for other failures."""
        found = re.search(self.says, why)
        if not found or (self.cni and self.cni != places.cni):
            return None
        return {name: value for name, value in found.groupdict().items() if value}


def commands(remedies: Iterable[Remedy], why: str, named: Named, places: Places) -> tuple[str, str]:
    """Return the commands that show and mend a failure, "" for each that there is not."""
    known = {"service_rules": SERVICE_RULES.get(places.proxy_mode, "iptables-save")}
    if named.nodes:
        known["node"] = named.nodes[0]
    if named.services:
        known["namespace"], _, known["service"] = named.services[0].partition("/")
    if named.pods:
        known["namespace"], _, known["pod"] = named.pods[0].partition("/")
        known |= {"netns": places.netns[named.pods[0]]} if named.pods[0] in places.netns else {}
    for remedy in sorted(remedies, key=lambda remedy: not remedy.says):
        values = remedy.values(why, places)
        if values is not None and (shows := _filled(remedy.shows, {**known, **values}, places)):
            return shows, _filled(remedy.mends, {**known, **values}, places)
    return "", ""


def _filled(text: str, values: Mapping[str, str], places: Places) -> str:
    """Return `./lab VERB ...` for the lab, or the program for another cluster; "" where a value is missing."""
    try:
        verb, _, rest = text.format_map(dict(values)).partition(" ")
    except KeyError:
        return ""
    if places.foreign:
        return f"{verb} {rest}" if verb in PROGRAMS else ""
    lab = places.lab
    option = "" if lab in ("", DEFAULT_LAB) else f"--lab {lab} "
    return f"./lab {verb} {option}{rest}" if verb else ""
