"""Reads settings out of a Pulumi configuration and collects an issue for each value that is wrong in itself."""

from __future__ import annotations

import difflib
import json
import re
import reprlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Interface, IPv6Network
from typing import Any

from hoplab.core.errors import MOST_SHOWN, SpecIssue
from hoplab.spec.catalog import minor_of
from hoplab.spec.kinds import Choice, Integer, PartChoice, Size, in_units
from hoplab.spec.libvirt_uri import uri_issue
from hoplab.spec.model import AddressRange, CniSpec, Ipv6Spec, NodeSize
from hoplab.spec.parts import AnyPart, Parts, usable
from hoplab.spec.settings import SETTINGS, integer_at, keys_of, part_at, size_at
from hoplab.spec.validate import unusable

MOST_DIGITS = 100  # of a number; Python converts at most 4300
MOST_HINT = 1000  # characters: a hint lists names
MOST_WORD = 100  # characters of a misspelt name
SHORT = reprlib.Repr()
SHORT.maxlevel = 3
UNIQUE_LOCAL = IPv6Network("fc00::/7")


class Reader:
    """Reads values of a configuration and collects every issue; a wrong value reads as the default."""

    def __init__(self, issues: list[SpecIssue]) -> None:
        self.issues = issues
        self.wrong: set[str] = set()  # paths of fields that are wrong in themselves
        self.given: set[str] = set()  # paths of fields the file has

    def refuse(self, path: str, problem: str, hint: str) -> None:
        """Add an issue; a name or a value that fills the screen is cut."""
        self.wrong.add(path)
        self.issues.append(SpecIssue(cut(path), cut(problem), cut(hint, MOST_HINT)))

    def near(self, word: str, known: Collection[str]) -> str:
        """Return the known word that was probably meant; "" when none is near, or when too much is wrong already."""
        return nearest(word, known) if len(self.issues) < MOST_SHOWN else ""

    def namespace(self, config: Mapping[str, Any]) -> Section:
        """Return the settings of the namespace ``lab``; those of Pulumi and its providers are ignored."""
        values = {}
        for key, value in config.items():
            space, colon, name = printed(key).partition(":")
            if space == "lab" and colon:
                values[name] = value
            elif not colon:
                near = self.near(space, SETTINGS) or "nodes"
                self.refuse(space, "has no namespace", f"settings of a lab begin with `lab:`, for instance lab:{near}")
            elif space not in ("pulumi", "libvirt"):
                near = self.near(name, SETTINGS)
                hint = f"did you mean lab:{near}?" if near else "settings of a lab begin with `lab:`"
                self.refuse(printed(key), "is not in the namespace `lab`", hint)
        section = Section("", values)
        self.only(section, SETTINGS)
        return section

    def section(self, parent: Section, key: str) -> Section:
        """Return a mapping below ``parent`` with the declared keys; an absent one is empty."""
        path = parent.path_of(key)
        known = keys_of(path)
        value = parent.values.get(key)
        if isinstance(value, str) and value.lstrip().startswith("{"):  # pulumi config set lab:nodes '{"workers": 3}'
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:  # also numbers beyond Python's limit of digits
                self.refuse(path, f"is not JSON: {error}", f"a mapping with {listed(known)}")
                return Section(path, {})
        if value is None:
            return Section(path, {})
        if not isinstance(value, Mapping):
            self.refuse(path, f"is {described(value)}", f"a mapping with {listed(known)}")
            return Section(path, {})
        if set(value) == {"secure"}:
            self.refuse(path, "is encrypted", "plain settings: a spec holds no secrets")
            return Section(path, {})
        section = Section(path, {printed(name): setting for name, setting in value.items()})
        self.only(section, known)
        return section

    def only(self, section: Section, known: Collection[str]) -> None:
        """Refuse keys that nothing reads."""
        for key in section.values:
            path = section.path_of(key)
            self.given.add(path)
            if key not in known:
                near = self.near(key, known)
                hint = f"did you mean {section.path_of(near)}?" if near else f"known here: {listed(known)}"
                self.refuse(path, "is not a setting", hint)

    def text(self, section: Section, key: str, hint: str) -> str | None:
        """Return a scalar as text; None when absent, or when it is something else."""
        value = section.values.get(key)
        path = section.path_of(key)
        if value is None:
            return None
        if isinstance(value, Mapping) and set(value) == {"secure"}:
            self.refuse(path, "is encrypted", "a plain setting: a spec holds no secrets")
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            self.refuse(path, f"is {described(value)}", hint)
            return None
        if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
            self.refuse(path, f"is a number of more than {MOST_DIGITS} digits", hint)
            return None
        return str(value).strip()

    def integer(self, section: Section, setting: Integer, bounds: tuple[int, int] | None = None) -> int:
        """Return a number between its bounds, also one that was written as text."""
        (low, high), key, default = bounds or (setting.low, setting.high), setting.key, setting.default
        hint = f"a whole number from {low} to {high}"
        path = section.path_of(key)
        text = self.text(section, key, hint)
        if text is None:
            return default
        if not re.fullmatch(r"-?[0-9]{1,9}", text):
            self.refuse(path, f"is {text!r}", hint)
        elif int(text) < low:
            self.refuse(path, f"is {text}", f"at least {low}")
        elif int(text) > high:
            self.refuse(path, f"is {text}", f"at most {high}")
        else:
            return int(text)
        return default

    def truth(self, section: Section, key: str) -> bool:
        """Return true or false, also as `pulumi config set` writes it; false when absent."""
        value = section.values.get(key)
        if value is None or printed(value).lower() in ("true", "false"):
            return printed(value).lower() == "true"
        problem = f"is {value!r}" if isinstance(value, str) else f"is {printed(value)}"
        self.refuse(section.path_of(key), problem, "true or false")
        return False

    def choice(
        self,
        section: Section,
        key: str,
        default: str,
        allowed: Collection[str],
        parts: Mapping[str, AnyPart] | None = None,
    ) -> str:
        """Return one of the allowed words, or the default. ``parts`` explain why a known word is not allowed."""
        hint = one_of(allowed)
        text = self.text(section, key, hint)
        if text is None or text in allowed:
            return text or default
        part = (parts or {}).get(text)
        if part is not None:
            self.refuse(section.path_of(key), f"{text} {part.refusal or 'is not available yet'}", hint)
        else:
            near = self.near(text, allowed) if len(allowed) > 1 else ""
            hint = f"did you mean {near}? {hint}" if near else hint
            self.refuse(section.path_of(key), f"{text!r} is unknown", hint)
        return default

    def word(self, section: Section, setting: Choice) -> str:
        """Return one of the declared words, or the default. YAML 1.1 reads an unquoted `off` as false."""
        if section.values.get(setting.key) is False and "off" in setting.words:
            return "off"
        return self.choice(section, setting.key, setting.default, setting.words)

    def part(self, section: Section, setting: PartChoice, parts: Parts) -> str:
        """Return the name of a part that a lab can have, or one of the other words."""
        known = setting.known(parts)
        return self.choice(section, setting.key, setting.default, (*setting.others, *usable(known)), known)

    def cni(self, section: Section, known: Parts) -> CniSpec:
        """Return the CNI and its settings; which ones it has depends on its name."""
        name, parts = self.part(section, part_at("cni.name"), known), known.cni
        if section.path_of("name") in self.wrong or name not in parts:
            return CniSpec()  # the other settings depend on the name
        part = parts[name]
        backend = self.choice(section, "backend", part.backends[0], part.backends)
        nftables = self.truth(section, "nftables")
        if nftables and not part.writes_nftables:
            writers = " or ".join(other.name for other in parts.values() if other.writes_nftables)
            self.refuse(section.path_of("nftables"), f"is no choice that {name} has", f"it is for {writers}")
        block_size = CniSpec.block_size
        if part.block_sizes:
            block_size = self.integer(section, integer_at("cni.blockSize"), part.block_sizes)
        elif "blockSize" in section.values:
            others = " or ".join(f"name: {other.name}" for other in parts.values() if other.block_sizes)
            hint = f"leave it out, or {others}" if others else "leave it out"
            self.refuse(section.path_of("blockSize"), f"{name} has no blocks", hint)
        return CniSpec(name, backend, nftables, block_size)

    def version(self, section: Section, supported: Collection[str]) -> str:
        """Return the version of Kubernetes; its minor alone means the supported version of that minor."""
        minors = {minor_of(version): version for version in supported}
        hint = one_of([f"{minor} ({version})" for minor, version in minors.items()])
        default = list(supported)[-1]
        text = self.text(section, "version", hint) or default
        version = minors.get(text, text)
        if version not in supported:
            self.refuse(section.path_of("version"), f"{text} is not supported", hint)
        return version

    def size(self, nodes: Section, key: str) -> NodeSize | None:
        """Return a machine's size; None when the file says nothing about it."""
        section = self.section(nodes, key)
        if not section.values:
            return None
        vcpus = self.integer(section, integer_at(section.path_of("vcpus")))
        memory = self.mebibytes(section, size_at(section.path_of("memory")))
        disk = self.mebibytes(section, size_at(section.path_of("disk")))
        return NodeSize(vcpus or None, memory, -(-disk // 1024) if disk else None)

    def mebibytes(self, section: Section, setting: Size) -> int | None:
        """Return a size with its unit (2GiB, 2048MiB), in MiB; None when absent or wrong."""
        path, key, low, example = setting.path, setting.key, setting.low, setting.example
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
            self.refuse(path, f"is {text}", f"at least {in_units(low)}")
        else:
            return number * (1024 if unit == "GiB" else 1)
        return None

    def network(self, section: Section, key: str, default: IPv4Network) -> IPv4Network:
        hint = f"an IPv4 range such as {default}"
        text = self.text(section, key, hint)
        if text is None:
            return default
        try:
            network = IPv4Network(text, strict=False)
        except ValueError:
            self.refuse(key, f"{text!r} is not an IPv4 range", hint)
            return default
        if "/" not in text:
            self.refuse(key, f"{text} has no prefix length", hint)
        elif str(network) != text:
            self.refuse(key, f"{text} is an address in a range, not a range", f"{network}")
        elif unusable(network):
            self.refuse(key, f"{network} is {unusable(network)}", hint)
        else:
            return network
        return default

    def ipv6(self, top: Section) -> Ipv6Spec | None:
        """Return the second family: ``true`` for the usual ranges, or a mapping with others; None without it."""
        given = top.values.get("ipv6")
        if not (isinstance(given, Mapping) or printed(given).lstrip().startswith("{")):
            return Ipv6Spec() if self.truth(top, "ipv6") else None
        section = self.section(top, "ipv6")
        usual = Ipv6Spec()
        return Ipv6Spec(
            self.network6(section, "network", usual.network),
            self.network6(section, "podCIDR", usual.pod_cidr),
            self.network6(section, "serviceCIDR", usual.service_cidr),
        )

    def network6(self, section: Section, key: str, default: IPv6Network) -> IPv6Network:
        """Return a range of unique local addresses (fc00::/7)."""
        path, hint = section.path_of(key), f"an IPv6 range such as {default}"
        text = self.text(section, key, hint)
        if text is None:
            return default
        try:
            network = IPv6Network(text, strict=False)
        except ValueError:
            self.refuse(path, f"{text!r} is not an IPv6 range", hint)
            return default
        if "/" not in text:
            self.refuse(path, f"{text} has no prefix length", hint)
        elif IPv6Network(text, strict=False)[0] != IPv6Interface(text).ip:
            self.refuse(path, f"{text} is an address in a range, not a range", f"{network}")
        elif not network.subnet_of(UNIQUE_LOCAL):
            self.refuse(path, f"{network} is not of this lab alone", f"a range of {UNIQUE_LOCAL}, such as {default}")
        else:
            return network
        return default

    def addresses(self, section: Section, key: str) -> AddressRange | None:
        """Return a range of addresses; None when absent or wrong."""
        hint = "a range of addresses such as 192.168.77.245-192.168.77.254 or 192.168.77.240/29"
        text = self.text(section, key, hint)
        try:
            return AddressRange.parse(text) if text is not None else None
        except ValueError as error:
            self.refuse(section.path_of(key), f"{text!r} is no range of addresses: {error}", hint)
            return None

    def libvirt(self, section: Section) -> str:
        text = self.text(section, "libvirt", "private, system, or a URI such as qemu:///system")
        if text is None or text in ("private", "system"):
            return text or "private"
        if issue := uri_issue(text):
            self.refuse("libvirt", *issue)
        return text

    def names(self, section: Section, key: str, known: Collection[str]) -> tuple[str, ...]:
        """Return a list of known names."""
        value = section.values.get(key)
        path = section.path_of(key)
        hint = f"a list of {listed(known)}"
        if value is None:
            return ()
        if not isinstance(value, list):
            self.refuse(path, f"is {described(value)}", hint)
            return ()
        for name in value:
            if name not in known:
                near = self.near(printed(name), known)
                text = repr(name) if isinstance(name, str) else printed(name)
                self.refuse(path, f"{text} is unknown", f"did you mean {near}? {hint}" if near else hint)
        return tuple(dict.fromkeys(printed(name) for name in value))

    def mirror(self, section: Section) -> str:
        text = self.text(section, "mirror", "the URL of a Debian mirror")
        if text and not re.fullmatch(r"(https?|file)://\S+", text):
            self.refuse(section.path_of("mirror"), f"{text!r} is not a URL", "the URL of a Debian mirror")
        return text or ""


@dataclass(frozen=True)
class Section:
    """A mapping in the file, and where it is: path "nodes.worker"."""

    path: str
    values: Mapping[str, Any]

    def path_of(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def nearest(word: str, known: Collection[str]) -> str:
    """Return the known word that was probably meant, "" when none is near."""
    if len(word) > MOST_WORD:
        return ""
    folded = {name.lower().replace("_", ""): name for name in known}
    found = difflib.get_close_matches(word.lower().replace("_", "").replace("-", ""), folded, n=1)
    return folded[found[0]] if found else ""


def cut(text: str, most: int = 200) -> str:
    """Return a text of at most so many characters: its beginning and its end.

    >>> cut("0123456789", 7)
    '01...89'
    """
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"


def printed(value: object) -> str:
    """Return a value as text, also one that Python refuses to print, or whose aliases make gigabytes of a few lines."""
    try:
        return SHORT.repr(value) if nested(value) else str(value)
    except (ValueError, RecursionError):  # a number beyond Python's limit of digits, a list in itself
        return "a value too long to print"


def nested(value: object) -> bool:
    """Return whether a value contains others."""
    return isinstance(value, (list, tuple, set, frozenset, Mapping))


def described(value: object) -> str:
    """Return what a value is, in words: "a list ([1, 2])"."""
    names = {list: "a list", dict: "a mapping", bool: "a yes or no", str: "a text", int: "a number", float: "a number"}
    text = printed(value) if not isinstance(value, bool) else str(value).lower()
    return f"{names.get(type(value), 'something else')} ({text if len(text) <= 30 else text[:27] + '...'})"


def one_of(allowed: Collection[str]) -> str:
    return f"one of {listed(allowed)}" if len(allowed) > 1 else f"only {listed(allowed)} is possible"


def listed(words: Collection[str]) -> str:
    return ", ".join(words)
