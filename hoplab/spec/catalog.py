"""Reads the component table, components.toml: what the node images are made of, one for each minor of Kubernetes."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hoplab.core.errors import ImageError

HERE = Path(__file__).resolve().parents[1] / "image"  # the table is beside what it names


@dataclass(frozen=True)
class GoComponent:
    """Programs built from one Go module at one version."""

    name: str
    version: str
    source: str  # module path; go.sum in ``folder`` locks the sources
    folder: Path  # holds go.mod and go.sum
    programs: dict[str, str]  # file name -> package
    tags: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()  # set at link time: package.Name=value
    cgo: bool = False
    # file name -> those of the module it is made of, "crds/*.yaml"; folder "bpf/" -> those that it gets, "bpf/**/*"
    files: dict[str, str] = field(default_factory=dict)
    tests: dict[str, str] = field(default_factory=dict)  # file name -> package whose tests the program is
    more_sums: Path | None = None  # a go.sum with the checksums that ``folder``'s lacks for these programs
    wanted_by: str = ""  # built only when this is asked for: a role, or a verb; "" for a part of every node image
    held: str = ""  # why it is not the newest version


@dataclass(frozen=True)
class DebianSystem:
    """A Debian root file system."""

    name: str
    suite: str
    variant: str  # mmdebstrap's name for what is in it besides ``packages``
    packages: tuple[str, ...]
    wanted_by: str = ""  # as of a Go component
    onto: DebianSystem | None = None  # it is this system, and ``packages`` installed in it


@dataclass(frozen=True)
class ContainerImage:
    """A container image: a base layer (or none) and a layer with our files."""

    name: str
    base: str  # name of a DebianSystem, or ""
    # path in the image -> "go.<component>/<program>", "debian.<system>/<path>", "here/<path>"; or folder -> folder of
    # a Go component, "var/lib/bpf/" -> "go.<component>/share/bpf/"
    files: dict[str, str]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]


@dataclass(frozen=True)
class ArchivedImage:
    """A container image that can't be built here: it is added as an archive, or pulled by digest."""

    component: str  # what needs it, by the name of its role: cni_calico
    name: str
    digest: str  # of upstream's release


@dataclass(frozen=True)
class ConformanceSuite:
    """Upstream's end-to-end tests, and the images of their pods. No node image has them."""

    go: GoComponent
    debian: DebianSystem
    images: tuple[ContainerImage, ...]


@dataclass(frozen=True)
class Components:
    """The whole table."""

    format: int
    go: dict[str, GoComponent]
    debian: dict[str, DebianSystem]
    images: tuple[ContainerImage, ...]
    archives: tuple[ArchivedImage, ...] = ()
    conformance: ConformanceSuite | None = None
    wanted: dict[str, tuple[ContainerImage, ...]] = field(default_factory=dict)  # role -> images that only it needs
    baked: frozenset[str] = frozenset()  # roles for which those are in the node image, not beside it

    @property
    def shared(self) -> Components:
        """Return the part of the table that is in every node image."""
        return replace(
            self,
            go={name: module for name, module in self.go.items() if not module.wanted_by},
            debian={name: system for name, system in self.debian.items() if not system.wanted_by},
            wanted={},
        )

    def programs_of(self, wanted_by: str) -> dict[str, GoComponent]:
        """Return the Go components that are built only for this role or verb."""
        return {name: module for name, module in self.go.items() if wanted_by and module.wanted_by == wanted_by}

    def archives_of(self, components: Collection[str]) -> tuple[ArchivedImage, ...]:
        """Return the images that these components need."""
        return tuple(entry for entry in self.archives if entry.component in components)

    def versions(self) -> dict[str, str]:
        """Return component -> version, for people and for the spec's list of supported versions."""
        return {name: component.version for name, component in self.go.items()} | {"debian": self.debian["node"].suite}


def parse(text: str, folder: Path, minor: str = "") -> Components:
    """Return the table from its text; the Go components' folders are below ``folder``.

    It is the table of the newest Kubernetes, or of this ``minor``, with the versions and locks below its name.
    """
    table = tomllib.loads(text)
    for name, version in table["minor"][minor].items() if minor else ():
        held = "" if name == "kubernetes" else f"kubeadm {minor} asks for this one"
        table["go"][name] |= {"version": version, "lock": f"{minor}/{name}", "held": held}
    go = {name: _go(name, entry, folder) for name, entry in table["go"].items()}
    debian: dict[str, DebianSystem] = {}
    for name, entry in table["debian"].items():
        debian[name] = _debian(name, entry, debian)
    images: dict[str, list[ContainerImage]] = {"": []}
    for entry in table["image"]:
        images.setdefault(entry.get("wanted_by", ""), []).append(_image(entry, go))
    archives = tuple(
        ArchivedImage(entry["component"], entry["name"], entry["digest"]) for entry in table.get("archive", ())
    )
    suite = _conformance(table["conformance"], go, folder) if "conformance" in table else None
    shared = tuple(images.pop(""))
    wanted = {role: tuple(found) for role, found in images.items()}
    return Components(table["format"], go, debian, shared, archives, suite, wanted, frozenset(table.get("baked", ())))


def _debian(name: str, entry: dict[str, Any], above: Mapping[str, DebianSystem]) -> DebianSystem:
    packages, wanted_by = tuple(entry["packages"]), entry.get("wanted_by", "")
    if "onto" not in entry:
        return DebianSystem(name, entry["suite"], entry["variant"], packages, wanted_by)
    onto = above[entry["onto"]]
    return DebianSystem(name, onto.suite, onto.variant, packages, wanted_by, onto)


def _image(entry: dict[str, Any], go: Mapping[str, GoComponent]) -> ContainerImage:
    name = entry["name"]
    for component in go.values():
        name = name.replace(f"{{go.{component.name}}}", component.version)
    return ContainerImage(
        name=name,
        base=entry.get("base", ""),
        files=entry.get("files", {}),
        entrypoint=tuple(entry["entrypoint"]),
        command=tuple(entry.get("command", ())),
    )


def _conformance(entry: dict[str, Any], go: Mapping[str, GoComponent], folder: Path) -> ConformanceSuite:
    component = replace(
        go[entry["component"]],
        name="conformance",
        programs=entry["programs"],
        tests=entry["tests"],
        files=entry.get("files", {}),
        more_sums=folder / entry["more_sums"],
    )
    images = tuple(_image(image, go) for image in entry["image"])
    return ConformanceSuite(component, _debian("conformance", entry["debian"], {}), images)


def _go(name: str, entry: dict[str, Any], folder: Path) -> GoComponent:
    own = entry.get("folder")
    return GoComponent(
        name=name,
        version=entry["version"],
        source=entry["source"],
        folder=folder / own if own else folder / "go" / entry.get("lock", name),
        programs=entry["programs"],
        tags=tuple(entry.get("tags", ())),
        variables=tuple(_expanded(value, entry["version"]) for value in entry.get("variables", ())),
        cgo=entry.get("cgo", False),
        files=entry.get("files", {}),
        more_sums=folder / entry["more_sums"] if "more_sums" in entry else None,
        wanted_by=entry.get("wanted_by", ""),
        held=entry.get("held", ""),
    )


def _expanded(text: str, version: str) -> str:
    return text.replace("{version}", version).replace("{minor}", ".".join(version.split(".")[1:2]))


@functools.cache
def tables() -> dict[str, Components]:
    """Return minor of Kubernetes -> table of this installation: ``{"1.36": ..., "1.37": ...}``, the default last."""
    text = (HERE / "components.toml").read_text()
    found = [parse(text, HERE, minor) for minor in (*tomllib.loads(text)["minor"], "")]
    return {minor_of(table.go["kubernetes"].version): table for table in found}


def kubernetes_versions() -> dict[str, str]:
    """Return minor of Kubernetes -> version, ``{"1.36": "1.36.3", ...}``, the default last."""
    return {minor: table.go["kubernetes"].version for minor, table in tables().items()}


def components(kubernetes: str = "") -> Components:
    """Return the table of this installation, for a lab with this version of Kubernetes or with the default.

    Raise ImageError for a minor that it does not have any more.
    """
    found = tables()
    if not kubernetes:
        return list(found.values())[-1]
    if minor_of(kubernetes) not in found:
        raise ImageError(
            f"node images with Kubernetes {kubernetes} can't be built any more; {' and '.join(found)} can",
            remedy="make the lab anew with one of these: lab:kubernetes.version in its spec, ./lab destroy, ./lab up",
        )
    return found[minor_of(kubernetes)]


def minor_of(version: str) -> str:
    """Return the minor of a version of Kubernetes.

    >>> minor_of("1.37.2")
    '1.37'
    """
    return version.rpartition(".")[0]
