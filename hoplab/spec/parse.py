"""The lab spec: what was asked for, in ``Pulumi.<lab>.yaml`` under the config namespace ``lab``.

``load_spec`` reads the file, ``parse_spec`` is pure. Every mistake is collected before any is reported, and the checks
between fields run only on fields that are right in themselves. docs/spec.md lists the fields.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Interface, IPv6Network
from itertools import combinations
from typing import Any, Literal, Protocol, cast

import yaml

from hoplab.core.errors import LabError, Mistake, SpecError
from hoplab.core.paths import LabPaths
from hoplab.spec.catalog import components

Accel = Literal["auto", "kvm", "tcg"]
Placement = Literal["auto", "vm", "hosted"]
Engine = Literal["auto", "pulumi", "embedded"]

FIRST_CONTROL_PLANE = 10  # host number in the lab network of the first control-plane VM
FIRST_WORKER = 20  # ... and of the first worker
NODE_POD_PREFIX = 24  # every node gets a /24 of the pod range (kube-controller-manager's default)
NODE_POD_PREFIX6 = 64  # ... and a /64 of that of IPv6
MOST_POD_BITS = 16  # by which the ranges of nodes may be longer than the pod range (kube-controller-manager's limit)
SERVICE_PREFIXES6 = (108, 123)  # the API server's limit is 20 bits; and kube-dns has the tenth address
LONGEST_POOL = 10  # addresses of a load balancer's pool that nobody asked for
NAME_LENGTH = 20  # of a lab: its name is part of network, namespace, domain and socket names

CNI_BACKENDS: Mapping[str, tuple[str, ...]] = {
    "flannel": ("vxlan", "host-gw", "wireguard"),
    "calico": ("bgp", "ipip", "vxlan"),
}
NFTABLES_CNIS = ("flannel",)  # can be told to write rules of nftables in place of iptables
BLOCK_SIZES = (20, 30)  # prefix lengths; Calico allows /32 too, but no pod would be beside another one
PROXY_MODES = ("iptables", "nftables")
INGRESS_CONTROLLERS = ("auto", "none", "readable", "nginx", "ingress-nginx")
LOAD_BALANCERS = ("none", "metallb")
NOT_YET = {
    "cni": ("cilium",),
    "ingress": ("traefik", "contour"),
}  # known, but no role here yet


@dataclass(frozen=True)
class NodeSize:
    """The size asked for; ``None``: the default for role and acceleration (``machine_size``)."""

    vcpus: int | None = None
    memory_mib: int | None = None
    disk_gib: int | None = None


@dataclass(frozen=True)
class CniSpec:
    name: str = "flannel"
    backend: str = "vxlan"
    nftables: bool = False  # its own rules, MASQUERADE for one: in nftables, not iptables
    block_size: int = 26  # prefix length of the blocks that nodes take of the pod range; Calico's alone


@dataclass(frozen=True)
class Ipv6Spec:
    """The ranges of a lab's second family."""

    network: IPv6Network = field(default_factory=lambda: IPv6Network("fd00:77::/64"))
    pod_cidr: IPv6Network = field(default_factory=lambda: IPv6Network("fd00:244::/48"))
    service_cidr: IPv6Network = field(default_factory=lambda: IPv6Network("fd00:96::/112"))


@dataclass(frozen=True)
class AddressRange:
    """Addresses from the first to the last, both included: ``192.168.77.245-192.168.77.254``."""

    first: IPv4Address
    last: IPv4Address

    @classmethod
    def parse(cls, text: str) -> AddressRange:
        """Two addresses, a network or one address; ValueError for anything else.

        >>> str(AddressRange.parse("192.168.77.240/29")), str(AddressRange.parse("192.168.77.9"))
        ('192.168.77.240-192.168.77.247', '192.168.77.9')
        """
        first, dash, last = (part.strip() for part in text.partition("-"))
        if not dash:
            network = IPv4Network(first)
            return cls(network[0], network[-1])
        found = cls(IPv4Address(first), IPv4Address(last))
        if found.last < found.first:
            raise ValueError(f"{last} is before {first}")
        return found

    def __contains__(self, address: IPv4Address) -> bool:
        return self.first <= address <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True)
class LabSpec:
    """A valid spec. ``None`` sizes mean: the default for the acceleration in use (``machine_size``)."""

    lab: str
    workers: int = 2
    control_plane_placement: Placement = "auto"
    control_plane_size: NodeSize | None = None
    worker_size: NodeSize | None = None
    network: IPv4Network = field(default_factory=lambda: IPv4Network("192.168.77.0/24"))
    pod_cidr: IPv4Network = field(default_factory=lambda: IPv4Network("10.244.0.0/16"))
    service_cidr: IPv4Network = field(default_factory=lambda: IPv4Network("10.96.0.0/12"))
    ipv6: Ipv6Spec | None = None  # None: IPv4 alone
    cni: CniSpec = field(default_factory=CniSpec)
    proxy_mode: str = "iptables"
    ingress_controller: str = "auto"
    load_balancer: str = "none"
    load_balancer_pool: AddressRange | None = None  # None: the default (``pool_of``)
    kubernetes_version: str = "1.37.2"
    libvirt: str = "private"  # private | system | a libvirt URI
    accel: Accel = "auto"
    engine: Engine = "auto"
    protect: bool = False  # what can't be made again: the control plane and the lab's disks as a whole
    image_mirror: str = ""  # of Debian packages, "" for the tools' own default
    image_components: tuple[str, ...] = ()  # roles whose container images the node image has beside what the lab needs

    @property
    def libvirt_uri(self) -> str:
        """Where an existing libvirt answers; "" for a private one, which has its address when it runs."""
        return {"private": "", "system": "qemu:///system"}.get(self.libvirt, self.libvirt)


class Host(Protocol):
    """What a spec is checked against; ``hoplab.host.info.HostFacts`` is one."""

    @property
    def memory_mib(self) -> int: ...
    @property
    def networks(self) -> tuple[IPv4Network, ...]: ...


@dataclass(frozen=True)
class MachineSize:
    """The size a machine will have."""

    vcpus: int
    memory_mib: int
    disk_gib: int


def machine_size(asked: NodeSize | None, role: str, accel: str) -> MachineSize:
    """What was asked for, completed: kubeadm wants two vCPUs for a control plane; emulated workers race with two."""
    asked = asked or NodeSize()
    control_plane = role == "control-plane"
    return MachineSize(
        vcpus=asked.vcpus or (1 if accel == "tcg" and not control_plane else 2),
        memory_mib=asked.memory_mib or (3072 if control_plane else 2048),
        disk_gib=asked.disk_gib or 20,
    )


def load_spec(lab: str, paths: LabPaths, host: Host | None = None) -> LabSpec:
    """The spec in ``Pulumi.<lab>.yaml``; with a host, also checked against what that host has."""
    source = paths.spec.name
    name = name_mistakes(lab)
    if name:
        raise SpecError(f"lab {lab!r}", name)
    try:
        text = paths.spec.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _no_such_lab(lab, paths) from None
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"{source} can't be read: {error}", remedy="make it a readable UTF-8 text file") from None
    try:
        stack = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
        mistake = Mistake(place, error.problem or "is not YAML", "valid YAML is needed (docs/spec.md has examples)")
        raise SpecError(source, [mistake]) from None
    if stack is None:
        stack = {}
    config = stack.get("config") if isinstance(stack, dict) else stack
    if config is None:
        config = {}
    if not isinstance(config, dict):
        place = "config" if isinstance(stack, dict) else "the file"
        right = "settings as `lab:name: value` below `config:`"
        raise SpecError(source, [Mistake(place, f"is {_kind(config)}", right)])
    return parse_spec(lab, config, source, host)


def parse_spec(
    lab: str,
    config: Mapping[str, Any],
    source: str,
    host: Host | None = None,
    versions: Collection[str] | None = None,
    known: Collection[str] | None = None,
) -> LabSpec:
    """The spec in a Pulumi configuration ({"lab:nodes": {"workers": 3}, ...}), or a SpecError with every mistake.

    Values may be what ``pulumi config set`` writes: numbers as text, and a whole section as JSON text.
    """
    read = _Reader(name_mistakes(lab))
    top = read.namespace(config)

    nodes = read.section(top, "nodes", "workers", "controlPlane", "worker")
    workers = read.integer(nodes, "workers", 2, low=1, high=1000)
    control_plane_size = read.size(nodes, "controlPlane", min_vcpus=2, min_memory=2048)
    worker_size = read.size(nodes, "worker", min_vcpus=1, min_memory=1024)
    control_plane = read.section(top, "controlPlane", "placement")
    placement = read.choice(control_plane, "placement", "auto", ("auto", "vm", "hosted"))
    ingress = read.section(top, "ingress", "controller")
    load_balancer = read.section(top, "loadBalancer", "name", "pool")
    accel = read.choice(top, "accel", "auto", ("auto", "kvm", "tcg"))
    engine = read.choice(top, "engine", "auto", ("auto", "pulumi", "embedded"))
    image = read.section(top, "image", "mirror", "components")
    spec = LabSpec(
        lab=lab,
        workers=workers,
        control_plane_placement=cast(Placement, placement),
        control_plane_size=control_plane_size,
        worker_size=worker_size,
        network=read.network(top, "network", _DEFAULT.network),
        pod_cidr=read.network(top, "podCIDR", _DEFAULT.pod_cidr),
        service_cidr=read.network(top, "serviceCIDR", _DEFAULT.service_cidr),
        ipv6=read.ipv6(top),
        cni=read.cni(read.section(top, "cni", "name", "backend", "nftables", "blockSize")),
        proxy_mode=read.proxy_mode(read.section(top, "proxy", "mode")),
        ingress_controller=read.choice(ingress, "controller", "auto", INGRESS_CONTROLLERS, NOT_YET["ingress"]),
        load_balancer=read.choice(load_balancer, "name", "none", LOAD_BALANCERS),
        load_balancer_pool=read.addresses(load_balancer, "pool"),
        kubernetes_version=read.version(
            read.section(top, "kubernetes", "version"), supported_versions() if versions is None else versions
        ),
        libvirt=read.libvirt(top),
        accel=cast(Accel, accel),
        engine=cast(Engine, engine),
        protect=read.truth(top, "protect"),
        image_mirror=read.mirror(image),
        image_components=read.names(image, "components", archived_components() if known is None else known),
    )
    mistakes = read.mistakes + _range_mistakes(spec, read) + _range6_mistakes(spec, read) + _pool_mistakes(spec, read)
    if host is not None:
        mistakes += [each for each in host_mistakes(spec, host) if each.path not in read.wrong]
    if mistakes:
        raise SpecError(source, mistakes)
    return spec


def host_mistakes(spec: LabSpec, host: Host) -> list[Mistake]:
    """What this host cannot give: memory, and ranges that are not in use on it already."""
    mistakes = []
    worker = machine_size(spec.worker_size, "worker", spec.accel).memory_mib
    memory = spec.workers * worker
    asked = f"{spec.workers} workers with {worker} MiB each" if spec.workers > 1 else f"a worker with {worker} MiB"
    if spec.control_plane_placement == "vm" or (spec.control_plane_placement == "auto" and spec.accel == "kvm"):
        control_plane = machine_size(spec.control_plane_size, "control-plane", spec.accel).memory_mib
        memory += control_plane
        asked += f" and a control plane with {control_plane} MiB"
    if memory > host.memory_mib:
        wrong = f"{asked} need {memory} MiB, and this host has {host.memory_mib} MiB"
        mistakes.append(Mistake("nodes", wrong, "fewer workers, or less memory for each"))
    if spec.libvirt != "private":  # a private libvirt lives in a network namespace of its own
        ranges = _ranges(spec)
        for path, network in ranges.items():
            clash = next((each for each in host.networks if each.overlaps(network)), None)
            if clash is not None:
                free = _free_range(network.prefixlen, [*ranges.values(), *host.networks])
                wrong = f"{network} overlaps {clash}, which this host uses"
                mistakes.append(Mistake(path, wrong, f"a range the host does not use, for instance {free}"))
    return mistakes


def supported_versions() -> tuple[str, ...]:
    """The Kubernetes versions a node image can be built with."""
    return (components().versions()["kubernetes"],)


def archived_components() -> tuple[str, ...]:
    """The components whose container images are brought, not built."""
    return tuple(dict.fromkeys(entry.component for entry in components().archives))


class _Reader:
    """Takes values out of a configuration and remembers every mistake; a wrong value reads as the default."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = mistakes
        self.wrong: set[str] = set()  # paths of fields that are wrong in themselves
        self.given: set[str] = set()  # paths of fields the file has

    def refuse(self, path: str, wrong: str, right: str) -> None:
        self.wrong.add(path)
        self.mistakes.append(Mistake(path, wrong, right))

    def namespace(self, config: Mapping[str, Any]) -> _Section:
        """The settings of the namespace ``lab``; Pulumi's own and its providers' are left alone."""
        values = {}
        for key, value in config.items():
            space, colon, name = str(key).partition(":")
            if space == "lab" and colon:
                values[name] = value
            elif not colon:
                near = _nearest(space, SETTINGS) or "nodes"
                self.refuse(space, "has no namespace", f"settings of a lab begin with `lab:`, for instance lab:{near}")
            elif space not in ("pulumi", "libvirt"):
                near = _nearest(name, SETTINGS)
                right = f"did you mean lab:{near}?" if near else "settings of a lab begin with `lab:`"
                self.refuse(str(key), "is not in the namespace `lab`", right)
        section = _Section("", values)
        self.only(section, SETTINGS)
        return section

    def section(self, parent: _Section, key: str, *known: str) -> _Section:
        """A mapping below ``parent`` with these keys; an absent one is empty."""
        path = parent.path_of(key)
        value = parent.values.get(key)
        if isinstance(value, str) and value.lstrip().startswith("{"):  # pulumi config set lab:nodes '{"workers": 3}'
            try:
                value = json.loads(value)
            except json.JSONDecodeError as error:
                self.refuse(path, f"is not JSON: {error}", f"a mapping with {_listed(known)}")
                return _Section(path, {})
        if value is None:
            return _Section(path, {})
        if not isinstance(value, Mapping):
            self.refuse(path, f"is {_kind(value)}", f"a mapping with {_listed(known)}")
            return _Section(path, {})
        if set(value) == {"secure"}:
            self.refuse(path, "is encrypted", "plain settings: a spec holds no secrets")
            return _Section(path, {})
        section = _Section(path, {str(name): each for name, each in value.items()})
        self.only(section, known)
        return section

    def only(self, section: _Section, known: Collection[str]) -> None:
        """Refuse keys that nothing reads."""
        for key in section.values:
            path = section.path_of(key)
            self.given.add(path)
            if key not in known:
                near = _nearest(key, known)
                right = f"did you mean {section.path_of(near)}?" if near else f"known here: {_listed(known)}"
                self.refuse(path, "is not a setting", right)

    def text(self, section: _Section, key: str, right: str) -> str | None:
        """A scalar as text; None when absent, or when it is something else."""
        value = section.values.get(key)
        path = section.path_of(key)
        if value is None:
            return None
        if isinstance(value, Mapping) and set(value) == {"secure"}:
            self.refuse(path, "is encrypted", "a plain setting: a spec holds no secrets")
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            self.refuse(path, f"is {_kind(value)}", right)
            return None
        return str(value).strip()

    def integer(self, section: _Section, key: str, default: int, *, low: int, high: int) -> int:
        """A number between low and high, also one that was written as text."""
        right = f"a whole number from {low} to {high}"
        path = section.path_of(key)
        text = self.text(section, key, right)
        if text is None:
            return default
        if not re.fullmatch(r"-?[0-9]{1,9}", text):
            self.refuse(path, f"is {text!r}", right)
        elif int(text) < low:
            self.refuse(path, f"is {text}", f"at least {low}")
        elif int(text) > high:
            self.refuse(path, f"is {text}", f"at most {high}")
        else:
            return int(text)
        return default

    def truth(self, section: _Section, key: str) -> bool:
        """True or false, also as `pulumi config set` writes it; false when absent."""
        value = section.values.get(key)
        if value is None or str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        self.refuse(section.path_of(key), f"is {value!r}", "true or false")
        return False

    def choice(
        self, section: _Section, key: str, default: str, allowed: Collection[str], not_yet: Collection[str] = ()
    ) -> str:
        """One of a list; ``not_yet`` are known words that would be right one day."""
        right = _one_of(allowed)
        text = self.text(section, key, right)
        if text is None or text in allowed:
            return text or default
        if text in not_yet:
            self.refuse(section.path_of(key), f"{text} is not available yet", right)
        else:
            near = _nearest(text, allowed) if len(allowed) > 1 else ""
            right = f"did you mean {near}? {right}" if near else right
            self.refuse(section.path_of(key), f"{text!r} is unknown", right)
        return default

    def cni(self, section: _Section) -> CniSpec:
        name = self.choice(section, "name", "flannel", CNI_BACKENDS, NOT_YET["cni"])
        if section.path_of("name") in self.wrong:
            return CniSpec()  # which backend it may have, nobody knows
        backends = CNI_BACKENDS[name]
        backend = self.choice(section, "backend", backends[0], backends)
        nftables = self.truth(section, "nftables")
        if nftables and name not in NFTABLES_CNIS:
            self.refuse(section.path_of("nftables"), f"is no choice that {name} has", f"it is for {NFTABLES_CNIS[0]}")
        low, high = BLOCK_SIZES
        block_size = self.integer(section, "blockSize", CniSpec.block_size, low=low, high=high)
        if name != "calico" and "blockSize" in section.values:
            self.refuse(section.path_of("blockSize"), f"{name} has no blocks", "leave it out, or name: calico")
        return CniSpec(name, backend, nftables, block_size)

    def proxy_mode(self, section: _Section) -> str:
        if section.values.get("mode") == "ipvs":
            self.refuse(section.path_of("mode"), "ipvs is deprecated in Kubernetes", _one_of(PROXY_MODES))
            return PROXY_MODES[0]
        return self.choice(section, "mode", PROXY_MODES[0], PROXY_MODES)

    def version(self, section: _Section, supported: Collection[str]) -> str:
        newest = list(supported)[-1]
        text = self.text(section, "version", _one_of(supported)) or newest
        if text not in supported:
            self.refuse(section.path_of("version"), f"{text} is not supported", _one_of(supported))
        return text

    def size(self, nodes: _Section, key: str, *, min_vcpus: int, min_memory: int) -> NodeSize | None:
        """A machine's size; None when the file says nothing about it."""
        section = self.section(nodes, key, "vcpus", "memory", "disk")
        if not section.values:
            return None
        vcpus = self.integer(section, "vcpus", 0, low=min_vcpus, high=64)
        memory = self.mebibytes(section, "memory", low=min_memory, example="2GiB")
        disk = self.mebibytes(section, "disk", low=8 * 1024, example="20GiB")
        return NodeSize(vcpus or None, memory, -(-disk // 1024) if disk else None)

    def mebibytes(self, section: _Section, key: str, *, low: int, example: str) -> int | None:
        """A size with its unit (2GiB, 2048MiB), in MiB; None when absent or wrong."""
        path = section.path_of(key)
        text = self.text(section, key, f"a size such as {example}")
        if text is None:
            return None
        found = re.fullmatch(r"([0-9]{1,9})\s*([A-Za-z]*)", text)
        number, unit = (int(found[1]), found[2]) if found else (0, "")
        if found is None:
            self.refuse(path, f"is {text!r}", f"a size such as {example}")
        elif not unit:
            self.refuse(path, f"{text} has no unit", f"{number}MiB or {number}GiB")
        elif unit not in ("MiB", "GiB"):
            near = "MiB" if unit[0] in "mM" else "GiB"
            self.refuse(path, f"the unit of {text} is unknown", f"MiB or GiB, for instance {number}{near}")
        elif number * (1024 if unit == "GiB" else 1) < low:
            self.refuse(path, f"is {text}", f"at least {_in_units(low)}")
        else:
            return number * (1024 if unit == "GiB" else 1)
        return None

    def network(self, section: _Section, key: str, default: IPv4Network) -> IPv4Network:
        right = f"an IPv4 range such as {default}"
        text = self.text(section, key, right)
        if text is None:
            return default
        try:
            network = IPv4Network(text, strict=False)
        except ValueError:
            self.refuse(key, f"{text!r} is not an IPv4 range", right)
            return default
        if "/" not in text:
            self.refuse(key, f"{text} has no prefix length", right)
        elif str(network) != text:
            self.refuse(key, f"{text} is an address in a range, not a range", f"{network}")
        elif _unusable(network):
            self.refuse(key, f"{network} is {_unusable(network)}", right)
        else:
            return network
        return default

    def ipv6(self, top: _Section) -> Ipv6Spec | None:
        """The second family: ``true`` for the usual ranges, or a mapping with others; None without it."""
        given = top.values.get("ipv6")
        if not (isinstance(given, Mapping) or str(given).lstrip().startswith("{")):
            return Ipv6Spec() if self.truth(top, "ipv6") else None
        section = self.section(top, "ipv6", "network", "podCIDR", "serviceCIDR")
        usual = Ipv6Spec()
        return Ipv6Spec(
            self.network6(section, "network", usual.network),
            self.network6(section, "podCIDR", usual.pod_cidr),
            self.network6(section, "serviceCIDR", usual.service_cidr),
        )

    def network6(self, section: _Section, key: str, default: IPv6Network) -> IPv6Network:
        """A range of unique local addresses (fc00::/7)."""
        path, right = section.path_of(key), f"an IPv6 range such as {default}"
        text = self.text(section, key, right)
        if text is None:
            return default
        try:
            network = IPv6Network(text, strict=False)
        except ValueError:
            self.refuse(path, f"{text!r} is not an IPv6 range", right)
            return default
        if "/" not in text:
            self.refuse(path, f"{text} has no prefix length", right)
        elif IPv6Network(text, strict=False)[0] != IPv6Interface(text).ip:
            self.refuse(path, f"{text} is an address in a range, not a range", f"{network}")
        elif not network.subnet_of(UNIQUE_LOCAL):
            self.refuse(path, f"{network} is not of this lab alone", f"a range of {UNIQUE_LOCAL}, such as {default}")
        else:
            return network
        return default

    def addresses(self, section: _Section, key: str) -> AddressRange | None:
        """A range of addresses; None when absent or wrong."""
        right = "a range of addresses such as 192.168.77.245-192.168.77.254 or 192.168.77.240/29"
        text = self.text(section, key, right)
        try:
            return AddressRange.parse(text) if text is not None else None
        except ValueError as error:
            self.refuse(section.path_of(key), f"{text!r} is no range of addresses: {error}", right)
            return None

    def libvirt(self, section: _Section) -> str:
        right = "private, system, or a URI such as qemu:///system"
        text = self.text(section, "libvirt", right)
        if text is None or text in ("private", "system"):
            return text or "private"
        if not re.fullmatch(r"(qemu|test)(\+[a-z0-9]+)?://\S*", text):
            self.refuse("libvirt", f"{text!r} is neither a libvirt of ours nor a URI", right)
        elif text.split("?")[0].endswith("/session"):
            self.refuse("libvirt", f"{text} cannot make a lab network", right)
        return text

    def names(self, section: _Section, key: str, known: Collection[str]) -> tuple[str, ...]:
        """A list of known names."""
        value = section.values.get(key)
        path = section.path_of(key)
        right = f"a list of {_listed(known)}"
        if value is None:
            return ()
        if not isinstance(value, list):
            self.refuse(path, f"is {_kind(value)}", right)
            return ()
        for name in value:
            if name not in known:
                near = _nearest(str(name), known)
                self.refuse(path, f"{name!r} is unknown", f"did you mean {near}? {right}" if near else right)
        return tuple(dict.fromkeys(str(name) for name in value))

    def mirror(self, section: _Section) -> str:
        text = self.text(section, "mirror", "the URL of a Debian mirror")
        if text and not re.fullmatch(r"(https?|file)://\S+", text):
            self.refuse(section.path_of("mirror"), f"{text!r} is not a URL", "the URL of a Debian mirror")
        return text or ""


@dataclass(frozen=True)
class _Section:
    """A mapping in the file, and where it is: path "nodes.worker"."""

    path: str
    values: Mapping[str, Any]

    def path_of(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


class _StrictLoader(yaml.SafeLoader):
    """YAML with the duplicate keys refused that would otherwise silently win or lose."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


SETTINGS = (
    "nodes",
    "controlPlane",
    "network",
    "podCIDR",
    "serviceCIDR",
    "ipv6",
    "cni",
    "proxy",
    "ingress",
    "loadBalancer",
    "kubernetes",
    "libvirt",
    "accel",
    "engine",
    "protect",
    "image",
)
_DEFAULT = LabSpec("default")
UNIQUE_LOCAL = IPv6Network("fc00::/7")
_PRIVATE_RANGES = tuple(IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))


def name_mistakes(lab: str) -> list[Mistake]:
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", lab):
        right = "a letter, then letters, digits and dashes, all lower case"
        return [Mistake("name", f"{lab!r} is no name for a lab", right)]
    if len(lab) > NAME_LENGTH:
        return [Mistake("name", f"{lab!r} has {len(lab)} characters", f"at most {NAME_LENGTH}")]
    return []


def _no_such_lab(lab: str, paths: LabPaths) -> LabError:
    labs = sorted(path.name.split(".")[1] for path in paths.project.glob("Pulumi.*.yaml"))
    near = _nearest(lab, labs)
    there = f"did you mean {near}? " if near else ""
    there += f"labs here: {', '.join(labs)}" if labs else "there is no lab here yet"
    return LabError(
        f"there is no lab {lab!r}: {paths.spec.name} does not exist",
        remedy=f"{there}; the shortest spec of a new one is the line `config: {{}}` in {paths.spec.name}",
    )


def _has_control_plane_vm(spec: LabSpec) -> bool:
    """Whether a control-plane VM is possible: with everything on auto that depends on the host."""
    if spec.control_plane_placement == "auto":
        return spec.accel != "tcg"
    return spec.control_plane_placement == "vm"


def _ranges(spec: LabSpec) -> dict[str, IPv4Network]:
    return {"network": spec.network, "podCIDR": spec.pod_cidr, "serviceCIDR": spec.service_cidr}


def _range_mistakes(spec: LabSpec, read: _Reader) -> list[Mistake]:
    """Mistakes between fields: overlapping ranges, and ranges too small for what has to fit."""
    mistakes = []
    ranges = {path: network for path, network in _ranges(spec).items() if path not in read.wrong}
    for one, other in combinations(ranges, 2):
        if ranges[one].overlaps(ranges[other]):
            # named at the later one, unless only the earlier one is in the file
            path, against = (one, other) if one in read.given and other not in read.given else (other, one)
            free = _free_range(ranges[path].prefixlen, [each for key, each in ranges.items() if key != path])
            wrong = f"{ranges[path]} overlaps {against} {ranges[against]}"
            mistakes.append(Mistake(path, wrong, f"ranges that are apart, for instance {free}"))
    if "nodes.workers" not in read.wrong:
        mistakes += _small_ranges(spec, ranges)
    if "serviceCIDR" in ranges and not 12 <= spec.service_cidr.prefixlen <= 27:  # the API server's limits
        wrong = f"{spec.service_cidr} has a prefix length of {spec.service_cidr.prefixlen}"
        mistakes.append(Mistake("serviceCIDR", wrong, "a prefix length from 12 to 27"))
    return mistakes


def _range6_mistakes(spec: LabSpec, read: _Reader) -> list[Mistake]:
    """Ranges of IPv6 that overlap, or that Kubernetes does not take."""
    if spec.ipv6 is None or any(path.startswith("ipv6") for path in read.wrong):
        return []
    mistakes = []
    asked = spec.ipv6
    ranges = {"network": asked.network, "podCIDR": asked.pod_cidr, "serviceCIDR": asked.service_cidr}
    for one, other in combinations(ranges, 2):
        if ranges[one].overlaps(ranges[other]):
            wrong = f"{ranges[other]} overlaps {one} {ranges[one]}"
            mistakes.append(Mistake(f"ipv6.{other}", wrong, "ranges that are apart; left out, they are"))
    low, high = SERVICE_PREFIXES6
    prefixes = {
        "network": (asked.network, (64, 64)),
        "podCIDR": (asked.pod_cidr, (NODE_POD_PREFIX6 - MOST_POD_BITS, NODE_POD_PREFIX6)),
        "serviceCIDR": (asked.service_cidr, (low, high)),
    }
    for key, (network, (low, high)) in prefixes.items():
        if not low <= network.prefixlen <= high:
            wrong = f"{network} has a prefix length of {network.prefixlen}"
            right = f"a prefix length from {low} to {high}" if low < high else f"a /{low}"
            mistakes.append(Mistake(f"ipv6.{key}", wrong, right))
    most = 2 ** max(NODE_POD_PREFIX6 - asked.pod_cidr.prefixlen, 0)
    nodes = spec.workers + _has_control_plane_vm(spec)
    if "nodes.workers" not in read.wrong and not mistakes and nodes > most:
        wrong = f"{asked.pod_cidr} is too small for {nodes} nodes, each of which gets a /{NODE_POD_PREFIX6}"
        right = f"a /{NODE_POD_PREFIX6 - (nodes - 1).bit_length()} or larger"
        mistakes.append(Mistake("ipv6.podCIDR", wrong, right))
    return mistakes


def taken_addresses(spec: LabSpec) -> dict[IPv4Address, str]:
    """The addresses of the lab network that are somebody's already, and whose."""
    network = spec.network
    machines = {network[FIRST_WORKER + index]: f"worker{index + 1}" for index in range(spec.workers)}
    return {
        network[0]: "the network",
        network[1]: "the host end",
        network[FIRST_CONTROL_PLANE]: "cp1",  # also where it is hosted, as with its MAC: that may change
        **machines,
        network[-1]: "everybody (broadcast)",
    }


def pool_of(spec: LabSpec) -> AddressRange | None:
    """The load balancer's pool: what was asked for, or the network's last addresses; None where none is left."""
    if spec.load_balancer_pool is not None:
        return spec.load_balancer_pool
    last = spec.network.num_addresses - 2
    first = max(last - LONGEST_POOL + 1, FIRST_WORKER + spec.workers)
    return AddressRange(spec.network[first], spec.network[last]) if first <= last else None


def _pool_mistakes(spec: LabSpec, read: _Reader) -> list[Mistake]:
    """A pool that nobody uses, that is elsewhere, or that has somebody's address."""
    path, pool = "loadBalancer.pool", spec.load_balancer_pool
    needed = {"network", "nodes.workers", "loadBalancer", "loadBalancer.name", path}
    if needed & read.wrong or _small_ranges(spec, {"network"}):
        return []
    if spec.load_balancer == "none":
        wrong = f"{pool} is given, and there is no load balancer"
        return [Mistake(path, wrong, "loadBalancer.name: metallb, or no pool")] if pool else []
    free = pool_of(replace(spec, load_balancer_pool=None))
    if pool is None and free is None:
        wrong = f"{spec.network} has no address left for a load balancer"
        return [Mistake("network", wrong, f"a /{spec.network.prefixlen - 1} or larger, or fewer workers")]
    right = f"addresses of the lab network that nobody has, for instance {free}"
    if pool and not (pool.first in spec.network and pool.last in spec.network):
        return [Mistake(path, f"{pool} is not in network {spec.network}", right)]
    clash = next(((address, who) for address, who in taken_addresses(spec).items() if pool and address in pool), None)
    return [Mistake(path, f"{pool} has {clash[0]}, the address of {clash[1]}", right)] if clash else []


def _small_ranges(spec: LabSpec, ranges: Collection[str]) -> list[Mistake]:
    mistakes = []
    highest = FIRST_WORKER + spec.workers - 1
    if "network" in ranges and highest >= spec.network.num_addresses - 1:  # the last address is for broadcast
        wrong = f"{spec.network} is too small for {spec.workers} workers (their addresses begin at {FIRST_WORKER})"
        mistakes.append(Mistake("network", wrong, f"a /{32 - (highest + 1).bit_length()} or larger"))
    nodes = spec.workers + _has_control_plane_vm(spec)
    if "podCIDR" in ranges:
        most = 2 ** (NODE_POD_PREFIX - spec.pod_cidr.prefixlen) if spec.pod_cidr.prefixlen <= NODE_POD_PREFIX else 0
        if nodes > most:
            wrong = f"{spec.pod_cidr} is too small for {nodes} nodes, each of which gets a /{NODE_POD_PREFIX}"
            mistakes.append(Mistake("podCIDR", wrong, f"a /{NODE_POD_PREFIX - (nodes - 1).bit_length()} or larger"))
        elif spec.pod_cidr.prefixlen < NODE_POD_PREFIX - 16:
            wrong = f"{spec.pod_cidr} is too large for Kubernetes"
            mistakes.append(Mistake("podCIDR", wrong, f"a /{NODE_POD_PREFIX - 16} or smaller"))
        elif spec.cni.name == "calico" and nodes > 2 ** (spec.cni.block_size - spec.pod_cidr.prefixlen):
            wrong = f"{spec.pod_cidr} has no /{spec.cni.block_size} for each of {nodes} nodes"
            right = f"smaller blocks, a /{spec.pod_cidr.prefixlen + (nodes - 1).bit_length()} for instance"
            mistakes.append(Mistake("cni.blockSize", wrong, right))
    return mistakes


def _unusable(network: IPv4Network) -> str:
    """Why no lab can use a range, "" when it can."""
    if network.overlaps(IPv4Network("0.0.0.0/8")) or network.overlaps(IPv4Network("127.0.0.0/8")):
        return "partly or wholly this host itself (0.0.0.0/8, 127.0.0.0/8)"
    if network.overlaps(IPv4Network("169.254.0.0/16")):
        return "link-local"
    if network.overlaps(IPv4Network("224.0.0.0/3")):
        return "multicast or reserved"
    return ""


def _free_range(prefix: int, taken: Collection[IPv4Network]) -> IPv4Network | str:
    """The first private range of this size that overlaps none of the others."""
    for block in _PRIVATE_RANGES:
        if prefix < block.prefixlen:
            continue
        start, size = int(block.network_address), 2 ** (32 - prefix)
        while start <= int(block.broadcast_address):
            candidate = IPv4Network((start, prefix))
            clash = next((each for each in taken if each.overlaps(candidate)), None)
            if clash is None:
                return candidate
            start = max(start + size, -(-(int(clash.broadcast_address) + 1) // size) * size)
    return "a smaller one"


def _nearest(word: str, known: Collection[str]) -> str:
    """The known word that was probably meant, "" when none is near."""
    folded = {each.lower().replace("_", ""): each for each in known}
    found = difflib.get_close_matches(word.lower().replace("_", "").replace("-", ""), folded, n=1)
    return folded[found[0]] if found else ""


def _kind(value: object) -> str:
    """What a value is, in words: "the list [1, 2]"."""
    names = {list: "a list", dict: "a mapping", bool: "a yes or no", str: "a text", int: "a number", float: "a number"}
    text = str(value) if not isinstance(value, bool) else str(value).lower()
    return f"{names.get(type(value), 'something else')} ({text if len(text) <= 30 else text[:27] + '...'})"


def _one_of(allowed: Collection[str]) -> str:
    return f"one of {_listed(allowed)}" if len(allowed) > 1 else f"only {_listed(allowed)} is possible"


def _listed(words: Collection[str]) -> str:
    return ", ".join(words)


def _in_units(mib: int) -> str:
    return f"{mib // 1024}GiB" if mib % 1024 == 0 else f"{mib}MiB"
