"""Installs the official Pulumi CLI and libvirt plugin from their publishers' releases, checked by checksum.

    ~/.pulumi/bin/                                   the CLI with its language hosts
    ~/.pulumi/plugins/resource-libvirt-v0.5.4/       the plugin

requirements.lock pins their versions, which are those of the Python packages.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from hoplab.core.errors import EngineError
from hoplab.core.progress import Progress

HASHES = {40: "sha1", 64: "sha256", 128: "sha512"}  # by the length of a digest
TIMEOUT_S = 60.0  # seconds without a byte
RELEASES = "https://github.com/pulumi/{project}/releases/download/v{version}/{file}"

Fetch = Callable[[str], bytes]


@dataclass(frozen=True)
class Release:
    """An archive of a release, and the file with its checksum."""

    title: str
    archive: str  # URL
    checksums: str  # URL
    into: Path

    @property
    def file(self) -> str:
        return self.archive.rpartition("/")[2]


def releases(home: Path) -> tuple[Release, ...]:
    """Return the releases of the CLI and the plugin, to unpack below Pulumi's home folder."""
    cli, plugin = version("pulumi"), version("pulumi-libvirt")

    def of(project: str, number: str, file: str) -> str:
        return RELEASES.format(project=project, version=number, file=file)

    return (
        Release(
            f"Pulumi CLI {cli}",
            of("pulumi", cli, f"pulumi-v{cli}-linux-x64.tar.gz"),
            of("pulumi", cli, f"pulumi-{cli}-checksums.txt"),
            home / "bin",
        ),
        Release(
            f"libvirt plugin {plugin}",
            of("pulumi-libvirt", plugin, f"pulumi-resource-libvirt-v{plugin}-linux-amd64.tar.gz"),
            of("pulumi-libvirt", plugin, f"pulumi-libvirt_{plugin}_checksums.txt"),
            home / "plugins" / f"resource-libvirt-v{plugin}",
        ),
    )


def install(home: Path, progress: Progress, fetch: Fetch | None = None) -> list[str]:
    """Fetch, check and unpack missing releases; return the installed ones."""
    done = []
    for release in releases(home):
        if not release.into.exists():
            with progress.phase(release.title):
                _install(release, fetch or _download)
            done.append(f"{release.title} in {release.into}")
    return done


def _install(release: Release, fetch: Fetch) -> None:
    expected = checksum(fetch(release.checksums).decode(), release.file)
    content = fetch(release.archive)
    found = hashlib.new(HASHES[len(expected)], content).hexdigest()
    if found != expected:
        raise EngineError(
            f"{release.archive} has the checksum {found}, and its publisher lists {expected}",
            remedy="try again; if it happens again, a proxy may be changing the file",
        )
    part = release.into.with_name(f".{release.into.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive.getmembers():
            if member.isfile():  # the CLI's files are in a folder pulumi/, the plugin's in none
                member.name = Path(member.name).name
                archive.extract(member, part, filter="data")
    part.rename(release.into)


def checksum(text: str, file: str) -> str:
    """Return the checksum of a file from a list in the format of `sha256sum`; raise EngineError without one.

    >>> checksum("ab12  ./one.tar.gz\\ncd34  two.tar.gz\\n", "one.tar.gz")
    'ab12'
    """
    for line in text.splitlines():
        digest, _, name = line.partition(" ")
        if name.strip().lstrip("*").removeprefix("./") == file:
            return digest
    raise EngineError(f"the publisher's list of checksums has no {file}", remedy="install it by hand (docs/pulumi.md)")


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            content: bytes = answer.read()
    except OSError as error:
        raise EngineError(
            f"{url} can't be fetched: {getattr(error, 'reason', None) or error}",
            remedy="the embedded engine makes the same lab without it (docs/pulumi.md)",
        ) from None
    return content
