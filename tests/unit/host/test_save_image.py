"""libvirt's file of a saved machine, copied with other names in it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hoplab.core.errors import EngineError
from hoplab.host import save_image
from hoplab.host.save_image import HEADER, MAGIC

XML, COOKIE, STREAM = b"<name>a-s1</name>\0", b"<cookie>a-s1</cookie>\0", os.urandom(2**16)


def saved(file: Path, *, magic: bytes = MAGIC, version: int = 2, cookie: bool = True) -> Path:
    texts = XML + (COOKIE if cookie else b"") + bytes(100)
    file.write_bytes(HEADER.pack(magic, version, len(texts), 1, 0, len(XML) if cookie else 0) + texts + STREAM)
    return file


def parts(file: Path) -> tuple[str, str, bytes]:
    """XML, cookie and stream, as libvirt reads them."""
    content = file.read_bytes()
    _, _, length, running, form, offset = HEADER.unpack(content[: HEADER.size])
    assert (running, form) == (1, 0)
    texts = content[HEADER.size : HEADER.size + length]
    xml, cookie = texts[: offset or length], texts[offset:] if offset else b""
    return xml.rstrip(b"\0").decode(), cookie.rstrip(b"\0").decode(), content[HEADER.size + length :]


def longer(text: str) -> str:
    return text.replace("a-s1", "a-s12345" * 200)


@pytest.mark.parametrize("cookie", [True, False])
def test_names_change_and_the_stream_stays(tmp_path: Path, cookie: bool) -> None:
    source, target = saved(tmp_path / "old", cookie=cookie), tmp_path / "new"
    save_image.copy_renamed(source, target, longer)
    xml, found, stream = parts(target)
    assert xml == longer("<name>a-s1</name>")
    assert found == (longer("<cookie>a-s1</cookie>") if cookie else "")
    assert stream == STREAM
    assert target.stat().st_mode & 0o777 == 0o600
    assert parts(source)[0] == "<name>a-s1</name>", "the checkpoint itself was changed"


def test_a_file_system_that_does_not_copy_in_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies: Iterator[int | OSError] = iter([1000, OSError(errno.EXDEV, "no")])
    copy = os.copy_file_range

    def some(source: int, target: int, _count: int, **offsets: Any) -> int:
        now = next(copies)
        if isinstance(now, OSError):
            raise now
        return copy(source, target, now, **offsets)

    monkeypatch.setattr(os, "copy_file_range", some)
    save_image.copy_renamed(saved(tmp_path / "old"), tmp_path / "new", longer)
    assert parts(tmp_path / "new")[2] == STREAM


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(OSError, match="No space left"):
        save_image.copy_renamed(saved(tmp_path / "old"), tmp_path / "new", longer)


@pytest.mark.parametrize("wrong", [{"magic": b"LibvirtQemudPart"}, {"version": 3}, {}])
def test_another_format(tmp_path: Path, wrong: dict[str, Any]) -> None:
    file = saved(tmp_path / "old", **wrong)
    if not wrong:
        file.write_bytes(b"short")
    with pytest.raises(EngineError, match="is not a saved machine in the format 2 of libvirt") as refused:
        save_image.copy_renamed(file, tmp_path / "new", longer)
    assert "./lab up --fresh" in refused.value.remedy
