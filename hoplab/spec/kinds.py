"""The kinds of settings: what each allows, for people and as JSON Schema. settings.py declares one for each setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from hoplab.spec.catalog import kubernetes_versions
from hoplab.spec.parts import Part, Parts, usable

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting. ``allowed`` and ``default_text`` are for people; empty ones follow from the type."""

    path: str  # "nodes.workers"
    meaning: str
    allowed: str = ""
    default_text: str = ""

    @property
    def key(self) -> str:
        """Its name in its section."""
        return self.path.rpartition(".")[2]

    def allowed_text(self, parts: Parts) -> str:
        """Return what is allowed, for people."""
        return self.allowed

    def shown_default(self) -> str:
        """Return the default, for people."""
        return self.default_text

    def schema(self, parts: Parts) -> Json:
        """Return the JSON Schema of its value."""
        return {"type": "string"}


@dataclass(frozen=True, kw_only=True)
class Integer(Setting):
    """A whole number between two bounds, both included."""

    low: int
    high: int
    default: int = 0

    def allowed_text(self, parts: Parts) -> str:
        return self.allowed or f"{self.low} to {self.high}"

    def shown_default(self) -> str:
        return self.default_text or str(self.default)

    def schema(self, parts: Parts) -> Json:  # `pulumi config set` writes numbers as text
        return {"type": ["integer", "string"], "minimum": self.low, "maximum": self.high, "pattern": "^[0-9]+$"}


@dataclass(frozen=True, kw_only=True)
class Size(Setting):
    """A size with its unit, MiB or GiB. ``low`` and ``default`` are in MiB."""

    low: int
    default: int

    @property
    def example(self) -> str:
        return in_units(20480 if self.key == "disk" else 2048)

    def allowed_text(self, parts: Parts) -> str:
        return self.allowed or f"at least {in_units(self.low)}"

    def shown_default(self) -> str:
        return in_units(self.default)

    def schema(self, parts: Parts) -> Json:
        return {"type": "string", "pattern": "^[0-9]+ *(MiB|GiB)$"}


@dataclass(frozen=True, kw_only=True)
class Truth(Setting):
    """True or false."""

    def allowed_text(self, parts: Parts) -> str:
        return self.allowed or "true, false"

    def shown_default(self) -> str:
        return "false"

    def schema(self, parts: Parts) -> Json:
        return {"enum": [True, False, "true", "false"]}


@dataclass(frozen=True, kw_only=True)
class Choice(Setting):
    """One of a few words."""

    words: tuple[str, ...]
    default: str

    def allowed_text(self, parts: Parts) -> str:
        return self.allowed or ", ".join(f"`{word}`" for word in self.words)

    def shown_default(self) -> str:
        return self.default_text or self.default

    def schema(self, parts: Parts) -> Json:
        return {"enum": list(self.words)}


@dataclass(frozen=True, kw_only=True)
class PartChoice(Setting):
    """The name of a part, or one of a few other words."""

    parts: str  # field of ``Parts``
    others: tuple[str, ...] = ()
    default: str

    def known(self, parts: Parts) -> Mapping[str, Part]:
        """Return the parts of this kind."""
        found: Mapping[str, Part] = getattr(parts, self.parts)
        return found

    def allowed_text(self, parts: Parts) -> str:
        known = self.known(parts)
        notes = {name: f" ({known[name].note})" if known[name].note else "" for name in usable(known)}
        refused = "".join(f" ({name} {part.refusal})" for name, part in known.items() if part.refusal)
        words = [*(f"`{word}`" for word in self.others), *(f"`{name}`{note}" for name, note in notes.items())]
        return ", ".join(words) + refused

    def shown_default(self) -> str:
        return self.default_text or self.default

    def schema(self, parts: Parts) -> Json:
        return {"enum": [*self.others, *usable(self.known(parts))]}


@dataclass(frozen=True, kw_only=True)
class Backend(Setting):
    """The backend of the CNI; which ones there are depends on the CNI."""

    def allowed_text(self, parts: Parts) -> str:
        def noted(name: str) -> str:
            notes = parts.cni[name].backend_notes
            return ", ".join(word + (f" ({notes[word]})" if word in notes else "") for word in parts.cni[name].backends)

        return "; ".join(f"{name}: {noted(name)}" for name in usable(parts.cni))

    def schema(self, parts: Parts) -> Json:
        return {"enum": list(dict.fromkeys(word for part in parts.cni.values() for word in part.backends))}


@dataclass(frozen=True, kw_only=True)
class Range(Setting):
    """A range of addresses of one family."""

    default: IPv4Network | IPv6Network

    def shown_default(self) -> str:
        return str(self.default)

    def schema(self, parts: Parts) -> Json:
        digits = "0-9." if self.default.version == 4 else "0-9a-fA-F:."
        return {"type": "string", "pattern": f"^[{digits}]+/[0-9]+$"}


@dataclass(frozen=True, kw_only=True)
class KubernetesVersion(Setting):
    """A version of the table of components, or the minor of one."""

    def allowed_text(self, parts: Parts) -> str:
        return ", ".join(f"`{minor}` ({version})" for minor, version in kubernetes_versions().items())

    def shown_default(self) -> str:
        return list(kubernetes_versions())[-1]

    def schema(self, parts: Parts) -> Json:  # a minor without quotes is a number
        known = kubernetes_versions().items()
        return {"enum": [value for minor, version in known for value in (minor, float(minor), version)]}


@dataclass(frozen=True, kw_only=True)
class Names(Setting):
    """A list of words."""

    def schema(self, parts: Parts) -> Json:
        return {"type": "array", "items": {"type": "string"}}


def in_units(mib: int) -> str:
    """Return a size with the largest unit that has no rest: 2048 is "2GiB"."""
    return f"{mib // 1024}GiB" if mib % 1024 == 0 else f"{mib}MiB"
