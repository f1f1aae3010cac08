"""What the host has, from captures; and whether it is enough."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from hoplab.core.errors import HostError
from hoplab.host.info import HostFacts, host_facts, parse_meminfo, parse_qemu_version
from hoplab.host.ranges import UsedRange


def some(available: int = 8000) -> HostFacts:
    return HostFacts(16000, available, 2, (), True, "7.2.22")


def test_a_clash_names_what_uses_the_range() -> None:
    docker = UsedRange(IPv4Network("172.17.0.0/16"), "Docker's network docker0", "docker0")
    own = UsedRange(IPv4Network("192.168.77.0/24"), "the network of another lab, hl12345678", "hl12345678")
    host = replace(some(), used=(docker, own), networks=(docker.network, own.network))
    assert host.clash(IPv4Network("172.17.3.0/24")) == (docker.network, "Docker's network docker0", "")
    assert host.clash(IPv4Network("192.168.77.0/24")) == (own.network, own.by, "")
    assert host.without("hl12345678").clash(IPv4Network("192.168.77.0/24")) is None
    assert replace(some(), networks=(docker.network,)).clash(IPv4Network("172.16.0.0/12")) == (docker.network, "", "")


def test_memory_is_in_mib() -> None:
    text = "MemTotal:       24684084 kB\nMemAvailable:   23500000 kB\nHugePages_Total:       0\n"
    assert parse_meminfo(text) == {"MemTotal": 24105, "MemAvailable": 22949}


@pytest.mark.parametrize(
    ("said", "version"), [("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\n", "7.2.22"), ("", "")]
)
def test_the_version_of_qemu(said: str, version: str) -> None:
    assert parse_qemu_version(said) == version


def test_host_facts_of_this_host() -> None:
    host = host_facts()
    assert host.cpus >= 1
    assert 0 < host.available_memory_mib <= host.memory_mib


def test_a_host_without_the_tools_is_described_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.host.info.shutil.which", lambda name, path=None: None)
    host = host_facts()
    assert (host.networks, host.qemu_version) == ((), "")


def test_disk_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert some().disk_free_gib(tmp_path / "not" / "yet") == pytest.approx(some().disk_free_gib(tmp_path), rel=0.1)


def test_too_little_memory_is_a_host_error() -> None:
    some().require_memory(8000)
    with pytest.raises(HostError) as error:
        some(available=4000).require_memory(6144)
    assert error.value.message == (
        "the machines need 6144 MiB of memory, and 4000 of the host's 16000 MiB are available"
    )
    assert "fewer workers" in error.value.remedy


def test_too_little_disk_space_is_a_host_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostFacts, "disk_free_gib", lambda self, path: 3.25)
    some().require_disk(tmp_path, 3.0)
    with pytest.raises(HostError) as error:
        some().require_disk(tmp_path, 12)
    assert error.value.message == f"12.0 GiB of disk space are needed at {tmp_path}, and 3.2 GiB are free there"
    assert "./lab image prune" in error.value.remedy
