"""Upstream's end-to-end tests (e2e.test), and the images of their pods as one archive: built when they are asked for.

They are stages of the same store as the node image's, and no part of any node image: e2e.test compiles for a quarter
of an hour, and few labs run it.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hoplab.core import paths
from hoplab.core.errors import ImageError
from hoplab.core.progress import Progress
from hoplab.image import containers
from hoplab.image.store import Store
from hoplab.image.wanted import Wanted
from hoplab.spec.catalog import components

PROGRAM = "e2e.test"
STAGE = "conformance"  # with the archive; those with programs and base are go-conformance and debian-conformance


@dataclass(frozen=True)
class BuiltSuite:
    """The tests and their images, in the cache."""

    version: str  # of Kubernetes
    program: Path  # e2e.test, static
    archive: Path  # OCI
    images: Mapping[str, str]  # name -> digest of its manifest


def ensure_suite(progress: Progress, mirror: str = "") -> BuiltSuite:
    """Return the tests of the Kubernetes that node images have, built or cached."""
    suite = wanted()
    stages = suite.ensure(Store(paths.cache_dir() / "image"), progress, mirror)
    archive = stages[STAGE].directory / containers.ARCHIVE
    return BuiltSuite(suite.go[0].version, stages[f"go.{STAGE}"].directory / PROGRAM, archive, _digests(archive))


def wanted() -> Wanted:
    """Return the tests as what is built when it is asked for; raise ImageError where the table has none."""
    table = components().conformance
    if table is None:
        raise ImageError("components.toml has no [conformance]", remedy="take the file of the repository")
    return Wanted((table.go,), (table.debian,), table.images, STAGE)


def _digests(archive: Path) -> dict[str, str]:
    """Return name -> digest of the manifest, from the archive's index, which comes first."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name == "index.json":
                content = tar.extractfile(member)
                assert content  # a file
                index = json.load(content)
                return {one["annotations"]["io.containerd.image.name"]: one["digest"] for one in index["manifests"]}
    raise ImageError(f"{archive} has no index", remedy=f"remove {archive.parent}; the next run builds it again")
