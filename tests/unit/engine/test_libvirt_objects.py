from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import libvirt
import pytest

from hoplab.core.errors import EngineError
from hoplab.engine.libvirt_objects import MARGIN, Domains, Volumes, make_iso

SEED = {"userData": "#cloud-config\n", "metaData": "instance-id: x\n", "networkConfig": "version: 2\n"}


class Quiet:
    def __init__(self) -> None:
        self.said: list[str] = []

    def task(self, text: str) -> None:
        self.said.append(text)


class Volume:
    def __init__(self) -> None:
        self.deleted = False

    def upload(self, _stream: object, offset: int, size: int) -> None:
        assert offset == 0

    def delete(self) -> None:
        self.deleted = True


class Pool:
    """A pool with so much free space."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.volume = Volume()
        self.made = 0

    def info(self) -> list[int]:
        return [2, 0, 0, self.free]

    def createXML(self, _document: str) -> Volume:
        self.made += 1
        return self.volume

    def refresh(self) -> None: ...

    def storageVolLookupByName(self, _name: str) -> Volume:
        return self.volume


class Stream:
    """A stream that takes everything, or breaks off."""

    def __init__(self, error: str = "") -> None:
        self.error = error
        self.received = b""

    def sendAll(self, read: Any, descriptor: int) -> None:
        while chunk := read(self, 65536, descriptor):
            self.received += chunk
        if self.error:
            broken = libvirt.libvirtError(self.error)
            broken.err = (38, 0, self.error, 2, "", None, None, 0, 0)
            raise broken

    def finish(self) -> None: ...

    def abort(self) -> None: ...


def upload(pool: Pool, stream: Stream, source: Path) -> Any:
    driver = Volumes(SimpleNamespace(newStream=lambda: stream), "")
    return driver._upload(pool, "disk", source, "qcow2", Quiet())  # type: ignore[arg-type]


def test_upload_sends_the_whole_file(tmp_path: Path) -> None:
    source = tmp_path / "disk"
    source.write_bytes(os.urandom(200_000))
    stream, pool = Stream(), Pool(free=10**12)
    upload(pool, stream, source)
    assert stream.received == source.read_bytes()
    assert not pool.volume.deleted


def test_upload_checks_the_space_first(tmp_path: Path) -> None:
    source = tmp_path / "disk"
    with source.open("wb") as file:
        file.truncate(100 * 2**20)
    pool = Pool(free=MARGIN + 2**20)
    with pytest.raises(EngineError) as caught:
        upload(pool, Stream(), source)
    assert caught.value.message == (
        "not enough disk space for volume disk: 100 MiB needed and 64 MiB to spare, 65 MiB free"
    )
    assert caught.value.remedy == "free some space, then run it again"
    assert pool.made == 0


def test_upload_to_a_full_disk_leaves_no_half_volume(tmp_path: Path) -> None:
    source = tmp_path / "disk"
    source.write_bytes(b"x" * 1000)
    pool = Pool(free=10**12)
    with pytest.raises(EngineError, match="not enough disk space for volume disk"):
        upload(pool, Stream("cannot write: No space left on device"), source)
    assert pool.volume.deleted


def test_upload_that_fails_leaves_no_half_volume(tmp_path: Path) -> None:
    source = tmp_path / "disk"
    source.write_bytes(b"x")
    pool = Pool(free=10**12)
    with pytest.raises(libvirt.libvirtError, match="connection lost"):
        upload(pool, Stream("connection lost"), source)
    assert pool.volume.deleted


@pytest.mark.skipif(shutil.which("mkisofs") is None, reason="needs mkisofs")
def test_seed_has_its_label_and_files(tmp_path: Path) -> None:
    image = make_iso(tmp_path, SEED).read_bytes()
    assert image[32808:32840].decode().strip() == "cidata"
    assert all(text.encode() in image for text in SEED.values())


def test_make_iso_names_a_missing_mkisofs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError) as caught:
        make_iso(tmp_path, SEED)
    assert (caught.value.message, caught.value.remedy) == (
        "there is no `mkisofs` on PATH",
        "apt-get install --no-install-recommends genisoimage",
    )


def test_make_iso_quotes_a_failing_mkisofs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "write error\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(EngineError, match="mkisofs could not make a seed: write error"):
        make_iso(tmp_path, SEED)


def test_domain_that_does_not_start_is_not_left_defined(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        undefined = False

        def setAutostart(self, _: bool) -> None: ...

        def isActive(self) -> bool:
            return False

        def undefineFlags(self, _: int) -> None:
            self.undefined = True

    def refuse(_: object) -> None:
        raise EngineError("no /dev/kvm")

    domain = Broken()
    monkeypatch.setattr("hoplab.engine.libvirt_objects.power_on", refuse)
    monkeypatch.setattr(Domains, "_document", lambda *_: "<domain/>")
    driver = Domains(SimpleNamespace(defineXML=lambda _: domain), "")
    with pytest.raises(EngineError, match="no /dev/kvm"):
        driver.create({"name": "w"}, Quiet())  # type: ignore[arg-type]
    assert domain.undefined
