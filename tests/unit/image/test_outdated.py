"""The table's versions beside the newest ones, without a network."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hoplab import cli, image
from hoplab.core.errors import ImageError
from hoplab.image import debian, outdated
from hoplab.image.outdated import Version, compare
from hoplab.image.store import Store
from hoplab.spec.catalog import components

STATUS = """\
Package: curl
Status: install ok installed
Version: 8.14.1-2
Description: with a line that
 says Version: 9

Package: libc6
Version: 2.41-1

Package: gone
Version: 1
"""
OFFERS = """\
Inst curl (8.14.1-2+deb13u7 Debian:13.8/stable [amd64])
Inst libc6 (2.41-1 Debian:13.8/stable [amd64]) []
Conf libc6 (2.41-1 Debian:13.8/stable [amd64])
"""


def asked(argv: list[str], what: str, cwd: Path | None, env: Mapping[str, str]) -> str:
    """What Go and mmdebstrap print: etcd has a newer version, everything else is 1.37.2."""
    if argv[0] == "go":
        assert cwd and not list(cwd.iterdir()), "a go.mod would have a say"
        assert env["GOWORK"] == "off" and what == f"the newest version of {argv[-1].partition('@')[0]}"
        if argv[-1] == "k8s.io/kubernetes@v1.36":
            return "v1.36.9\n"
        assert argv[-1].endswith("@latest")
        return "v3.7.3\n" if "etcd" in argv[-1] else "v1.37.2\ngo: warning: ignoring go.mod in system temp root\n"
    assert "--simulate" in argv
    return OFFERS


def write_root(archive: Path, status: str) -> None:
    """Write a root file system with nothing but the list of its packages."""
    with tarfile.open(archive, "w") as tar:
        entry = tarfile.TarInfo(outdated.STATUS)
        entry.size = len(status)
        tar.addfile(entry, io.BytesIO(status.encode()))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A cache with the Debian system of nodes."""
    found = Store(tmp_path / "image")

    def bootstrap(output: Path) -> dict[str, Any]:
        write_root(output / debian.ROOT_TAR, STATUS)
        return {}

    found.make("debian-node", debian.key(components().debian["node"]), bootstrap, space_gib=0)
    return found


def test_modules_and_packages(store: Store) -> None:
    found, missing = compare(components(), store, asked)
    by_name = {version.name: version for version in found}
    assert not by_name["kubernetes"].outdated and by_name["containerd-shim"].newest == "1.37.2"
    assert (by_name["etcd"].outdated, by_name["etcd"].newest) == (True, "3.7.3")
    assert "kubeadm" in by_name["etcd"].held
    assert "echo" not in by_name, "ours has no newer version"
    assert by_name["node: curl"] == Version("node: curl", "8.14.1-2", "8.14.1-2+deb13u7", package=True)
    assert not by_name["node: libc6"].outdated and "node: gone" not in by_name
    assert missing == ["container", "ingress"]


def test_packages_that_were_added_are_compared_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    tools, asked_for = components().debian["node-tools"], []

    def bootstrap(output: Path) -> dict[str, Any]:
        write_root(output / debian.ROOT_TAR, STATUS + "\nPackage: pwru\nVersion: 1.0.5\n")
        return {}

    assert tools.onto
    store.make("debian-node-tools", debian.key(tools, debian.find(tools.onto, store)), bootstrap, space_gib=0)

    def more(argv: list[str], *rest: Any) -> str:
        asked_for.append(argv)
        return asked(argv, *rest) + ("Inst pwru (1.0.6 Debian:13.8/stable [amd64])\n" if argv[0] != "go" else "")

    found, _ = compare(components(), store, more)
    added = [version for version in found if version.name.startswith("node-tools: ")]
    assert added == [Version("node-tools: pwru", "1.0.5", "1.0.6", package=True)]
    argv = asked_for[-1]
    assert "--variant=minbase" in argv and not any("hook" in word for word in argv)
    (packages,) = [word for word in argv if word.startswith("--include=")]
    assert {"curl", "pwru"} <= set(packages.removeprefix("--include=").split(","))


def test_the_verb(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outdated, "_run", asked)
    monkeypatch.setattr(image, "_store", lambda: store)
    ran = CliRunner().invoke(cli.cli, ["image", "outdated"])
    assert ran.exit_code == 0, ran.output
    lines = [" ".join(line.split()) for line in ran.stdout.splitlines()]
    assert "kubernetes 1.37.2 is the newest" in lines
    assert "etcd 3.7.0 newest 3.7.3 (kubeadm 1.37 asks for etcd:3.7.0-0)" in lines
    assert "kubernetes of 1.36 1.36.3 newest 1.36.9" in lines, "beside the newest patch of its minor"
    assert "etcd of 1.36 3.6.8 newest 3.7.3 (kubeadm 1.36 asks for this one)" in lines
    assert not any(line.startswith("containerd of") for line in lines), "all minors share it"
    assert "node: curl 8.14.1-2 newest 8.14.1-2+deb13u7" in lines
    assert not any("libc6" in line for line in lines), "thousands of packages that are the newest"
    assert "Debian: 1 of 2 packages are the newest" in lines
    assert "Debian: the packages of ingress are not compared, the cache has no such system yet" in lines


def test_every_held_version_has_its_reason() -> None:
    held = {name for name, component in components().go.items() if component.held}
    assert held == {"etcd", "coredns", "flannel-cni"}


def test_without_a_network(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = [sys.executable, "-c", "import sys; sys.exit('first\\ndial tcp: no such host')"]
    monkeypatch.setattr(outdated, "_run", lambda _argv, what, cwd, env: run(fails, what, cwd, env))
    with pytest.raises(ImageError, match=r"the newest version of \S+ is not known: dial tcp: no such host") as raised:
        compare(components(), store)
    assert "GOPROXY" in raised.value.remedy


def test_without_a_program() -> None:
    with pytest.raises(ImageError, match="it is not known: no-such-program is missing"):
        run(["no-such-program"], "it", None, {})


def test_a_program_that_fails_in_silence() -> None:
    with pytest.raises(ImageError, match=r"it is not known: .* ended with 3"):
        run([sys.executable, "-c", "raise SystemExit(3)"], "it", None, {})


def test_an_archive_that_offers_nothing(store: Store) -> None:
    with pytest.raises(ImageError, match="the packages of Debian trixie are not known: apt offers none"):
        compare(components(), store, lambda argv, *rest: asked(argv, *rest) if argv[0] == "go" else "")


run = outdated._run
