"""What the host has, from captures; and whether it is enough."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from hoplab.core.errors import HostError
from hoplab.host.info import HostFacts, host_facts, parse_meminfo, parse_networks, parse_qemu_version

ADDRESSES = json.dumps(
    [
        {"ifname": "lo", "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8}]},
        {"ifname": "ifb0", "addr_info": []},
        {
            "ifname": "eth0",
            "addr_info": [
                {"family": "inet", "local": "198.51.100.7", "prefixlen": 24},
                {"family": "inet6", "local": "fe80::1", "prefixlen": 64},
            ],
        },
    ]
)
ROUTES = json.dumps(
    [
        {"dst": "default", "gateway": "198.51.100.1", "dev": "eth0"},
        {"dst": "198.51.100.0/24", "dev": "eth0"},
        {"dst": "203.0.113.9", "dev": "wg0"},
        {"type": "unreachable", "dst": "203.0.113.128/25"},
    ]
)


def some(available: int = 8000) -> HostFacts:
    return HostFacts(16000, available, 2, (), True, "7.2.22")


def test_networks_are_those_of_addresses_and_routes() -> None:
    expected = ("198.51.100.0/24", "203.0.113.9/32", "203.0.113.128/25")
    assert parse_networks(ADDRESSES, ROUTES) == tuple(IPv4Network(network) for network in expected)


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
