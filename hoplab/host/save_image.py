"""libvirt's file of a saved machine: a header, the machine's XML and a cookie, then QEMU's own stream.

libvirt restores such a file only to a machine of the same name. Another lab's copy of the machine has another one, so
the XML is written anew and the stream behind it, which has no names, is copied.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from hoplab.core.errors import EngineError

MAGIC = b"LibvirtQemudSave"
VERSION = 2
HEADER = struct.Struct("=16s5I56x")  # magic, version, length of XML and cookie, was running, format, cookie's offset
ROOM = 1024  # zeros behind the texts, as libvirt leaves: `virsh save-image-edit` writes a longer XML in place
MOST = 2**20  # bytes of XML and cookie
NO_COPY_IN_KERNEL = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


def copy_renamed(source: Path, target: Path, change: Callable[[str], str]) -> None:
    """Copy the file of a saved machine with ``change`` applied to its XML and its cookie.

    Raise EngineError for a file that libvirt did not write in the known format, OSError where it can't be copied.
    """
    with source.open("rb") as old:
        magic, version, length, running, form, offset = _header(old, source)
        texts = old.read(length)
        xml = texts[: offset or length].partition(b"\0")[0]
        cookie = texts[offset:].partition(b"\0")[0] if offset else b""
        new_xml = change(xml.decode()).encode() + b"\0"
        new_cookie = change(cookie.decode()).encode() + b"\0" if offset else b""
        new_texts = new_xml + new_cookie + bytes(ROOM)
        header = HEADER.pack(magic, version, len(new_texts), running, form, len(new_xml) if offset else 0)
        with target.open("wb") as new:
            os.fchmod(new.fileno(), 0o600)
            new.write(header + new_texts)
            new.flush()
            _copy_rest(old, new, HEADER.size + length)


def _header(file: BinaryIO, source: Path) -> tuple[bytes, int, int, int, int, int]:
    found = file.read(HEADER.size)
    if len(found) == HEADER.size:
        magic, version, length, running, form, offset = HEADER.unpack(found)
        if magic == MAGIC and version == VERSION and offset <= length <= MOST:
            return magic, version, length, running, form, offset
    raise EngineError(
        f"{source} is not a saved machine in the format {VERSION} of libvirt",
        remedy="its lab can be restored, but not forked: ./lab up --fresh makes the lab anew",
    )


def _copy_rest(old: BinaryIO, new: BinaryIO, start: int) -> None:
    """Copy from an offset to the end: in the kernel, which shares blocks where the file system can."""
    try:
        while copied := os.copy_file_range(old.fileno(), new.fileno(), 2**30, offset_src=start):
            start += copied
    except OSError as error:
        if error.errno not in NO_COPY_IN_KERNEL:
            raise
        old.seek(start)
        shutil.copyfileobj(old, new, 2**22)
