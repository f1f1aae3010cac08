"""KVM or emulation. /dev/kvm may exist and still fail to run a kernel, so a kernel is booted to find out."""

from __future__ import annotations

import hashlib
import json
import os
import select
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hoplab.core import fs
from hoplab.core.errors import HostError
from hoplab.core.packages import install_remedy
from hoplab.core.paths import cache_dir
from hoplab.core.wait import deadline
from hoplab.spec.model import Accel

KVM = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PROBE_DEADLINE_S = 15.0  # with working KVM the kernel is there in about a second
LATE_LINE = b"as init process"  # "Run /init as init process": the kernel is up and hands over to the initrd
QEMU = ("qemu-system-x86_64", "-accel", "kvm", "-cpu", "host")
KERNEL_ARGUMENTS = "console=ttyS0 panic=-1"  # a panic ends QEMU (-no-reboot), so the probe does not wait it out


@dataclass(frozen=True)
class AccelChoice:
    accel: Literal["kvm", "tcg"]
    reason: str  # a sentence for the screen


def resolve(requested: Accel, kernel: Path, initrd: Path) -> AccelChoice:
    """Return the acceleration to use; KVM is tried by booting this kernel, once per boot of the host."""
    if requested == "tcg":
        return AccelChoice("tcg", "the spec asks for emulation")
    choice = _cached_probe(kernel, initrd)
    if requested == "kvm" and choice.accel != "kvm":
        raise HostError(
            f"the spec asks for KVM, which does not work here: {choice.reason}",
            remedy="enable virtualization in the firmware (or nested virtualization), or set lab:accel to auto",
        )
    return choice


def of_libvirt(requested: Accel, offered: bool) -> AccelChoice:
    """Return the acceleration of machines of another libvirt, which says whether its QEMU may use KVM."""
    if requested == "tcg":
        return AccelChoice("tcg", "the spec asks for emulation")
    if offered:
        return AccelChoice("kvm", "libvirt offers it")
    if requested == "kvm":
        raise HostError(
            "the spec asks for KVM, which its libvirt does not offer",
            remedy="enable virtualization in that host's firmware (or nested virtualization), or set lab:accel to auto",
        )
    return AccelChoice("tcg", "libvirt offers no KVM")


def _cached_probe(kernel: Path, initrd: Path) -> AccelChoice:
    digest = hashlib.sha256(kernel.read_bytes()).hexdigest()
    seen = {"boot": BOOT_ID.read_text().strip(), "kernel": digest}
    cache = cache_dir() / "accel.json"
    try:
        known = json.loads(cache.read_text())
        if known["seen"] == seen:
            return AccelChoice(**known["choice"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or not ours: probe
    choice = probe(kernel, initrd)
    cache.parent.mkdir(parents=True, exist_ok=True)
    fs.write(cache, json.dumps({"seen": seen, "choice": asdict(choice)}))
    return choice


def probe(kernel: Path, initrd: Path) -> AccelChoice:
    """Boot the kernel under KVM until it starts /init; return whether it does, and why not."""
    if not KVM.exists():
        return AccelChoice("tcg", f"there is no {KVM}")
    if not os.access(KVM, os.R_OK | os.W_OK):
        return AccelChoice("tcg", f"no permission to use {KVM}")
    machine = ["-m", "512", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]
    boot = ["-kernel", str(kernel), "-initrd", str(initrd), "-append", KERNEL_ARGUMENTS]
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen([*QEMU, *machine, *boot], stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    except FileNotFoundError as missing:
        raise HostError("QEMU is not installed", remedy=install_remedy(["qemu-system-x86_64"])) from missing
    with process:
        try:
            return _watch(process)
        finally:
            process.kill()


def _watch(qemu: subprocess.Popen[bytes]) -> AccelChoice:
    """Read the serial console until the late line, QEMU's end or the deadline."""
    assert qemu.stdout is not None and qemu.stderr is not None
    console = b""
    why = ""
    started, patience = time.monotonic(), deadline(PROBE_DEADLINE_S)
    while left := patience.left():
        if not select.select([qemu.stdout], [], [], left)[0]:
            break
        chunk = os.read(qemu.stdout.fileno(), 65536)
        if not chunk:
            why = "QEMU ended"
            break
        console += chunk
        if LATE_LINE in console:
            return AccelChoice("kvm", f"the kernel boots under KVM ({time.monotonic() - started:.1f} s)")
    why = why or f"not up within {patience.seconds:.0f} s"
    qemu.kill()
    said = _last_line(qemu.stderr.read()) or _last_line(console) or "none"
    return AccelChoice("tcg", f"{KVM} is there and the kernel does not boot under it ({why}; last words: {said})")


def _last_line(text: bytes) -> str:
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""
