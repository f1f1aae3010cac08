"""Remedies name the packages and the install command of the distribution at hand."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import astuple

import pytest

from hoplab import image
from hoplab.core.packages import NOT_PACKAGED, PACKAGES, SETUP, install_remedy, service_remedy, setup_remedy
from hoplab.core.paths import PROJECT
from hoplab.devtools import distribution_page
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
    assert {*doctor.TOOLS, *libvirtd.TOOLS, *image.HOST_PROGRAMS, "newuidmap"} == set(PACKAGES)


def test_the_lab_script_installs_what_the_table_has_for_debian() -> None:
    script = (PROJECT / "lab").read_text()
    lines = script[script.index("packages=(") : script.index("\n)")].splitlines()[1:]
    listed = {word for line in lines for word in line.split("#")[0].split()}
    rows = {**SETUP, **PACKAGES}
    python = set(rows.pop("Python").debian.split())  # the script looks which of these are needed
    assert listed == {word for name, row in rows.items() if name not in NOT_PACKAGED for word in row.debian.split()}
    assert all(f"{name}" in script for name in python)


@pytest.mark.parametrize(
    ("fields", "begins", "services"),
    [
        ({"ID": "debian"}, "apt-get install --no-install-recommends ca-certificates conntrack ", "libvirtd"),
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, "apt-get install --no-install-recommends ca-certificates ", "libvirtd"),
        (
            {"ID": "fedora"},
            "dnf install ca-certificates conntrack-tools ",
            "virtqemud.socket virtnetworkd.socket virtstoraged.socket",
        ),
        ({"ID": "arch"}, "pacman -S --needed ca-certificates cdrtools ", "libvirtd"),
        (
            {"ID": "opensuse-tumbleweed", "ID_LIKE": "opensuse suse"},
            "zypper install ca-certificates conntrack-tools ",
            "virtqemud.socket virtnetworkd.socket virtstoraged.socket",
        ),
        ({"ID": "nixos"}, "install what Debian has in ca-certificates ", "libvirtd"),
    ],
)
def test_set_up_and_services_of_a_distribution(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], begins: str, services: str
) -> None:
    release(monkeypatch, **fields)
    assert setup_remedy().startswith(begins) and " golang" not in setup_remedy()
    assert service_remedy() == f"systemctl enable --now {services}"


def test_the_table_needs_no_package_of_python() -> None:
    """The script asks it before there is a virtual environment."""
    words = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        "import sys; sys.path.insert(0, sys.argv[1]); import hoplab.core.packages",
    ]
    subprocess.run([*words, str(PROJECT)], check=True, timeout=60)


@pytest.mark.docs
def test_the_page_of_distributions_has_the_table() -> None:
    text = distribution_page.PAGE.read_text(encoding="utf-8")
    assert distribution_page.page(text) == text, "run: python -m hoplab.devtools.distribution_page"
    for distribution in ("Debian 13", "Ubuntu 26.04", "Fedora", "Arch Linux", "openSUSE Tumbleweed"):
        assert distribution in text


def test_names_of_packages_are_plain_words() -> None:
    names = " ".join(name for packages in [*PACKAGES.values(), *SETUP.values()] for name in astuple(packages)).split()
    assert all(name.replace("-", "").isalnum() and name.islower() for name in names)
