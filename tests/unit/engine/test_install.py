from __future__ import annotations

import hashlib
import io
import tarfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from hoplab.core.errors import EngineError
from hoplab.engine import install


class Quiet:
    def phase(self, title: str) -> AbstractContextManager[None]:
        return nullcontext()

    def task(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...


def archive(*names: str) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(name), 0o755
            tar.addfile(entry, io.BytesIO(name.encode()))
    return held.getvalue()


class Publisher:
    """Two releases with their checksums: one as sha256, one as sha1 with paths, as they are published."""

    def __init__(self, home: Path) -> None:
        cli, plugin = install.releases(home)
        self.files = {
            cli.archive: archive("pulumi/pulumi", "pulumi/pulumi-language-python"),
            plugin.archive: archive("pulumi-resource-libvirt", "LICENSE"),
        }
        self.files[cli.checksums] = f"{hashlib.sha256(self.files[cli.archive]).hexdigest()}  {cli.file}\n".encode()
        digest = hashlib.sha1(self.files[plugin.archive]).hexdigest()
        self.files[plugin.checksums] = f"{'0' * 40}  ./another\n{digest}  ./{plugin.file}\n".encode()

    def __call__(self, url: str) -> bytes:
        return self.files[url]


def test_install_unpacks_both_where_pulumi_looks(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    assert len(install.install(tmp_path, Quiet(), publisher)) == 2
    programs = [tmp_path / "bin/pulumi", *tmp_path.glob("plugins/resource-libvirt-v*/pulumi-resource-libvirt")]
    assert len(programs) == 2 and all(program.stat().st_mode & 0o111 for program in programs)
    publisher.files.clear()
    assert install.install(tmp_path, Quiet(), publisher) == []


def test_install_refuses_a_wrong_checksum(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    publisher.files[install.releases(tmp_path)[0].archive] += b"more"
    with pytest.raises(EngineError, match=r"linux-x64.tar.gz has the checksum \w{64}, and its publisher lists \w{64}"):
        install.install(tmp_path, Quiet(), publisher)
    assert list(tmp_path.iterdir()) == []


def test_install_refuses_an_archive_without_checksum(tmp_path: Path) -> None:
    publisher = Publisher(tmp_path)
    publisher.files[install.releases(tmp_path)[0].checksums] = b""
    with pytest.raises(EngineError, match="the publisher's list of checksums has no pulumi-v"):
        install.install(tmp_path, Quiet(), publisher)


def test_install_names_a_host_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(install, "RELEASES", "https://{project}.invalid/{version}/{file}")
    monkeypatch.setattr(install, "TIMEOUT_S", 5.0)
    with pytest.raises(EngineError, match=r"https://pulumi.invalid/.* can't be fetched: ") as caught:
        install.install(tmp_path, Quiet())
    assert caught.value.remedy.startswith("the embedded engine makes the same lab")
