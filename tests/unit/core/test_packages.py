"""Remedies name the packages and the install command of the distribution at hand."""

from __future__ import annotations

import platform
from dataclasses import astuple

import pytest

from hoplab import image
from hoplab.core.packages import PACKAGES, install_remedy
from hoplab.core.paths import PROJECT
from hoplab.host import libvirtd
from hoplab.lab import doctor


def release(monkeypatch: pytest.MonkeyPatch, **fields: str) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: fields)


@pytest.mark.parametrize(
    ("fields", "remedy"),
    [
        ({"ID": "debian"}, "apt-get install --no-install-recommends iproute2 qemu-utils"),
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, "apt-get install --no-install-recommends iproute2 qemu-utils"),
        (
            {"ID": "linuxmint", "ID_LIKE": "ubuntu debian"},
            "apt-get install --no-install-recommends iproute2 qemu-utils",
        ),
        ({"ID": "fedora"}, "dnf install iproute qemu-img"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "dnf install iproute qemu-img"),
        ({"ID": "arch"}, "pacman -S --needed iproute2 qemu-img"),
        ({"ID": "opensuse-tumbleweed", "ID_LIKE": "opensuse suse"}, "zypper install iproute2 qemu-tools"),
        ({"ID": "nixos"}, "install what Debian has in iproute2 qemu-utils"),
        ({}, "install what Debian has in iproute2 qemu-utils"),
    ],
)
def test_the_remedy_is_the_install_command_of_the_distribution(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], remedy: str
) -> None:
    release(monkeypatch, **fields)
    assert install_remedy(["qemu-img", "ip"]) == remedy


def test_a_host_without_os_release_gets_debians_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> dict[str, str]:
        raise OSError

    monkeypatch.setattr(platform, "freedesktop_os_release", missing)
    assert install_remedy(["ip"]) == "install what Debian has in iproute2"


def test_a_program_without_a_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    release(monkeypatch, ID="arch")
    unpackaged = "this distribution has no package of mmdebstrap: install it from its source"
    assert install_remedy(["mmdebstrap", "gcc"]) == f"pacman -S --needed gcc; {unpackaged}"
    assert install_remedy(["mmdebstrap"]) == unpackaged


def test_a_package_of_two_programs_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    release(monkeypatch, ID="debian")
    assert install_remedy(["unshare", "setpriv"]) == "apt-get install --no-install-recommends util-linux"


def test_every_program_that_is_looked_for_is_in_the_table() -> None:
    assert {*doctor.TOOLS, *libvirtd.TOOLS, *image.HOST_PROGRAMS} == set(PACKAGES)


def test_every_program_is_in_a_package_that_the_lab_script_installs() -> None:
    script = (PROJECT / "lab").read_text()
    listed = script[script.index("packages=(") : script.index("\n)")].replace("\n", " ")
    own = {"go", "tar"}  # Go has to be newer than Debian's, tar is in every Debian
    assert [name for name in PACKAGES if name not in own and f" {PACKAGES[name].debian} " not in listed] == []


def test_names_of_packages_are_plain_words() -> None:
    names = " ".join(name for packages in PACKAGES.values() for name in astuple(packages)).split()
    assert all(name.replace("-", "").isalnum() and name.islower() for name in names)
