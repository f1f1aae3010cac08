"""The one table of distributions: packages, install command and libvirt's services; for set-up, doctor and remedies.

The `lab` script installs Debian's packages, and a test holds its list against this table; for others it prints the
command of ``python -m hoplab.core.packages``, which needs nothing but Python's standard library.
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
    "newuidmap": Packages("uidmap", "shadow-utils", "shadow", "shadow"),
    "tar": Packages("tar", "tar", "tar", "tar"),
}
# What set-up needs beside these programs; the names are what it is
SETUP: Mapping[str, Packages] = {
    "CA certificates": Packages("ca-certificates", "ca-certificates", "ca-certificates", "ca-certificates"),
    "Debian's keys": Packages("debian-archive-keyring", "debian-keyring", "debian-archive-keyring", ""),
    "C headers": Packages("libc6-dev", "glibc-devel", "glibc", "glibc-devel"),
    "libvirt's headers": Packages("libvirt-dev", "libvirt-devel", "libvirt", "libvirt-devel"),
    "pkg-config": Packages("pkg-config", "pkgconf-pkg-config", "pkgconf", "pkg-config"),
    "Python": Packages("python3 python3-venv python3-dev", "python3 python3-devel", "python", "python3 python3-devel"),
    "virsh": Packages("libvirt-clients", "libvirt-client", "libvirt", "libvirt-client"),
    "ipset": Packages("ipset", "ipset", "ipset", "ipset"),
    "conntrack": Packages("conntrack", "conntrack-tools", "conntrack-tools", "conntrack-tools"),
    "tcpdump": Packages("tcpdump", "tcpdump", "tcpdump", "tcpdump"),
    "ps": Packages("procps", "procps-ng", "procps-ng", "procps"),
}
NOT_PACKAGED = ("go", "tar")  # Go has to be newer than a distribution's (requirements.lock has it); tar is everywhere

MONOLITHIC = ("libvirtd",)
MODULAR = ("virtqemud.socket", "virtnetworkd.socket", "virtstoraged.socket")  # one daemon for each driver


@dataclass(frozen=True)
class Family:
    """Distributions that install alike."""

    field: str  # of Packages
    install: str  # the command
    services: tuple[str, ...]  # systemd's units of a system libvirt
    members: tuple[str, ...]  # for people


DEBIAN = Family(
    "debian",
    "apt-get install --no-install-recommends",
    MONOLITHIC,
    ("Debian 12", "Debian 13", "Ubuntu 24.04", "Ubuntu 26.04"),
)
FEDORA = Family("fedora", "dnf install", MODULAR, ("Fedora",))
ARCH = Family("arch", "pacman -S --needed", MONOLITHIC, ("Arch Linux",))
SUSE = Family("suse", "zypper install", MODULAR, ("openSUSE Tumbleweed",))
FAMILIES = (DEBIAN, FEDORA, ARCH, SUSE)
KNOWN = {  # ID or a word of ID_LIKE in /etc/os-release
    **dict.fromkeys(("debian", "ubuntu"), DEBIAN),
    **dict.fromkeys(("fedora", "rhel"), FEDORA),
    "arch": ARCH,
    **dict.fromkeys(("suse", "opensuse"), SUSE),
}


def install_remedy(programs: Iterable[str]) -> str:
    """Return the command that installs these programs on the distribution at hand, by /etc/os-release.

    Programs that the distribution has no package for are named. For an unknown distribution the packages are Debian's.
    """
    return _remedy({program: PACKAGES[program] for program in programs})


def setup_remedy() -> str:
    """Return the command that installs all that set-up and labs need, on the distribution at hand."""
    return _remedy({name: row for name, row in {**SETUP, **PACKAGES}.items() if name not in NOT_PACKAGED})


def service_remedy() -> str:
    """Return the command that starts the system's libvirt on the distribution at hand."""
    return f"systemctl enable --now {' '.join((family() or DEBIAN).services)}"


def family() -> Family | None:
    """Return the family of the distribution at hand, by /etc/os-release; None for an unknown one."""
    return next((KNOWN[name] for name in _families() if name in KNOWN), None)


def _remedy(wanted: Mapping[str, Packages]) -> str:
    here = family()
    command = here.install if here else ""
    names = {name: str(getattr(row, (here or DEBIAN).field)) for name, row in wanted.items()}
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


if __name__ == "__main__":
    print(setup_remedy())
