"""The serial console log of a machine: its present boot, and whether its kernel has crashed."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

LAST_WORDS = 15  # lines

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
