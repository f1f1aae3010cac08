"""Builds Debian root file systems, and extracts the kernel of the node's root file system."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path
from typing import Any

from hoplab.core.progress import Progress
from hoplab.image.commands import isolated, run
from hoplab.image.store import Stage, Store, digest
from hoplab.spec.catalog import DebianSystem

SPACE_GIB = 2.5
ROOT_TAR = "root.tar"
KERNEL = "vmlinuz"
MODULES = "modules"  # folder with the initrd's kernel modules

# No program on a node reads these. They are a third of the files, all of which mke2fs would copy.
UNWANTED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*")
KEPT = ("/usr/share/doc/*/copyright",)

# The initrd is made by hoplab.image.initrd; without this hook the kernel's package makes none.
INITRD_HOOK = "/etc/kernel/postinst.d/initramfs-tools"
# The root is a whole virtio disk with ext4. The kernel has all of that built in but the disk's driver.
INITRD_MODULES = ("virtio_blk",)


# $1 is the root file system, in which mmdebstrap has made devices and apt's list of sources.
UNPACK = (
    "tar --extract --file={root} --directory=\"$1\" --numeric-owner --xattrs '--xattrs-include=*'"
    " '--exclude=./dev/*' --exclude=./etc/apt/sources.list"
)


def command(system: DebianSystem, tar: Path, mirror: str, base: Path | None = None) -> list[str]:
    """Return mmdebstrap's command line. Without a mirror it uses the default, with the keys of Debian's keyring.

    With ``base``, the archive of the system that this one is added to, it installs only the packages in it.
    """
    variant = "custom" if base else system.variant
    argv = ["mmdebstrap", f"--variant={variant}", f"--include={','.join(system.packages)}"]
    argv += [f"--setup-hook={UNPACK.format(root=shlex.quote(str(base)))}"] if base else []
    argv += [f"--dpkgopt=path-exclude={path}" for path in UNWANTED]
    argv += [f"--dpkgopt=path-include={path}" for path in KEPT]
    if any(package.startswith("linux-image-") for package in system.packages):
        argv.append(f"--dpkgopt=path-exclude={INITRD_HOOK}")
    return [*argv, system.suite, str(tar), *([mirror] if mirror else [])]


def key(system: DebianSystem, base: Stage | None = None) -> str:
    """Return the digest of the request, without the mirror, which does not determine the packages."""
    if base is None:
        return digest(command(system, Path("root.tar"), ""))
    return digest(command(system, Path("root.tar"), "", Path("base.tar")), base.content)


def find(system: DebianSystem, store: Store) -> Stage | None:
    """Return the cached stage, or None."""
    base = find(system.onto, store) if system.onto else None
    return None if system.onto and not base else store.find(f"debian-{system.name}", key(system, base))


def build(system: DebianSystem, store: Store, progress: Progress, mirror: str) -> Stage:
    """Return the stage with the root file system as a tar archive, built or cached; the node's has the kernel too.

    Of a system that is added to another one, that one is built first.
    """
    base = build(system.onto, store, progress, mirror) if system.onto else None

    def bootstrap(output: Path) -> dict[str, Any]:
        log = store.log(f"debian-{system.name}")
        log.unlink(missing_ok=True)
        tar = output / ROOT_TAR
        what = f"making a Debian {system.suite} root file system"
        what += f" with {', '.join(system.packages)}" if base else ""
        progress.task(what)
        run(
            isolated(command(system, tar, mirror, base.directory / ROOT_TAR if base else None)),
            what,
            log,
            env={"TMPDIR": str(output.parent)},
            on_line=lambda line: progress.task(f"{what}: {textwrap.shorten(line.removeprefix('I: '), 50)}"),
        )
        if system.name == "node":
            _take_boot_files(tar, output, log)
        return {"suite": system.suite}

    return store.make(f"debian-{system.name}", key(system, base), bootstrap, space_gib=SPACE_GIB)


def _take_boot_files(tar: Path, output: Path, log: Path) -> None:
    """Extract kernel and modules from the archive: machines boot directly with them, without a boot loader."""
    extract = ["tar", "--extract", f"--file={tar}", "--wildcards", "--transform=s,.*/,,"]
    what = "taking the kernel out of the root file system"
    run([*extract, f"--directory={output}", "./boot/vmlinuz-*"], what, log)
    (kernel,) = output.glob("vmlinuz-*")
    kernel.rename(output / KERNEL)
    (output / MODULES).mkdir()
    modules = [f"./usr/lib/modules/*/{module}.ko.xz" for module in INITRD_MODULES]
    run([*extract, f"--directory={output / MODULES}", *modules], what, log)
