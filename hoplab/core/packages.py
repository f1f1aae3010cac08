"""The one table of programs the workstation needs, and of the packages that have them, per distribution.

The `lab` script installs Debian's; a test holds its list against this table.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Packages:
    """The packages of one program, several separated by spaces; "" where the distribution has none."""

    debian: str  # and Ubuntu
    fedora: str
    arch: str
    suse: str


PACKAGES: Mapping[str, Packages] = {
    "qemu-system-x86_64": Packages("qemu-system-x86", "qemu-system-x86", "qemu-system-x86", "qemu-x86"),
    "qemu-img": Packages("qemu-utils", "qemu-img", "qemu-img", "qemu-tools"),
    "libvirtd": Packages(
        "libvirt-daemon-system", "libvirt-daemon libvirt-daemon-kvm", "libvirt", "libvirt-daemon libvirt-daemon-qemu"
    ),
    "dnsmasq": Packages("dnsmasq-base", "dnsmasq", "dnsmasq", "dnsmasq"),
    "mmdebstrap": Packages("mmdebstrap", "mmdebstrap", "", ""),
    "mke2fs": Packages("e2fsprogs", "e2fsprogs", "e2fsprogs", "e2fsprogs"),
    "mkisofs": Packages("genisoimage", "genisoimage", "cdrtools", "mkisofs"),
    "ip": Packages("iproute2", "iproute", "iproute2", "iproute2"),
    "iptables": Packages("iptables", "iptables-nft", "iptables", "iptables"),
    "nft": Packages("nftables", "nftables", "nftables", "nftables"),
    "ssh": Packages("openssh-client", "openssh-clients", "openssh", "openssh-clients"),
    "socat": Packages("socat", "socat", "socat", "socat"),
    "modprobe": Packages("kmod", "kmod", "kmod", "kmod"),
    "gcc": Packages("gcc", "gcc", "gcc", "gcc"),
    "go": Packages("golang-go", "golang", "go", "go"),
    "unshare": Packages("util-linux", "util-linux", "util-linux", "util-linux"),
    "setpriv": Packages("util-linux", "util-linux", "util-linux", "util-linux"),
    "tar": Packages("tar", "tar", "tar", "tar"),
}
INSTALL = {  # family of distributions, as ID or ID_LIKE of /etc/os-release name it -> field of Packages, command
    "debian": ("debian", "apt-get install --no-install-recommends"),
    "ubuntu": ("debian", "apt-get install --no-install-recommends"),
    "fedora": ("fedora", "dnf install"),
    "rhel": ("fedora", "dnf install"),
    "arch": ("arch", "pacman -S --needed"),
    "suse": ("suse", "zypper install"),
    "opensuse": ("suse", "zypper install"),
}


def install_remedy(programs: Iterable[str]) -> str:
    """Return the command that installs these programs on the distribution at hand, by /etc/os-release.

    Programs that the distribution has no package for are named. For an unknown distribution the packages are Debian's.
    """
    wanted = list(programs)
    families = [family for family in _families() if family in INSTALL]
    field, command = INSTALL[families[0]] if families else ("debian", "")
    names = {program: str(getattr(PACKAGES[program], field)) for program in wanted}
    packages = sorted({package for name in names.values() for package in name.split()})
    unpackaged = [program for program, name in names.items() if not name]
    parts = [f"{command or 'install what Debian has in'} {' '.join(packages)}"] if packages else []
    if unpackaged:
        parts.append(f"this distribution has no package of {', '.join(unpackaged)}: install it from its source")
    return "; ".join(parts)


def _families() -> list[str]:
    """Return the distribution's ID and those it is like, the closest first; none without /etc/os-release."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return []
    return [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
