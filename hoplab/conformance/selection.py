"""Which of upstream's specs run on a lab, and why others can't; pure.

A spec has one long name: "[sig-network] Services should serve a basic endpoint from pods [Conformance]".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hoplab.core.errors import LabError
from hoplab.observe.setting import Setting

NETWORK = "[sig-network] "  # begins the names of the specs about networks
CONFORMANCE = "[Conformance]"  # is in the names of those that every cluster has to pass

# Parts of names, one for each kind of packet that the lessons follow. They take a few minutes on emulated machines.
QUICK = (
    "API Server should provide secure master service",
    "Services should serve a basic endpoint from pods",
    "Services should be able to create a functioning NodePort service",
    "Granular Checks: Pods should function for intra-pod communication: http",
    "DNS should provide DNS for services",
)

NOT_BUILT = "its pods need the image {}, which hoplab does not build"
NEVER = {  # a part of the name, as an expression -> why no lab can run it
    r"\[Disruptive\]": "it stops parts of the cluster and expects a cloud to start them",
    r"\[Flaky\]": "upstream marks it as flaky",
    r"when initial unready endpoints get ready": NOT_BUILT.format("busybox"),
    r"conntrack entries when UDP service target port changes": NOT_BUILT.format("busybox"),
    r"invalid conntrack state bug": NOT_BUILT.format("regression-issue-74839"),
    r"should set TCP CLOSE_WAIT timeout": NOT_BUILT.format("distroless-iptables"),
    r"\[Feature:Networking-Performance\]": "its pods need iperf, which is not in hoplab's agnhost",
    r"configurable pod resolv.conf|DNS configMap": "its pods need a CoreDNS, which is not in hoplab's agnhost",
    r"\[Feature:Networking-(IPv4|IPv6|DNS)\]": "it needs hosts of the internet",
    r"\[Feature:PerformanceDNS\]": "it makes ten thousand services",
    r"\[Provider:": "it is about a cloud",
}


@dataclass(frozen=True)
class Selection:
    """The specs of a run, and those that were asked for and can't run, each with the reason."""

    run: tuple[str, ...]
    impossible: Mapping[str, str]


def parse_list(text: str) -> tuple[str, ...]:
    """Return the names of all specs from the output of `e2e.test --list-tests`: "    file.go:12: name" per line."""
    return tuple(found[1] for line in text.splitlines() if (found := re.match(r"\s+\S+\.go:\d+: (.+)$", line)))


def select(
    names: Iterable[str], setting: Setting, *, focus: str, quick: bool, enforces_policies: bool, emulated: bool
) -> Selection:
    """Return the network specs that match; raise LabError where the expression is none, or none matches it.

    Without ``focus`` these are the ones for conformance, with ``quick`` a few of them.
    """
    try:
        wanted = re.compile(focus)
    except re.error as error:
        raise LabError(
            f"--focus {focus!r} is no regular expression: {error}",
            remedy="a part of a spec's name is enough: --focus 'NodePort'; a bracket of it is written \\[",
        ) from None
    network = [name for name in names if name.startswith(NETWORK)]
    found = [name for name in network if wanted.search(name) and (focus or CONFORMANCE in name)]
    if quick:
        found = [name for name in found if any(part in name for part in QUICK) and CONFORMANCE in name]
    if not found:
        which = f"matches --focus {focus!r}" if focus else "is one for conformance"
        raise LabError(
            f"none of the {len(network)} network specs {which}",
            remedy="docs/conformance.md has names; a part of one is enough: --focus 'NodePort'",
        )
    reasons = {**NEVER, **_lacking(setting, enforces_policies, emulated)}
    impossible = {}
    for name in found:
        for part, reason in reasons.items():
            if re.search(part, name):
                impossible[name] = reason
                break
    return Selection(tuple(name for name in found if name not in impossible), impossible)


def _lacking(setting: Setting, enforces_policies: bool, emulated: bool) -> dict[str, str]:
    """Return what this lab lacks in the same form as NEVER."""
    reasons = {}
    if not enforces_policies:
        reasons[r"NetworkPolicy"] = f"the CNI of this lab, {setting.cni}, enforces no NetworkPolicy"
    if setting.ipv6 is None:
        reasons[r"\[Feature:IPv6DualStack\]"] = "this lab has no IPv6 (lab:ipv6)"
    if setting.load_balancer == "none":
        reasons[r"\[Feature:LoadBalancer\]"] = "this lab has no load balancer (lab:loadBalancer)"
    if emulated:  # docs/conformance.md has what was measured
        reasons[r"Netpol.*\[Feature:SCTPConnectivity\]"] = (
            "agnhost's SCTP server closes at once, and its client writes after that where machines are emulated"
        )
    return reasons


def focus_expression(names: Iterable[str]) -> str:
    """Return the expression, in Go's syntax, that matches exactly these names.

    >>> focus_expression(["[sig-network] DNS works"])
    ' (\\\\[sig-network\\\\] DNS works)$'
    """
    return f" ({'|'.join(map(quoted, names))})$"


def quoted(text: str) -> str:
    r"""Return an expression for the text alone: Go knows no escapes of letters, spaces or characters beyond ASCII.

    >>> quoted("a (b) [c]: d")
    'a \\(b\\) \\[c\\]: d'
    """
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", text)
