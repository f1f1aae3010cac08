"""What other rules on a libvirt's host do to a lab network: firewalld, ufw, Docker's FORWARD policy, br_netfilter.

Pure: it reads the outputs of ``hoplab.host.look``. A problem has the line that mends it. Rules of iptables can be
read by root alone; for others what is known is that Docker is there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network

from hoplab.host.look import HostLook

NFTABLES_SINCE = 10_004_000  # libvirt 10.4 and newer write nftables rules, unless network.conf asks for iptables
BRIDGE_OFF = "sysctl -w net.bridge.bridge-nf-call-iptables=0"


@dataclass(frozen=True)
class Finding:
    """What was found out of one thing; ``remedy`` is "" where it is well. ``needed``: the lab fails with it."""

    name: str
    found: str
    remedy: str = ""
    needed: bool = True


@dataclass(frozen=True)
class LabSide:
    """What of a lab meets the host's rules."""

    network: IPv4Network
    bridge: str
    hosted: bool  # its machines talk to a control plane on the host
    masquerade_hurts: str = ""  # the backend of its CNI, where frames between machines must not meet iptables


def findings(look: HostLook, lab: LabSide, libvirt_version: int) -> list[Finding]:
    """Return a finding for each of the four; ``libvirt_version`` as libvirt gives it: 9.0.0 is 9000000."""
    return [
        bridged(look, lab, libvirt_version),
        forwarding(look, lab, libvirt_version),
        firewalld(look, lab),
        *([] if not ufw_on(look["ufw"]) else [ufw(lab)]),
    ]


def bridged(look: HostLook, lab: LabSide, libvirt_version: int) -> Finding:
    """Return whether frames between machines meet iptables (br_netfilter), where that hurts."""
    name = "frames on bridges"
    if look["bridged"].strip() != "1":
        return Finding(name, "pass beside iptables")
    found = "meet iptables"
    if lab.masquerade_hurts:
        found += f": with {lab.masquerade_hurts} pods would see this host's address where a node asks them"
        return Finding(name, found, BRIDGE_OFF)
    if drops_forwarded(look["filter"]) and writes_nftables(look, libvirt_version):
        return Finding(name, f"{found}, and FORWARD drops them: machines can't reach each other", BRIDGE_OFF)
    return Finding(name, found)


def forwarding(look: HostLook, lab: LabSide, libvirt_version: int) -> Finding:
    """Return whether iptables' FORWARD chain lets packets of the lab network out.

    libvirt's iptables rules accept them before the policy of Docker or ufw. Its nftables rules can't: a packet that one
    table accepts another one still drops.
    """
    name, rules = "forwarding", look["filter"]
    nft = writes_nftables(look, libvirt_version)
    accepted = any(f"-{way} {lab.bridge} -j ACCEPT" in rules for way in "io")
    chain = "DOCKER-USER" if ":DOCKER-USER " in rules or (not rules and look["docker"]) else "FORWARD"
    lines = "; ".join(f"iptables -I {chain} -{way} {lab.bridge} -j ACCEPT" for way in "io")
    if drops_forwarded(rules) and nft and not accepted:
        whose = "Docker's" if chain == "DOCKER-USER" else "iptables'"
        found = f"{whose} FORWARD policy DROP ends packets from machines to the outside (libvirt's rules are nftables)"
        return Finding(name, found, lines, needed=False)
    if not rules and look["docker"] and nft:
        found = "Docker's FORWARD policy, which only root may read, may drop packets from machines to the outside"
        return Finding(name, found, f"where `iptables -S FORWARD` begins with -P FORWARD DROP: {lines}", needed=False)
    if drops_forwarded(rules):
        return Finding(name, "FORWARD drops, libvirt's rules before it accept the lab's packets")
    return Finding(name, "iptables accepts" if rules else "no rules known")


def firewalld(look: HostLook, lab: LabSide) -> Finding:
    """Return whether firewalld lets machines reach a control plane on the host: libvirt's zone rejects its port."""
    name = "firewalld"
    if look["firewalld"].strip() != "running":
        return Finding(name, "does not run")
    rule = f"rule family=ipv4 source address={lab.network} accept"
    line = f"firewall-cmd --permanent --zone=libvirt --add-rich-rule='{rule}' && firewall-cmd --reload"
    zone = look["zone"]
    if str(lab.network) in zone.replace('"', "") or re.search(r"target: ACCEPT", zone):
        return Finding(name, "runs, and its zone libvirt accepts the lab network")
    if not zone:
        return Finding(name, "runs; its zone libvirt can't be read by you", line, needed=False)
    what = "the control plane on this host and what lessons serve there" if lab.hosted else "what lessons serve there"
    return Finding(name, f"its zone libvirt keeps machines from {what}", line, needed=lab.hosted)


def ufw(lab: LabSide) -> Finding:
    """Return what to tell of ufw, whose rules only root may read."""
    what = "the control plane on this host" if lab.hosted else "what lessons serve on this host"
    return Finding(
        "ufw", f"is enabled, and may keep machines from {what}", f"ufw allow in on {lab.bridge}", needed=False
    )


def ufw_on(configuration: str) -> bool:
    """
    >>> ufw_on("# comment\\nENABLED=yes\\n")
    True
    """
    return re.search(r"^ENABLED=yes\s*$", configuration, re.MULTILINE) is not None


def drops_forwarded(rules: str) -> bool:
    """Return whether the FORWARD chain of an `iptables-save -t filter` has the policy DROP.

    >>> drops_forwarded("*filter\\n:FORWARD DROP [0:0]\\n")
    True
    """
    return re.search(r"^:FORWARD DROP\b", rules, re.MULTILINE) is not None


def writes_nftables(look: HostLook, libvirt_version: int) -> bool:
    """Return whether libvirt's networks have nftables rules, not iptables rules."""
    asked = re.search(r"^\s*firewall_backend\s*=\s*\"?(\w+)", look["backend"], re.MULTILINE)
    if libvirt_version < NFTABLES_SINCE:
        return False
    return asked is None or asked[1] != "iptables"
