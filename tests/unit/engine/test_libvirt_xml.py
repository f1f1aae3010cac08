from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt
import pytest

from hoplab.engine import libvirt_xml as xml

AA_HELPER = Path("/usr/lib/libvirt/virt-aa-helper")  # where libvirt is built with AppArmor

DOMAIN: dict[str, Any] = {
    "name": "hoplab-dev-1a2b3c-worker1",
    "type": "qemu",
    "machine": "q35",
    "vcpu": 1,
    "memory": 2048,
    "kernel": "/pool/kernel",
    "initrd": "/pool/initrd",
    "cmdlines": [{"root": "/dev/vda", "console": "ttyS0"}, {"_": "rw"}],
    "disks": [{"volumeId": "/pool/worker1.qcow2"}, {"volumeId": "/pool/worker1-seed.iso"}],
    "networkInterfaces": [{"networkId": "8b1f", "mac": "52:54:00:aa:bb:cc"}],
    "consoles": [{"type": "file", "sourcePath": "/console/worker1.log", "targetType": "serial", "targetPort": "0"}],
    "graphics": {"type": "vnc", "listenType": "none", "autoport": True},
    "video": {"type": "none"},
    "autostart": False,
}
DISKS = [xml.DiskVolume("lab", "worker1.qcow2", "qcow2"), xml.DiskVolume("lab", "worker1-seed.iso", "iso")]
NETWORK: dict[str, Any] = {
    "name": "hoplab-dev-1a2b3c",
    "mode": "nat",
    "bridge": "hl12345678",
    "addresses": ["192.168.77.0/24"],
    "domain": "dev.hoplab",
    "autostart": True,
    "dhcp": {"enabled": False},
    "dns": {
        "enabled": True,
        "localOnly": True,
        "hosts": [{"hostname": "worker1", "ip": "192.168.77.20"}, {"hostname": "alias", "ip": "192.168.77.20"}],
    },
}


def domain(**changed: Any) -> str:
    return xml.domain({**DOMAIN, **changed}, arch="x86_64", disks=DISKS, networks=["lab"])


def test_documents(golden: Callable[[str, str], None]) -> None:
    golden("engine_domain_tcg.xml", domain())
    golden("engine_domain_kvm.xml", domain(type="kvm", cpu={"mode": "host-passthrough"}))
    golden("engine_network.xml", xml.network(NETWORK))
    golden("engine_pool.xml", xml.pool({"name": "hoplab-dev-1a2b3c", "type": "dir", "target": {"path": "/pool"}}))
    backing = xml.Backing("/pool/disk", "qcow2")
    golden("engine_volume.xml", xml.volume("worker1.qcow2", capacity=2**30, format="qcow2", backing=backing))


@pytest.mark.parametrize("document", [domain(), domain(type="kvm", cpu={"mode": "host-passthrough"})])
def test_libvirt_reads_the_domain(document: str) -> None:
    connection = libvirt.open("test:///default")
    kind = 'type="qemu"' if 'type="qemu"' in document else 'type="kvm"'
    defined = connection.defineXML(document.replace(kind, 'type="test"', 1))
    assert defined.name() == "hoplab-dev-1a2b3c-worker1"
    assert defined.maxMemory() == 2048 * 1024
    defined.undefine()
    connection.close()


def test_kernel_arguments_are_sorted_like_the_providers() -> None:
    assert xml.cmdline([{"root": "/dev/vda", "console": "tty0"}, {"console": "ttyS0"}, {"_": "rw quiet"}]) == (
        "console=tty0 console=ttyS0 root=/dev/vda rw quiet"
    )


def test_what_is_read_back() -> None:
    both = xml.network({**NETWORK, "addresses": ["192.168.77.0/24", "fd00:77::/64"]})
    assert '<ip family="ipv6" address="fd00:77::1" prefix="64" />' in both
    assert xml.network_hosts(xml.network(NETWORK)) == xml.dns_hosts(NETWORK) == {"192.168.77.20": ["worker1", "alias"]}
    description = xml.volume("v", capacity=4096, format="qcow2")
    assert (xml.volume_format(description), xml.volume_capacity(description)) == ("qcow2", 4096)
    assert xml.volume_format("<volume><capacity>1</capacity></volume>") == "raw"


def test_disks_are_named_as_files_where_apparmors_profiles_are_made_of_files() -> None:
    named = [xml.DiskVolume("pool", "worker1.qcow2", "qcow2", "/var/lib/libvirt/images/x/worker1.qcow2")]
    text = xml.domain(DOMAIN, arch="x86_64", disks=named, networks=["lab"])
    assert '<disk type="file" device="disk">' in text
    assert '<source file="/var/lib/libvirt/images/x/worker1.qcow2" />' in text


@pytest.mark.skipif(not AA_HELPER.exists(), reason="no virt-aa-helper (libvirt with AppArmor)")
@pytest.mark.parametrize("named", [True, False])
def test_libvirts_own_helper_makes_the_profile_of_disks_that_are_files(named: bool, tmp_path: Path) -> None:
    """Disks that name a pool and a volume are left out of it: QEMU may then not open them."""
    base, disk = tmp_path / "base.qcow2", tmp_path / "worker1.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "1M"], check=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", disk], check=True)
    for name in ("kernel", "initrd", "console"):
        (tmp_path / name).touch()
    inputs = {
        **DOMAIN,
        "kernel": str(tmp_path / "kernel"),
        "initrd": str(tmp_path / "initrd"),
        "consoles": [{"sourcePath": str(tmp_path / "console"), "targetType": "serial", "targetPort": "0"}],
    }
    disks = [xml.DiskVolume("pool", disk.name, "qcow2", str(disk) if named else "")]
    uuid = "0981e874-3a02-43eb-90e8-d7befd74c12a"
    text = xml.domain(inputs, arch="x86_64", disks=disks, networks=["lab"], uuid=uuid)
    command = [str(AA_HELPER), "-d", "-r", "-u", f"libvirt-{uuid}"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    profile = done.stdout + done.stderr
    for name, rights in (("kernel", "r"), ("initrd", "r"), ("console", "rw")):
        assert f'"{tmp_path / name}" {rights},' in profile
    assert (f'"{disk}" rwk,' in profile) == named
    assert (f'"{base}" rk,' in profile) == named
