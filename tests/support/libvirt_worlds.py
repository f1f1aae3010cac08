"""Hosts of the tests' own: namespaces with users, a system libvirt, an SSH server and a link to another such host.

    with host(folder / "far", libvirt=True) as far, host(folder / "near") as near:
        link(near, far)
        near.run("virsh", "-c", "qemu+ssh://student@10.66.0.2/system", "list", user=STUDENT)

A host has its own network, mount and PID namespaces: its own /run, /home, /etc/libvirt, /var/lib/libvirt and users. It
ends with its first process, and nothing of the machine's own libvirt, users and networks is touched. It needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hoplab.core.paths import PROJECT, cache_dir
from hoplab.core.wait import NotYet, until

STUDENT, UID = "student", 64201  # who uses hoplab: no root, a member of the group libvirt
STRANGER, STRANGER_UID = "stranger", 64202  # in no group but their own
LIBVIRT_GID = 64203  # where this machine has no such group
NEAR, FAR = "10.66.0.1", "10.66.0.2"  # both ends of a link
TOOLS = ("unshare", "nsenter", "setpriv", "ip", "mount", "libvirtd", "virsh")
READY_S = 30.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

LIBVIRTD_CONF = """\
unix_sock_group = "libvirt"
unix_sock_ro_perms = "0777"
unix_sock_rw_perms = "0770"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""
# QEMU's user and ownership of files stay the distribution's: that is what a lab has to get along with
QEMU_CONF = """\
security_driver = "none"
cgroup_controllers = []
stdio_handler = "file"
"""
SSHD_CONF = """\
Port 22
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
PasswordAuthentication no
UsePAM no
StrictModes no
AllowTcpForwarding yes
MaxStartups 100
MaxSessions 100
"""
OTHER_USR = os.environ.get("HOPLAB_TEST_USR", "")  # a folder that is laid over /usr: another version of QEMU or libvirt
# Runs in the new namespaces; $1 is the host's folder, $2 what is laid over /usr. What a host has of its own is mounted
# over what the machine has.
SET_UP = """\
set -e
root=$1
[ -z "$2" ] || mount -t overlay overlay -o "lowerdir=$2:/usr" /usr
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
ln -sfn /run /run/var-run
for place in etc/passwd etc/group etc/libvirt var/lib/libvirt var/log/libvirt var/cache/libvirt home; do
  mount --bind "$root/$place" "/$place"
done
if [ -e /dev/kvm ]; then # of the group kvm, as udev makes it
  mknod -m 660 "$root/kvm" c 10 232
  chgrp kvm "$root/kvm"
  mount --bind "$root/kvm" /dev/kvm
fi
ip link set lo up
: >"$root/ready"
exec env --ignore-signal=CHLD sleep infinity # what ends has nobody else who would ask for its exit code
"""


def missing() -> str:
    """Return what this machine lacks for such hosts, "" where nothing."""
    if os.geteuid() != 0:
        return "needs root: hosts are namespaces"
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=PATH) is None]
    return f"no {', '.join(lacking)}" if lacking else ""


@dataclass(frozen=True)
class Host:
    """A host that runs; ``pid`` is its first process, ``root`` the folder with its files."""

    pid: int
    root: Path

    def command(self, *words: str, user: str = "", env: Mapping[str, str] | None = None) -> list[str]:
        """Return the command line that runs a command on this host, as root or as a user of it."""
        own = {"PATH": PATH, "LC_ALL": "C.UTF-8", "HOME": f"/home/{user}" if user else "/root", **(env or {})}
        settings = [f"{name}={value}" for name, value in own.items()]
        entered = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--pid", "--wd=/"]
        be = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"] if user else []
        return [*entered, *be, "env", "-i", *settings, *words]

    def run(
        self,
        *words: str,
        user: str = "",
        env: Mapping[str, str] | None = None,
        check: bool = True,
        given: str = "",
        timeout: float | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this host to its end."""
        done = subprocess.run(
            self.command(*words, user=user, env=env),
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def processes(self) -> list[str]:
        """Return the command lines of what runs on this host, beside its first process and this question."""
        shown = self.run("ps", "-eo", "pid=,args=").stdout.splitlines()
        lines = [line.strip() for line in shown]
        return [line for line in lines if not line.startswith("1 ") and " ps -eo " not in f" {line}"]

    def start_libvirtd(self) -> None:
        """Start the system's libvirtd, as a distribution would: QEMU runs as its own user, members of libvirt may."""
        self.run("libvirtd", "--daemon", env={"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent"})

        def answers() -> bool | NotYet:
            done = self.run("virsh", "-c", "qemu:///system", "version", user=STUDENT, check=False)
            return done.returncode == 0 or NotYet(done.stderr)

        until(answers, READY_S, poll_s=0.1)

    def start_sshd(self, authorized: str) -> str:
        """Start an SSH server that knows one key; return its host key."""
        folder = self.root / "ssh"
        folder.mkdir(mode=0o755)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host_key")], check=True)
        (folder / "authorized_keys").write_text(authorized)
        (folder / "authorized_keys").chmod(0o644)
        (folder / "sshd_config").write_text(SSHD_CONF.format(folder=folder))
        self.run("mkdir", "-p", "/run/sshd")
        self.run("/usr/sbin/sshd", "-f", str(folder / "sshd_config"), "-E", str(folder / "log"))
        return " ".join((folder / "host_key.pub").read_text().split()[:2])

    def key_of(self, user: str) -> str:
        """Make an SSH key for a user of this host; return its public part."""
        self.run("mkdir", "-p", "-m", "700", f"/home/{user}/.ssh", user=user)
        self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"/home/{user}/.ssh/id_ed25519", user=user)
        return self.run("cat", f"/home/{user}/.ssh/id_ed25519.pub", user=user).stdout

    def lend_project(self, user: str = STUDENT) -> Path:
        """Give a user a checkout of this project, its virtual environment and the cached node images; return its path.

        The environment and the images stay where they are: on this host they may be read by everybody.
        """
        home = self.root / "home" / user
        copy = home / "hoplab"
        listed = subprocess.run(
            ["git", "-C", str(PROJECT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True,
            capture_output=True,
        ).stdout
        for name in listed.decode().split("\0"):
            source = PROJECT / name
            if name and source.is_file() and not name.startswith("tests/recordings/"):
                target = copy / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        venv = (PROJECT / ".venv").resolve()
        (copy / ".venv").unlink(missing_ok=True)
        (copy / ".venv").symlink_to(venv)
        cache, layers = home / ".cache" / "hoplab" / "image", self.root / "cache"
        for folder in (cache, layers / "upper", layers / "work"):
            folder.mkdir(parents=True)
        for folder in (home, *home.rglob("*")):
            os.chown(folder, UID, UID, follow_symlinks=False)
        os.chown(layers / "upper", UID, UID)
        (layers / "upper").chmod(0o755)
        images = cache_dir() / "image"
        if images.is_dir():
            below = f"lowerdir={images},upperdir={layers}/upper,workdir={layers}/work"
            self.run("mount", "-t", "overlay", "overlay", "-o", below, f"/home/{user}/.cache/hoplab/image")
        self._lend(venv, Path(sys.base_prefix))  # after that, what else is in such a home can't be seen here
        return Path(f"/home/{user}/hoplab")

    def _lend(self, *folders: Path) -> None:
        """Let everybody of this host read folders below homes that are closed: there they are all that is seen."""
        closed = [folder for folder in folders if os.stat(Path("/", folder.parts[1])).st_mode & 0o005 != 0o005]
        for number, folder in enumerate(closed):
            self.run("mkdir", "-p", f"/run/lent/{number}")
            self.run("mount", "--bind", str(folder), f"/run/lent/{number}")
        for top in {Path("/", folder.parts[1]) for folder in closed}:
            self.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(top))
        for number, folder in enumerate(closed):
            self.run("mkdir", "-p", str(folder))
            self.run("mount", "--move", f"/run/lent/{number}", str(folder))


@contextmanager
def host(root: Path, *, libvirt: bool = False) -> Iterator[Host]:
    """Make a host whose files are in a new folder; all its processes end with the body."""
    _prepare(root)
    first = subprocess.Popen(
        [
            *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("--propagation", "private", "sh", "-c", SET_UP, "sh", str(root), OTHER_USR),
        ],
        stdin=subprocess.DEVNULL,
    )
    try:

        def made() -> int | NotYet:
            if first.poll() is not None:
                raise AssertionError("the namespaces of a host could not be made")
            return _child(first.pid) if (root / "ready").exists() else NotYet("its namespaces are not ready")

        found = Host(until(made, READY_S, poll_s=0.02), root)
        if libvirt:
            found.start_libvirtd()
        yield found
    finally:
        first.kill()  # --kill-child: the first process of the PID namespace goes too, and with it all others
        first.wait()


def link(near: Host, far: Host) -> None:
    """Connect two hosts by a pair of interfaces, NEAR and FAR."""
    for one, name, peer, other in ((near, "up0", "up0", far),):
        subprocess.run(
            [
                *("nsenter", "--target", str(one.pid), "--net", "ip", "link", "add", name, "type", "veth"),
                *("peer", "name", peer, "netns", str(other.pid)),
            ],
            check=True,
        )
    for one, address in ((near, NEAR), (far, FAR)):
        one.run("ip", "address", "add", f"{address}/24", "dev", "up0")
        one.run("ip", "link", "set", "up0", "up")


def _child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0])


def _prepare(root: Path) -> None:
    """Write the files that a host has of its own."""
    for place in ("etc/libvirt", "var/lib/libvirt", "var/log/libvirt", "var/cache/libvirt", "home", "root"):
        (root / place).mkdir(parents=True)
    for folder in (root, *root.rglob("*")):
        folder.chmod(0o755)
    for parent in root.parents:  # pytest makes its folders 0700; everybody of a host has to get to its files
        if parent.stat().st_uid == os.geteuid() and parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    (root / "etc/libvirt/libvirtd.conf").write_text(LIBVIRTD_CONF)
    (root / "etc/libvirt/qemu.conf").write_text(QEMU_CONF)
    users = {STUDENT: UID, STRANGER: STRANGER_UID}
    passwd = Path("/etc/passwd").read_text()
    passwd += "".join(f"{name}:x:{id}:{id}::/home/{name}:/bin/bash\n" for name, id in users.items())
    (root / "etc/passwd").write_text(passwd)
    (root / "etc/group").write_text(_groups(Path("/etc/group").read_text().splitlines(), users))
    for name, id in users.items():
        (root / "home" / name).mkdir()
        os.chown(root / "home" / name, id, id)
        (root / "home" / name).chmod(0o700)


def _groups(lines: Sequence[str], users: Mapping[str, int]) -> str:
    """Return the text of a host's /etc/group: the machine's, with the users' own groups and a member of libvirt."""
    found = [line for line in lines if not line.startswith("libvirt:")]
    gid = next((line.split(":")[2] for line in lines if line.startswith("libvirt:")), str(LIBVIRT_GID))
    own = [f"{name}:x:{id}:" for name, id in users.items()]
    return "\n".join([*found, f"libvirt:x:{gid}:{STUDENT}", *own]) + "\n"
