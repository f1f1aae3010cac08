"""What other rules of a host do to a lab network, from recorded outputs."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from hoplab.host.firewall import Finding, LabSide, bridged, findings, firewalld, forwarding
from hoplab.host.look import HostLook

LAB = LabSide(IPv4Network("192.168.77.0/24"), "hl0a1b2c3d", hosted=True)
VM = LabSide(LAB.network, LAB.bridge, hosted=False)
IPTABLES, NFTABLES = 9_000_000, 11_003_000  # libvirt 9.0 and 11.3
DOCKER = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -j RETURN
COMMIT
"""
ZONE = """\
libvirt (active)
  target: default
  interfaces: virbr0
  services: dhcp dhcpv6 dns ssh tftp
  rich rules:
\trule priority="32767" reject
"""
MENDED = ZONE + '\trule family="ipv4" source address="192.168.77.0/24" accept\n'


def seen(**outputs: str) -> HostLook:
    return HostLook(outputs)


def test_a_host_with_nothing_of_the_kind() -> None:
    assert findings(seen(), LAB, IPTABLES) == [
        Finding("frames on bridges", "pass beside iptables"),
        Finding("forwarding", "no rules known"),
        Finding("firewalld", "does not run"),
    ]


def test_dockers_policy_ends_packets_only_where_libvirt_has_nftables() -> None:
    """moby 52612: a packet that libvirt's nftables rules accept is dropped by iptables' policy."""
    lines = "iptables -I DOCKER-USER -i hl0a1b2c3d -j ACCEPT; iptables -I DOCKER-USER -o hl0a1b2c3d -j ACCEPT"
    found = forwarding(seen(filter=DOCKER), LAB, NFTABLES)
    assert (found.remedy, found.needed) == (lines, False)
    assert found.found.startswith("Docker's FORWARD policy DROP ends packets from machines to the outside")
    assert forwarding(seen(filter=DOCKER), LAB, IPTABLES).remedy == ""
    kept = forwarding(seen(filter=DOCKER, backend='firewall_backend = "iptables"'), LAB, NFTABLES)
    assert kept.found == "FORWARD drops, libvirt's rules before it accept the lab's packets"
    asked = forwarding(seen(filter=DOCKER, backend='#firewall_backend = "iptables"'), LAB, NFTABLES)
    assert asked.remedy == lines
    mended = DOCKER.replace("-A DOCKER-USER -j RETURN", "-A DOCKER-USER -i hl0a1b2c3d -j ACCEPT")
    assert forwarding(seen(filter=mended), LAB, NFTABLES).remedy == ""
    plain = forwarding(seen(filter="*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"), LAB, NFTABLES)
    assert plain.remedy.startswith("iptables -I FORWARD -i hl0a1b2c3d") and plain.found.startswith("iptables' FORWARD")
    assert forwarding(seen(filter="*filter\n:FORWARD ACCEPT [0:0]\n"), LAB, NFTABLES).found == "iptables accepts"


def test_a_user_who_may_not_read_the_rules_is_told_what_to_look_for() -> None:
    found = forwarding(seen(docker="4"), LAB, NFTABLES)
    assert "which only root may read" in found.found and not found.needed
    assert found.remedy.startswith("where `iptables -S FORWARD` begins with -P FORWARD DROP: iptables -I DOCKER-USER")


@pytest.mark.parametrize(
    ("outputs", "version", "ok"),
    [
        ({"bridged": "1", "filter": DOCKER}, NFTABLES, False),
        ({"bridged": "1", "filter": DOCKER}, IPTABLES, True),
        ({"bridged": "0", "filter": DOCKER}, NFTABLES, True),
        ({"bridged": "1"}, NFTABLES, True),
    ],
)
def test_frames_that_a_policy_drops(outputs: dict[str, str], version: int, ok: bool) -> None:
    found = bridged(seen(**outputs), LAB, version)
    assert (found.remedy == "") == ok
    if not ok:
        assert found.found == "meet iptables, and FORWARD drops them: machines can't reach each other"
        assert found.remedy == "sysctl -w net.bridge.bridge-nf-call-iptables=0" and found.needed


def test_frames_that_meet_the_hosts_masquerade() -> None:
    gateway = LabSide(LAB.network, LAB.bridge, hosted=True, masquerade_hurts="host-gw")
    found = bridged(seen(bridged="1"), gateway, IPTABLES)
    assert "with host-gw pods would see this host's address where a node asks them" in found.found
    assert found.remedy == "sysctl -w net.bridge.bridge-nf-call-iptables=0"
    assert bridged(seen(bridged="0"), gateway, IPTABLES).remedy == ""


def test_firewallds_zone_keeps_machines_from_a_hosted_control_plane() -> None:
    line = (
        "firewall-cmd --permanent --zone=libvirt "
        "--add-rich-rule='rule family=ipv4 source address=192.168.77.0/24 accept' && firewall-cmd --reload"
    )
    found = firewalld(seen(firewalld="running", zone=ZONE), LAB)
    assert found == Finding(
        "firewalld",
        "its zone libvirt keeps machines from the control plane on this host and what lessons serve there",
        line,
    )
    machine = firewalld(seen(firewalld="running", zone=ZONE), VM)
    assert (machine.needed, machine.remedy) == (False, line)
    assert firewalld(seen(firewalld="running", zone=MENDED), LAB).remedy == ""
    assert firewalld(seen(firewalld="running", zone=ZONE.replace("default", "ACCEPT")), LAB).remedy == ""
    unread = firewalld(seen(firewalld="running"), LAB)
    assert (unread.found, unread.needed) == ("runs; its zone libvirt can't be read by you", False)


def test_ufw_is_told_of_where_it_is_enabled() -> None:
    found = findings(seen(ufw="# on\nENABLED=yes\n"), LAB, IPTABLES)[-1]
    assert found == Finding(
        "ufw",
        "is enabled, and may keep machines from the control plane on this host",
        "ufw allow in on hl0a1b2c3d",
        needed=False,
    )
    assert [found.name for found in findings(seen(ufw="ENABLED=no"), VM, IPTABLES)][-1] == "firewalld"
