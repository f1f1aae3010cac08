"""The serial console log of a machine: its present boot, and whether its kernel has crashed."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

import libvirt

LAST_WORDS = 15  # lines

EMPTY_VOLUME = (
    "<volume><name>{name}</name><capacity>0</capacity><target><format type='raw'/>"
    "<permissions><mode>0644</mode></permissions></target></volume>"
)

# Messages of a kernel that has crashed. Lockup warnings ("BUG: soft lockup") are not among them: a
# busy host makes emulated kernels print them, and they continue.
CRASH = re.compile(
    r".*(?:Kernel panic - not syncing"
    r"|BUG: (?!soft lockup|workqueue lockup)"
    r"|kernel BUG at"
    r"|\bOops\b.*\[#\d+\]"
    r"|: [0-9a-f]{4} \[#\d+\]"  # "general protection fault, probably for ...: 0000 [#1] PREEMPT SMP"
    r"|Dropping to a shell!"  # initramfs-tools found no root disk
    r"|You are in emergency mode).*"
)


class Console:
    """The serial console log of a machine's present boot: what is new, and its end."""

    KEEP = 65536

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.offset = 0
        self.text = ""

    def clear(self) -> None:
        """Empty the log before a start: QEMU may overwrite only its beginning, and leave an old panic after it."""
        self.offset, self.text = 0, ""
        with suppress(OSError):  # not there yet, or not ours to write with a system libvirt
            if self.path:
                os.truncate(self.path, 0)

    def read(self) -> bool:
        """Read new output; return whether there was any."""
        try:
            new = self._rest() if self.path else b""
        except OSError:
            return False
        text = self.text + new.decode(errors="replace")
        boot = text.rfind("Linux version ")  # a guest that rebooted by itself begins anew
        self.text = text[max(boot, len(text) - self.KEEP, 0) :]
        return bool(new)

    def _rest(self) -> bytes:
        assert self.path
        with self.path.open("rb") as log:
            if os.fstat(log.fileno()).st_size < self.offset:
                self.offset, self.text = 0, ""
            log.seek(self.offset)
            new = log.read()
            self.offset = log.tell()
            return new

    @property
    def name(self) -> str:
        """Return where the log is; "" where there is none."""
        return str(self.path or "")

    def crash(self) -> str:
        """Return the first line that shows the kernel has crashed, "" while there is none."""
        found = CRASH.search(self.text)
        return found.group(0).strip() if found else ""

    def last_words(self) -> list[str]:
        """Return the lines from the crash on (the call trace after it is long, and in the log), or the last lines."""
        crash = self.crash()
        return (
            self.text[self.text.find(crash) :].splitlines()[:LAST_WORDS]
            if crash
            else self.text.splitlines()[-LAST_WORDS:]
        )


class VolumeConsole(Console):
    """A console log that is a volume: a user of the system's libvirt may not read the file, libvirt does."""

    def __init__(self, volume: libvirt.virStorageVol) -> None:
        super().__init__(Path(volume.path()))
        self._volume = volume

    def clear(self) -> None:
        """Put an empty volume in the place of the log: one with content can't be shortened."""
        self.offset, self.text = 0, ""
        with suppress(libvirt.libvirtError):
            pool, name = self._volume.storagePoolLookupByVolume(), self._volume.name()
            self._volume.delete()
            self._volume = pool.createXML(EMPTY_VOLUME.format(name=name))

    def _rest(self) -> bytes:
        parts: list[bytes] = []
        try:
            size = self._volume.info()[1]  # libvirt looks at the file for it
            if size < self.offset:
                self.offset, self.text = 0, ""
            if size == self.offset:
                return b""
            stream = self._volume.connect().newStream()
            self._volume.download(stream, self.offset, size - self.offset)
            stream.recvAll(lambda _stream, data, _: parts.append(data), None)
            stream.finish()
        except libvirt.libvirtError as error:
            raise OSError(str(error)) from error
        self.offset = size
        return b"".join(parts)
