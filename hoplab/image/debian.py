"""Debian root file systems, and the kernel and initrd that come with the node's."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from hoplab.image.commands import isolated, run
from hoplab.image.components import DebianSystem
from hoplab.image.store import Stage, Store, digest
from hoplab.progress import Progress

SPACE_GIB = 2.5
ROOT_TAR = "root.tar"
KERNEL = "vmlinuz"
INITRD = "initrd.img"

# Neither people nor programs read these on a node; a third of the files, and mke2fs copies each.
UNWANTED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*")
KEPT = ("/usr/share/doc/*/copyright",)

# The root is a whole virtio disk with ext4, which the kernel has built in: the initrd needs one module and no shell
# tools. A small one is unpacked in a moment, which counts where the CPU is emulated.
INITRAMFS_CONF = "MODULES=list\nBUSYBOX=n\nKEYMAP=n\nCOMPRESS=lz4\n"
INITRAMFS_MODULES = "virtio_blk\n"

# $1 is the root. Runs before the kernel's package is configured, so that its initrd is made once, in this shape.
BEFORE_CONFIGURE = f"""
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
printf '%s' '{INITRAMFS_CONF}' > "$1/etc/initramfs-tools/conf.d/hoplab.conf"
printf '%s' '{INITRAMFS_MODULES}' > "$1/usr/share/initramfs-tools/modules.d/hoplab"
"""


def command(system: DebianSystem, tar: Path, mirror: str) -> list[str]:
    """mmdebstrap's command line. Without a mirror it uses its own default, with the keys of Debian's keyring."""
    argv = ["mmdebstrap", f"--variant={system.variant}", f"--include={','.join(system.packages)}"]
    argv += [f"--dpkgopt=path-exclude={path}" for path in UNWANTED]
    argv += [f"--dpkgopt=path-include={path}" for path in KEPT]
    if "initramfs-tools" in system.packages:
        argv.append(f"--essential-hook={BEFORE_CONFIGURE}")
    return [*argv, system.suite, str(tar), *([mirror] if mirror else [])]


def key(system: DebianSystem) -> str:
    """Digest of what is asked for; the mirror is only where it comes from."""
    return digest(command(system, Path("root.tar"), ""))


def build(system: DebianSystem, store: Store, progress: Progress, mirror: str) -> Stage:
    """The root file system as a tar archive, made now or earlier; the node's with kernel and initrd beside it."""

    def bootstrap(output: Path) -> dict[str, Any]:
        log = store.log(f"debian-{system.name}")
        log.unlink(missing_ok=True)
        tar = output / ROOT_TAR
        what = f"making a Debian {system.suite} root file system"
        progress.task(what)
        run(
            isolated(command(system, tar, mirror)),
            what,
            log,
            env={"TMPDIR": str(output.parent)},
            on_line=lambda line: progress.task(f"{what}: {textwrap.shorten(line.removeprefix('I: '), 50)}"),
        )
        if "initramfs-tools" in system.packages:
            _take_boot_files(tar, output, log)
        return {"suite": system.suite}

    return store.make(f"debian-{system.name}", key(system), bootstrap, space_gib=SPACE_GIB)


def _take_boot_files(tar: Path, output: Path, log: Path) -> None:
    """Kernel and initrd out of the archive: the machines are booted directly with them, without a boot loader."""
    extract = ["tar", "--extract", f"--file={tar}", f"--directory={output}", "--wildcards", "--strip-components=2"]
    run([*extract, "./boot/vmlinuz-*", "./boot/initrd.img-*"], "taking the kernel out of the root file system", log)
    (kernel,) = output.glob("vmlinuz-*")
    (initrd,) = output.glob("initrd.img-*")
    kernel.rename(output / KERNEL)
    initrd.rename(output / INITRD)
