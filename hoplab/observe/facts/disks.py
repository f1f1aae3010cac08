"""File systems of a node on its disks, and how full they are: ``df``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hoplab.core.errors import FactError
from hoplab.observe.facts import Fact

FULL = 0.99  # of blocks or inodes; the kubelet evicts pods from 0.9
_ONLY_DISKS = " ".join(f"-x {kind}" for kind in ("tmpfs", "devtmpfs", "overlay", "squashfs", "efivarfs"))


@dataclass(frozen=True)
class Usage:
    """How much of something is used and left: KiB, or inodes."""

    used: int
    free: int  # for users other than root

    @property
    def share(self) -> float:
        """Return the used share as `df` computes it, 0 to 1; 0 where there is nothing to use."""
        return self.used / (self.used + self.free) if self.used + self.free else 0.0


@dataclass(frozen=True)
class Disk:
    """One mounted file system."""

    device: str  # "/dev/vda1"
    mount: str  # "/"
    space: Usage  # KiB
    inodes: Usage = Usage(0, 0)

    @property
    def full(self) -> bool:
        return max(self.space.share, self.inodes.share) >= FULL


def parse(text: str) -> tuple[Disk, ...]:
    """Return the file systems from `df -P` twice: in KiB, then in inodes; raise FactError on another table."""
    found: dict[str, Disk] = {}
    table = 0
    for line in text.splitlines():
        if line.startswith("Filesystem"):
            table += 1
            continue
        device, *figures, mount = line.split(None, 5) if len(line.split(None, 5)) == 6 else ["", "", ""]
        try:
            usage = Usage(int(figures[1]), int(figures[2]))
        except (ValueError, IndexError):
            if figures[1:3] == ["-", "-"]:  # a file system without inodes
                continue
            raise FactError(f"{line!r} is no line of `df -P`", remedy="run `df -P` on the node") from None
        if table == 1:
            found[mount] = Disk(device, mount, usage)
        elif mount in found:
            found[mount] = replace(found[mount], inodes=usage)
    return tuple(found.values())


DISKS = Fact("disks", f"df -lPk {_ONLY_DISKS}; df -lPi {_ONLY_DISKS}; true", parse)
