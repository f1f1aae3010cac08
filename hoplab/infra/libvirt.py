"""The only module that imports pulumi_libvirt: one function for each resource of the components.

The properties are those of libvirt provider 0.8.1. It can't set a disk's cache mode, a CPU model or a SATA disk
without an XSLT, so: the seed is a virtio disk (cloud-init finds it by its label ``cidata``), an emulated machine gets
libvirt's default CPU (qemu64), and the console is a character device backed by a file that has to exist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pulumi
import pulumi_libvirt as libvirt
from pulumi import Input, Output, ResourceOptions

from hoplab.infra.cloudinit import CloudInit

GIB = 1024**3


def provider(name: str, uri: str, opts: ResourceOptions) -> pulumi.ProviderResource:
    """Return the provider for the libvirt at this URI."""
    return libvirt.Provider(name, uri=uri, opts=opts)


def _owned(parent: pulumi.Resource, **options: Any) -> ResourceOptions:
    """Return options for a child that is deleted before it is replaced: names in libvirt are unique and fixed."""
    return ResourceOptions(parent=parent, delete_before_replace=True, **options)


def pool(name: str, *, pool_name: str, path: Path, parent: pulumi.Resource) -> libvirt.Pool:
    """Create a directory of volumes."""
    return libvirt.Pool(
        name, name=pool_name, type="dir", target=libvirt.PoolTargetArgs(path=str(path)), opts=_owned(parent)
    )


def uploaded_volume(
    name: str, *, volume: str, pool: Input[str], source: Path, format: Literal["qcow2", "raw"], parent: pulumi.Resource
) -> libvirt.Volume:
    """Create a volume with the content of a file. The digest in its name lets a replacement exist beside it."""
    return libvirt.Volume(
        name, name=volume, pool=pool, source=str(source), format=format, opts=ResourceOptions(parent=parent)
    )


def overlay_volume(
    name: str,
    *,
    volume: str,
    pool: Input[str],
    base: Input[str],
    size_gib: int,
    parent: pulumi.Resource,
    after: Sequence[pulumi.Resource] = (),
) -> libvirt.Volume:
    """Create a copy-on-write disk on top of another volume, once the resources in ``after`` are complete."""
    opts = _owned(parent, depends_on=list(after))
    return libvirt.Volume(
        name, name=volume, pool=pool, base_volume_id=base, size=size_gib * GIB, format="qcow2", opts=opts
    )


def seed_disk(
    name: str, *, volume: str, pool: Input[str], seed: CloudInit, parent: pulumi.Resource
) -> libvirt.CloudInitDisk:
    """Create an ISO image with the three NoCloud files. The user data holds the host's private key."""
    return libvirt.CloudInitDisk(
        name,
        name=volume,
        pool=pool,
        user_data=Output.secret(seed.user_data),
        meta_data=seed.meta_data,
        network_config=seed.network_config,
        opts=_owned(parent),
    )


def seed_volume_id(disk: libvirt.CloudInitDisk) -> Output[str]:
    """Return the id of the volume below a seed disk: the provider's id is "<volume id>;<random>"."""
    return disk.id.apply(lambda id: id.split(";")[0])


def nat_network(
    name: str,
    *,
    network: str,
    bridge: str,
    cidrs: list[str],
    domain: str,
    hosts: Mapping[str, str],
    parent: pulumi.Resource,
) -> libvirt.Network:
    """Create a bridge with NAT to the outside and a DNS server on its host end; no DHCP, as addresses are static.

    An IPv6 range is routed to the outside without NAT: the provider has no NAT for it.
    """
    return libvirt.Network(
        name,
        name=network,
        mode="nat",
        bridge=bridge,
        addresses=cidrs,
        domain=domain,
        autostart=True,
        dhcp=libvirt.NetworkDhcpArgs(enabled=False),
        dns=libvirt.NetworkDnsArgs(
            enabled=True,
            local_only=True,
            hosts=[libvirt.NetworkDnsHostArgs(hostname=host, ip=address) for host, address in hosts.items()],
        ),
        opts=_owned(parent),
    )


def domain(
    name: str,
    *,
    domain: str,
    accel: Literal["kvm", "tcg"],
    vcpus: int,
    memory_mib: int,
    kernel: Input[str],
    initrd: Input[str],
    cmdline: str,
    disks: list[Input[str]],
    network: Input[str],
    mac: str,
    console: Input[str],
    parent: pulumi.Resource,
) -> libvirt.Domain:
    """Create a running machine that boots its kernel directly; ``disks`` become /dev/vda, /dev/vdb, ..."""
    return libvirt.Domain(
        name,
        name=domain,
        type="kvm" if accel == "kvm" else "qemu",
        machine="q35",
        cpu=libvirt.DomainCpuArgs(mode="host-passthrough") if accel == "kvm" else None,
        vcpu=vcpus,
        memory=memory_mib,
        kernel=kernel,
        initrd=initrd,
        cmdlines=kernel_arguments(cmdline),
        disks=[libvirt.DomainDiskArgs(volume_id=disk) for disk in disks],
        network_interfaces=[libvirt.DomainNetworkInterfaceArgs(network_id=network, mac=mac.upper())],
        consoles=[libvirt.DomainConsoleArgs(type="file", source_path=console, target_type="serial", target_port="0")],
        graphics=libvirt.DomainGraphicsArgs(type="vnc", listen_type="none", autoport=True),  # its default needs SPICE
        video=libvirt.DomainVideoArgs(type="none"),
        autostart=False,
        opts=_owned(parent),
    )


def kernel_arguments(cmdline: str) -> list[Mapping[str, Input[str]]]:
    """Return a kernel command line in the form that the provider writes and reads.

    >>> kernel_arguments("root=/dev/vda console=tty0 console=ttyS0 ro quiet")
    [{'root': '/dev/vda', 'console': 'tty0'}, {'console': 'ttyS0'}, {'_': 'ro quiet'}]
    """
    groups: list[dict[str, Input[str]]] = [{}]
    flags: list[str] = []
    for word in cmdline.split():
        key, equals, value = word.partition("=")
        if not equals:
            flags.append(word)
            continue
        if key in groups[-1]:
            groups.append({})
        groups[-1][key] = value
    if flags:
        groups.append({"_": " ".join(flags)})
    return [group for group in groups if group]
