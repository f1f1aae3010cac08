"""Compares the table's versions with the newest ones: of Go modules those of the module proxy, of Debian the archive's.

The table pins Go modules; the packages of a Debian root file system are the archive's of the day when it was made, so
what is compared is what a cached one has.
"""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hoplab.core import host_network
from hoplab.core.errors import ImageError
from hoplab.image import debian
from hoplab.image.gobuild import ENVIRONMENT
from hoplab.image.store import Store
from hoplab.spec.catalog import Components, DebianSystem, minor_of

OWN = "hoplab.local/"  # modules of ours
ASKED_AT_ONCE = 4
LATEST = "latest"  # Go's word for the newest release of a module; "v1.36" is the newest one with this beginning
STATUS = "./var/lib/dpkg/status"  # in a root file system
FIELD = re.compile(r"^(Package|Version): (\S+)$", re.MULTILINE)
OFFERED = re.compile(r"^Inst (\S+) \((\S+) ", re.MULTILINE)  # apt's line of a package that it would install


@dataclass(frozen=True)
class Version:
    """One program or package, its version here and the newest one."""

    name: str
    here: str
    newest: str
    held: str = ""  # why the table stays with an older one
    package: bool = False  # whether Debian has it

    @property
    def outdated(self) -> bool:
        return self.here != self.newest


def compare(
    table: Components, store: Store, run: Callable[..., str] | None = None, older: Iterable[Components] = ()
) -> tuple[list[Version], list[str]]:
    """Return all versions, and the Debian systems of which there is no root file system; raise ImageError offline.

    Of the tables of ``older`` minors of Kubernetes it is what differs, and their Kubernetes beside the newest patch.
    ``run`` runs a command and returns its output.
    """
    ask = run or _run
    pinned = [(name, item, LATEST) for name, item in table.go.items() if not item.source.startswith(OWN)]
    for other in older:
        minor = minor_of(other.go["kubernetes"].version)
        pinned += [
            (f"{name} of {minor}", item, f"v{minor}" if name == "kubernetes" else LATEST)
            for name, item in other.go.items()
            if item != table.go[name]
        ]
    queries = sorted({f"{item.source}@{wanted}" for _, item, wanted in pinned})
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        newest = dict(zip(queries, pool.map(lambda query: _newest(query, ask), queries), strict=True))
    found = [Version(name, item.version, newest[f"{item.source}@{wanted}"], item.held) for name, item, wanted in pinned]
    missing = []
    for name, system in table.debian.items():
        if stage := debian.find(system, store):
            here = installed(stage.directory / debian.ROOT_TAR)
            if system.onto and (base := debian.find(system.onto, store)):
                there = installed(base.directory / debian.ROOT_TAR)  # compared as those of the other system
                here = {package: version for package, version in here.items() if package not in there}
            found += _packages(system, here, ask)
        elif not system.wanted_by:  # of the others nobody has to have one
            missing.append(name)
    return found, missing


def _newest(query: str, run: Callable[..., str]) -> str:
    module = query.partition("@")[0]
    argv = ["go", "list", "-m", "-f", "{{.Version}}", query]
    with tempfile.TemporaryDirectory() as empty:  # a go.mod in or above the folder would have a say
        printed = run(argv, f"the newest version of {module}", Path(empty), {**ENVIRONMENT, "GOFLAGS": "-mod=mod"})
    return printed.partition("\n")[0].removeprefix("v")  # warnings of Go's come behind it


def _packages(system: DebianSystem, here: Mapping[str, str], run: Callable[..., str]) -> list[Version]:
    """Return the versions of the packages that a system has and still would have."""
    whole = replace(system, packages=(*system.onto.packages, *system.packages)) if system.onto else system
    argv = [*debian.command(whole, Path("-"), ""), "--simulate", "--verbose"]
    offered = dict(OFFERED.findall(run(argv, f"the packages of Debian {system.suite}", None, {})))
    if not offered:
        raise ImageError(
            f"the packages of Debian {system.suite} are not known: apt offers none", remedy=f"try it: {' '.join(argv)}"
        )
    return [
        Version(f"{system.name}: {name}", here[name], offered[name], package=True)
        for name in sorted(here.keys() & offered.keys())
    ]


def installed(root: Path) -> dict[str, str]:
    """Return the packages of a root file system, an archive, and their versions."""
    with tarfile.open(root) as tar:
        file = tar.extractfile(STATUS)
        text = file.read().decode() if file else ""
    paragraphs = (dict(FIELD.findall(paragraph)) for paragraph in text.split("\n\n"))
    return {fields["Package"]: fields["Version"] for fields in paragraphs if {"Package", "Version"} <= fields.keys()}


def _run(argv: list[str], what: str, cwd: Path | None, env: Mapping[str, str]) -> str:
    start = partial(
        subprocess.run, argv, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    try:
        ran = host_network.run_long(start)
    except FileNotFoundError:
        raise ImageError(
            f"{what} is not known: {argv[0]} is missing", remedy="./lab doctor names its package"
        ) from None
    if ran.returncode != 0:
        why = (ran.stderr.strip() or ran.stdout.strip()).splitlines()
        raise ImageError(
            f"{what} is not known: {why[-1] if why else f'{argv[0]} ended with {ran.returncode}'}",
            remedy="this needs the network, or a Go proxy and a Debian mirror in it (GOPROXY, apt's settings)",
        )
    return ran.stdout + ran.stderr
