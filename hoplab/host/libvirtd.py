"""A libvirtd of the lab's own, in the lab's own network namespace.

    /etc/libvirt, /var/lib/libvirt, /var/log/libvirt   are <lab>/libvirt/{etc,lib,log}
    /run/libvirt                                       is /run/hoplab/<lab id>
    /var/cache/libvirt                                 is ~/.cache/hoplab/libvirt (what QEMU can do: 4 s to find out)

for that libvirtd, the QEMUs and the dnsmasq it starts, and for nobody else (see ``mounts``). So labs do not see each
other or the system's libvirt, whatever networks, domains and pools they name; QEMU's sockets keep the short paths they
need, and AppArmor's profiles for libvirtd and dnsmasq fit as they are. `ip netns exec` gives them a /sys of the
namespace, without the host's cgroups.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import libvirt

from hoplab.core import fs
from hoplab.core.errors import HostError
from hoplab.core.packages import install_remedy
from hoplab.core.paths import LabPaths, cache_dir
from hoplab.host import mounts, netns, processes, rootless
from hoplab.host.machines import connected

TOOLS = ("libvirtd", "qemu-system-x86_64", "dnsmasq", "ip", "iptables")
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_DEADLINE_S = 60  # measured: 0.5 s; a host busy with an image build takes several

# The socket's directory is root's alone; polkit would need the host's message bus.
LIBVIRTD_CONF = """\
unix_sock_ro_perms = "0700"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""
# Disks and console logs are below the project, which may be in a home that only its user and root can read.
QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""
# libvirt keeps the owner of a file in an attribute that only the host's root may set
ROOTLESS_QEMU_CONF = "remember_owner = 0\n"


class PrivateLibvirt:
    """The private libvirtd of one lab."""

    def __init__(self, paths: LabPaths) -> None:
        self.paths = paths

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self.paths.run}/libvirt-sock"

    @property
    def qemu_logs(self) -> Path:
        """Return the folder of QEMU's own output: <name>.log per machine."""
        return self.paths.libvirt / "log" / "qemu"

    def running(self) -> bool:
        """Return whether libvirtd answers."""
        if not netns.exists(self.paths.netns):
            return False
        try:
            with connected(self.uri):
                return True
        except libvirt.libvirtError:
            return False

    def start(self) -> str:
        """Make the namespace and start libvirtd, unless it answers already; return its URI.

        Machines that a libvirtd before left running are found again.
        """
        if self.running():
            return self.uri
        self._require()
        self._end_libvirtd()  # one that does not answer, or whose namespace was removed under it
        netns.create(self.paths.netns)
        self._write_configuration()
        self._launch()
        if not self.running():
            raise HostError("libvirtd started and does not answer", remedy="read its log", log=str(self._log))
        return self.uri

    def stop(self) -> list[str]:
        """End libvirtd and every process in the namespace, remove the namespace and the run directory; return which.

        Definitions and disks stay: ``start`` finds the same domains and networks, shut off.
        """
        removed = self._end_libvirtd()
        removed += netns.end_processes(self.paths.netns)
        if netns.delete(self.paths.netns):
            removed.append(f"network namespace {self.paths.netns}")
        if self.paths.run.exists():
            fs.remove_folder(self.paths.run)
            removed.append(str(self.paths.run))
        with suppress(OSError):
            self.paths.run.parent.rmdir()  # with the last lab
        return removed

    @property
    def _log(self) -> Path:
        return self.paths.libvirt / "log" / "libvirtd.log"

    @property
    def _pid_file(self) -> Path:
        return self.paths.run / "libvirtd.pid"

    @property
    def _directories(self) -> dict[str, Path]:
        """Return which folder libvirtd finds at each of its compiled-in places."""
        return {
            "/etc/libvirt": self.paths.libvirt / "etc",
            "/var/lib/libvirt": self.paths.libvirt / "lib",
            "/var/cache/libvirt": cache_dir() / "libvirt",
            "/var/log/libvirt": self.paths.libvirt / "log",
            "/run/libvirt": self.paths.run,
        }

    def _require(self) -> None:
        if os.geteuid() != 0:  # nor root of the user's own namespaces
            raise HostError(
                "a private libvirt is made by root, or in namespaces of your own, which ./lab enters",
                remedy="use ./lab (`./lab pulumi run up` for `pulumi up`), or the system's libvirt: "
                "pulumi config set lab:libvirt system",
            )
        missing = [tool for tool in TOOLS if shutil.which(tool, path=SEARCH) is None]
        if missing:
            raise HostError(f"missing on this host: {', '.join(missing)}", remedy=install_remedy(missing))

    def _write_configuration(self) -> None:
        for directory in self._directories.values():
            directory.mkdir(parents=True, exist_ok=True)
        etc = self.paths.libvirt / "etc"
        fs.write(etc / "libvirtd.conf", LIBVIRTD_CONF)
        fs.write(etc / "qemu.conf", QEMU_CONF + (ROOTLESS_QEMU_CONF if rootless.wanted() else ""))

    def _launch(self) -> None:
        """Start libvirtd; with --daemon it returns when it listens, or prints the reason on stderr."""
        binds = [f"{ours}:{compiled_in}" for compiled_in, ours in self._directories.items()]
        launcher = [sys.executable, "-I", mounts.__file__, *binds, "--"]
        libvirtd = ["libvirtd", "--daemon", "--pid-file", str(self._pid_file)]
        try:
            with _on_one_processor() as processors:
                done = subprocess.run(
                    ["ip", "netns", "exec", self.paths.netns, *launcher, *libvirtd],
                    # no message bus: firewalld and machined act on the host, where this lab's bridge is not
                    env={"PATH": SEARCH, "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent"},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=START_DEADLINE_S,
                    start_new_session=True,  # Ctrl-C in the lab command is not for libvirtd
                )
        except subprocess.TimeoutExpired as timeout:
            raise HostError(
                f"libvirtd did not start within {START_DEADLINE_S} s", remedy="read its log", log=str(self._log)
            ) from timeout
        if done.returncode != 0:
            said = done.stderr.strip() or f"exit code {done.returncode}"
            raise HostError(f"libvirtd did not start: {said}", remedy="read its log", log=str(self._log))
        self._let_run_on(processors)

    def _let_run_on(self, processors: set[int]) -> None:
        """Let all threads of libvirtd run on these processors."""
        with suppress(OSError, ValueError):  # it has ended since: whoever asks it next says so
            for thread in Path(f"/proc/{int(self._pid_file.read_text())}/task").iterdir():
                os.sched_setaffinity(int(thread.name), processors)

    def _end_libvirtd(self) -> list[str]:
        """End the libvirtd of the pid file, if it is this lab's."""
        try:
            pid = int(self._pid_file.read_text())
            ours = str(self._pid_file) in processes.command_line(pid)  # after a reboot the number may be someone else's
        except (FileNotFoundError, ValueError):
            return []
        return processes.end([pid]) if ours else []


@contextmanager
def _on_one_processor() -> Iterator[set[int]]:
    """Start programs on the first processor within the body; give those that this thread may use otherwise.

    What libvirt keeps of QEMU's abilities is of a host with this CPUID. On some hosts that tells the processor it was
    asked on, and a libvirtd that begins on another one asks QEMU for four seconds again.
    """
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    try:
        yield processors
    finally:
        os.sched_setaffinity(0, processors)
