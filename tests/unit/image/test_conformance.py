"""Upstream's tests as stages of the cache: of the lab's own Kubernetes, built once, kept by `prune`."""

from __future__ import annotations

import dataclasses
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hoplab import image
from hoplab.core import paths
from hoplab.core.errors import HostError, ImageError
from hoplab.image import commands, conformance, debian, gobuild
from hoplab.image.store import Store
from hoplab.spec.catalog import ConformanceSuite, components
from tests.support.progress import RecordingProgress

TABLE = components()


def suite() -> ConformanceSuite:
    assert TABLE.conformance
    return TABLE.conformance


def test_the_tests_are_of_the_labs_kubernetes() -> None:
    tests, kubernetes = suite().go, TABLE.go["kubernetes"]
    assert (tests.version, tests.source, tests.tags) == (kubernetes.version, kubernetes.source, kubernetes.tags)
    assert (tests.folder, tests.variables) == (kubernetes.folder, kubernetes.variables)
    assert tests.name not in TABLE.go  # no node image waits for them


def test_a_test_program_is_compiled_and_not_run() -> None:
    argv, environment = gobuild.command(suite().go, "e2e.test", Path("work/out"))
    assert argv[:7] == ["go", "test", "-c", "-vet=off", "-mod=readonly", "-trimpath", "-modfile=work/go.mod"]
    assert argv[-3:] == ["-o", "work/out/e2e.test", "k8s.io/kubernetes/test/e2e"]
    assert environment["CGO_ENABLED"] == "0"
    argv, _ = gobuild.command(suite().go, "agnhost", Path("work/out"))
    assert argv[:2] == ["go", "build"] and argv[-1] == "k8s.io/kubernetes/test/images/agnhost"


def test_more_checksums_are_part_of_the_key(tmp_path: Path) -> None:
    sums = tmp_path / "go.sum"
    sums.write_text("one")
    component = dataclasses.replace(suite().go, more_sums=sums)
    keys = {gobuild.key(component), gobuild.key(dataclasses.replace(component, tests={}))}
    sums.write_text("two")
    keys.add(gobuild.key(component))
    assert len(keys) == 3


def test_checksums_are_of_modules_that_the_lock_has_not() -> None:
    sums = suite().go.more_sums
    assert sums
    more = sums.read_text().splitlines()
    assert more and not set(more) & set((suite().go.folder / "go.sum").read_text().splitlines())


class Built:
    """The cache, with builds of stages that only write what counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Path) -> None:
        self.module = module
        self.store = Store(paths.cache_dir() / "image")
        self.commands: list[list[str]] = []
        monkeypatch.setattr(commands, "require", lambda _: None)
        monkeypatch.setattr(gobuild, "run", self._go)
        monkeypatch.setattr(debian, "run", self._mmdebstrap)

    def _go(self, argv: list[str], *_: Any, cwd: Path, on_line: Callable[[str], None] = print, **__: Any) -> None:
        self.commands.append(argv)
        if argv[1] == "mod":  # download
            for file in suite().go.files.values():
                (self.module / file).parent.mkdir(parents=True, exist_ok=True)
                (self.module / file).write_text(f"content of {Path(file).name}")
            return
        if argv[1] == "list":
            on_line(str(self.module))
            return
        module = Path(next(word for word in argv if word.startswith("-modfile=")).removeprefix("-modfile="))
        assert module.read_text() == (cwd / "go.mod").read_text()
        sums = suite().go.more_sums
        assert sums and module.with_suffix(".sum").read_text() == (cwd / "go.sum").read_text() + sums.read_text()
        Path(argv[argv.index("-o") + 1]).write_text(argv[-1])

    def _mmdebstrap(self, argv: list[str], *_: Any, **__: Any) -> None:
        self.commands.append(argv)
        with tarfile.open(next(word for word in argv if word.endswith(".tar")), "w") as tar:
            tar.addfile(tarfile.TarInfo("usr"))


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> Built:
    assert folder  # its cache is the test's own
    return Built(monkeypatch, tmp_path / "kubernetes")


def test_they_are_built_once_with_images_of_one_layer_and_agnhost(built: Built) -> None:
    progress = RecordingProgress()
    found = conformance.ensure_suite(progress)
    assert found.program.read_text() == "k8s.io/kubernetes/test/e2e"
    assert found.version == TABLE.go["kubernetes"].version
    assert list(found.images) == [entry.name for entry in suite().images]
    with tarfile.open(found.archive) as tar:
        blobs = [name for name in tar.getnames() if name.startswith("blobs/")]
    assert len(blobs) == 2 + 2 * len(found.images)  # the layers, then config and manifest of each image
    assert f"building e2e.test {found.version}" in progress.tasks
    asked = len(built.commands)
    assert conformance.ensure_suite(progress) == found
    assert len(built.commands) == asked


def test_agnhost_has_the_certificate_that_it_serves_with_tls(built: Built) -> None:
    archive = conformance.ensure_suite(RecordingProgress()).archive
    assert built.commands
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as images:
        for blob in (images.extractfile(member) for member in images if member.name.startswith("blobs/")):
            with suppress(tarfile.ReadError), tarfile.open(fileobj=blob) as layer:
                found |= {member.name: content.read() for member in layer if (content := layer.extractfile(member))}
    assert found["localhost.crt"] == b"content of localhost.crt"
    assert found["localhost.key"] == b"content of localhost.key"


def test_pruning_keeps_them(built: Built) -> None:
    found = conformance.ensure_suite(RecordingProgress())
    built.store.make("conformance", "old", lambda output: {}, space_gib=0)
    removed = image.prune_images(set())
    assert [line.partition(" ")[0] for line in removed] == ["conformance-old"]
    assert found.program.exists() and found.archive.exists()


def test_who_is_not_root_is_told_how_to_build(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert folder
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(HostError):
        conformance.ensure_suite(RecordingProgress())


def test_an_archive_without_an_index_is_an_error(built: Built) -> None:
    archive = conformance.ensure_suite(RecordingProgress()).archive
    with tarfile.open(archive, "w") as tar:
        tar.addfile(tarfile.TarInfo("blobs"))
    with pytest.raises(ImageError, match="has no index") as caught:
        conformance.ensure_suite(RecordingProgress())
    assert caught.value.remedy == f"remove {archive.parent}; the next run builds it again"


def test_a_table_without_them_is_an_error(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert folder
    monkeypatch.setattr(conformance, "components", lambda: dataclasses.replace(TABLE, conformance=None))
    with pytest.raises(ImageError, match=r"components\.toml has no \[conformance\]"):
        conformance.ensure_suite(RecordingProgress())
