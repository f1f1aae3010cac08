"""libvirt's XML from a resource's properties: pure, and equal to the documents of libvirt provider 0.8.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any
from xml.etree import ElementTree as ET

Inputs = Mapping[str, Any]


def _document(tag: str, **attributes: str) -> ET.Element:
    return ET.Element(tag, attributes)


def _add(parent: ET.Element, tag: str, text: object = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    if text is not None:
        element.text = str(text)
    return element


def _text(element: ET.Element) -> str:
    ET.indent(element)
    return ET.tostring(element, encoding="unicode")


def pool(inputs: Inputs) -> str:
    """Return a directory pool."""
    root = _document("pool", type="dir")
    _add(root, "name", inputs["name"])
    _add(_add(root, "target"), "path", inputs["target"]["path"])
    return _text(root)


@dataclass(frozen=True)
class Backing:
    """Return the volume below a copy-on-write volume."""

    path: str
    format: str


def volume(name: str, *, capacity: int, format: str, backing: Backing | None = None) -> str:
    """Return a volume of this many bytes."""
    root = _document("volume")
    _add(root, "name", name)
    _add(root, "capacity", capacity, unit="bytes")
    target = _add(root, "target")
    _add(target, "format", type=format)
    _add(_add(target, "permissions"), "mode", "644")
    if backing is not None:
        below = _add(root, "backingStore")
        _add(below, "path", backing.path)
        _add(below, "format", type=backing.format)
    return _text(root)


def network(inputs: Inputs) -> str:
    """Return a NAT network, of one family or of both; the host end has the first address of each range."""
    root = _document("network")
    _add(root, "name", inputs["name"])
    _add(root, "forward", mode="nat")
    _add(root, "bridge", name=inputs["bridge"], stp="on")
    dns_inputs = inputs.get("dns", {})
    if inputs.get("domain"):
        local = {"localOnly": "yes"} if dns_inputs.get("localOnly") else {}
        _add(root, "domain", name=inputs["domain"], **local)
    if dns_inputs.get("enabled", "dns" in inputs):
        dns = _add(root, "dns", enable="yes")
        for address, names in dns_hosts(inputs).items():
            dns.append(_dns_host(address, names))
    for cidr in inputs.get("addresses", []):
        range_ = ip_network(cidr)
        _add(root, "ip", family=f"ipv{range_.version}", address=str(range_[1]), prefix=str(range_.prefixlen))
    return _text(root)


def dns_hosts(inputs: Inputs) -> dict[str, list[str]]:
    """Return the entries of the network's DNS server: address -> host names."""
    hosts: dict[str, list[str]] = {}
    for host in inputs.get("dns", {}).get("hosts", []):
        hosts.setdefault(host["ip"], []).append(host["hostname"])
    return hosts


def dns_host(address: str, names: Sequence[str] = ()) -> str:
    """Return one DNS entry, for an update of a running network."""
    return _text(_dns_host(address, names))


def _dns_host(address: str, names: Sequence[str]) -> ET.Element:
    host = _document("host", ip=address)
    for name in names:
        _add(host, "hostname", name)
    return host


@dataclass(frozen=True)
class DiskVolume:
    """Return a volume as the disk of a machine."""

    pool: str
    name: str
    format: str
    path: str = ""  # where the machine shall name the file, in place of pool and volume


def domain(inputs: Inputs, *, arch: str, disks: Sequence[DiskVolume], networks: Sequence[str], uuid: str = "") -> str:
    """Return a machine. ``networks`` are the names behind the interfaces; ``uuid`` redefines an existing one."""
    root = _document("domain", type=inputs.get("type", "kvm"))
    _add(root, "name", inputs["name"])
    if uuid:
        _add(root, "uuid", uuid)
    _add(root, "memory", inputs.get("memory", 512), unit="MiB")
    _add(root, "vcpu", inputs.get("vcpu", 1))
    os = _add(root, "os")
    _add(os, "type", "hvm", arch=arch, **({"machine": inputs["machine"]} if "machine" in inputs else {}))
    for part in ("kernel", "initrd"):
        if inputs.get(part):
            _add(os, part, inputs[part])
    if inputs.get("cmdlines"):
        _add(os, "cmdline", cmdline(inputs["cmdlines"]))
    features = _add(root, "features")
    for feature in ("pae", "acpi", "apic"):
        _add(features, feature)
    if "cpu" in inputs:
        _add(root, "cpu", mode=inputs["cpu"]["mode"])
    devices = _add(root, "devices")
    for index, disk in enumerate(disks):
        _disk(devices, index, disk)
    for interface, network in zip(inputs.get("networkInterfaces", []), networks, strict=True):
        element = _add(devices, "interface", type="network")
        _add(element, "mac", address=interface["mac"].upper())
        _add(element, "source", network=network)
        _add(element, "model", type="virtio")
    for console in inputs.get("consoles", []):
        # Always type "dev", like the provider's. QEMU opens the path even where it is a file.
        element = _add(devices, "console", type="dev")
        _add(element, "source", path=console["sourcePath"])
        _add(element, "target", type=console["targetType"], port=console["targetPort"])
    channel = _add(devices, "channel", type="unix")
    _add(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    graphics = inputs.get("graphics")
    if graphics:
        element = _add(devices, "graphics", type=graphics["type"], autoport="yes" if graphics.get("autoport") else "no")
        _add(element, "listen", type=graphics["listenType"])
    if "video" in inputs:
        _add(_add(devices, "video"), "model", type=inputs["video"]["type"])
    rng = _add(devices, "rng", model="virtio")
    _add(rng, "backend", "/dev/urandom", model="random")
    return _text(root)


def cmdline(groups: Sequence[Mapping[str, str]]) -> str:
    """Return the kernel command line, its arguments in alphabetical order like the provider's."""
    return " ".join(
        sorted(value if key == "_" else f"{key}={value}" for group in groups for key, value in group.items())
    )


def _disk(devices: ET.Element, index: int, disk: DiskVolume) -> None:
    element = _add(devices, "disk", type="file" if disk.path else "volume", device="disk")
    _add(element, "driver", name="qemu", type="qcow2" if disk.format == "qcow2" else "raw")
    _add(element, "source", **({"file": disk.path} if disk.path else {"pool": disk.pool, "volume": disk.name}))
    _add(element, "target", dev="vd" + "abcdefghijklmnopqrstuvwxyz"[index], bus="virtio")


def volume_format(document: str) -> str:
    """Return the format in a volume's XML description."""
    found = ET.fromstring(document).find("./target/format")
    return found.get("type", "raw") if found is not None else "raw"


def volume_capacity(document: str) -> int:
    """Return the virtual size in bytes in a volume's XML description."""
    return int(ET.fromstring(document).findtext("./capacity", "0"))


def network_hosts(document: str) -> dict[str, list[str]]:
    """Return the DNS entries in a network's XML description."""
    return {
        host.get("ip", ""): [name.text or "" for name in host.findall("hostname")]
        for host in ET.fromstring(document).findall("./dns/host")
    }
