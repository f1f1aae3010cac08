"""Labs of a user who is not root: in namespaces of their own, in which they are root. As root nothing of this is used.

A user has one set of user, mount and network namespaces on a host, which a small process holds while there are labs
(``own_namespaces``). A command moves into it before it does anything else; then all of a lab is made as root makes it,
with a named network namespace below the user's own /run/netns. Other users do not see it, and nothing outside changes.

    ~/.cache/hoplab/run/holder   which process holds them
    ~/.cache/hoplab/run/lock     shared by every command in them; the last one ends a holder without a lab
    ~/.cache/hoplab/run/<lab id> sockets of the lab, for virsh too

docs/rootless.md and docs/adr have the whole.
"""

from __future__ import annotations

import atexit
import fcntl
import getpass
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hoplab.core import host_network, paths
from hoplab.core.errors import HostError
from hoplab.core.packages import install_remedy
from hoplab.core.wait import Expired, NotYet, until
from hoplab.host import own_namespaces, processes

SUBORDINATE = 65_536  # ids: those of a Debian system are below
FIRST_ID = 100_000  # of the subordinate ids, where a system has none yet
START_S = 20.0  # measured: 0.1 s
TUN, KVM = Path("/dev/net/tun"), Path("/dev/kvm")
ID_FILES = (Path("/etc/subuid"), Path("/etc/subgid"))
SETTINGS = Path("/proc/sys")
DROP_IN = "/etc/sysctl.d/60-hoplab.conf"
NEW = ("unshare", "--user", "--map-root-user", "--map-auto", "--net", "--mount", "--propagation", "slave")

_locks: list[int] = []  # the descriptor of the lock that this process has, once it is inside


@dataclass(frozen=True)
class Need:
    """Something that labs of a user who is not root need once from an administrator."""

    name: str
    ok: bool
    found: str
    remedy: str = ""  # the line that an administrator types; "" where it is there


def wanted() -> bool:
    """Return whether this process has labs in namespaces of the user's own: not root, or there already."""
    return paths.rootless()


def record() -> Path:
    """Return the file that names the holder."""
    return paths.user_run() / "holder"


def enter() -> None:
    """Move this process to the user's namespaces, made when there are none; as root, or there already, do nothing.

    It has to be the only thread. Raise HostError with the line that an administrator types, where one is needed.
    """
    if os.geteuid() == 0 and paths.INSIDE not in os.environ:
        return
    if not _locks:
        _locks.append(_take(record().with_name("lock")))
        atexit.register(leave)
    if os.geteuid() != 0:
        _enter_user()
    enter_network()


def enter_network() -> None:
    """Move this thread from the host's network to the user's own, from which it gets to those of labs and back.

    Where the process is not root of the user's namespaces, do nothing. A process that was started in the host's
    network (by Pulumi) calls this in each thread that works on a lab.
    """
    if paths.INSIDE not in os.environ or not host_network.is_here():
        return
    try:
        (network,) = own_namespaces.opened(record(), "net")
    except OSError as error:
        raise _cannot_enter(error) from error
    try:
        if not os.path.samestat(os.fstat(network), os.stat(host_network.THREAD)):
            if not host_network.left():
                host_network.stay()
            own_namespaces.setns(network, own_namespaces.NEW_NET)
    finally:
        os.close(network)


def _enter_user() -> None:
    with _alone(record().parent):
        if not own_namespaces.holder(record()):
            start_holder()
    try:
        own_namespaces.enter(record())
    except OSError as error:
        raise _cannot_enter(error) from error
    os.environ[paths.INSIDE] = "1"


def _cannot_enter(error: OSError) -> HostError:
    return HostError(f"cannot enter the namespaces of your labs: {error.strerror or error}", remedy="see ./lab doctor")


def in_network(netns: str) -> str:
    """Return the beginning of a line of ssh_config that runs a command in a lab's network namespace.

    A user who is not root types ssh outside of their namespaces, too.
    """
    if not wanted():
        return f"nsenter --net={own_namespaces.NETWORKS}/{netns}"
    words = [sys.executable, "-I", own_namespaces.__file__, "exec", str(record()), netns]
    return shlex.join(words).replace("%", "%%")


def leave() -> None:
    """End the holder unless there is a lab or another command in its namespaces."""
    lock = _locks.pop()
    with suppress(BlockingIOError, OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        networks = own_namespaces.NETWORKS
        pid = own_namespaces.holder(record())
        if pid and paths.INSIDE in os.environ and not (networks.is_dir() and os.listdir(networks)):
            processes.end([pid])
        if not own_namespaces.holder(record()):
            record().unlink(missing_ok=True)
            record().with_name("lock").unlink(missing_ok=True)
            record().parent.rmdir()  # unless a lab has something in it
    os.close(lock)


def needs() -> list[Need]:
    """Return what labs without root need from an administrator, the first to mend first."""
    user = getpass.getuser()
    return [
        subordinate_ids(user, [_text(file) for file in ID_FILES]),
        user_namespaces(SETTINGS),
        tun(TUN, user),
    ]


def subordinate_ids(user: str, files: Iterable[str]) -> Need:
    """Check newuidmap and the user's lines in the texts of /etc/subuid and /etc/subgid."""
    name, texts = "subordinate ids", list(files)
    if shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        remedy = f"sudo {install_remedy(['newuidmap'])}"
        return Need(name, False, "no newuidmap, which gives a user more ids than one", remedy)
    own = {"subuids": _ranges(texts[0], user)[:1], "subgids": _ranges(texts[1], user)[:1]}  # `unshare` takes the first
    few = {kind: ranges for kind, ranges in own.items() if not ranges or ranges[0][1] < SUBORDINATE}
    if not few:
        return Need(name, True, f"{SUBORDINATE} and more for {user} in /etc/subuid and /etc/subgid")
    first = max([FIRST_ID, *(begin + count for text in texts for begin, count in _ranges(text))])
    words = ["sudo usermod"]
    for kind, ranges in few.items():
        words += [f"--del-{kind} {begin}-{begin + count - 1}" for begin, count in ranges]
        words.append(f"--add-{kind} {first}-{first + SUBORDINATE - 1}")
    files = " and ".join(f"/etc/{kind[:-1]}" for kind in few)
    return Need(name, False, f"{user} has fewer than {SUBORDINATE} in {files}", " ".join([*words, user]))


def user_namespaces(settings: Path) -> Need:
    """Make user namespaces; where that fails, name the setting of the kernel or its security module that refuses."""
    name = "user namespaces"
    done = subprocess.run([*NEW, "mount", "-t", "tmpfs", "tmpfs", "/run"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Need(name, True, "can be made")
    for setting, refusing, right, why in (
        ("kernel/unprivileged_userns_clone", "0", "1", "this kernel makes them for root alone"),
        ("user/max_user_namespaces", "0", "15000", "this kernel makes none"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0", "AppArmor takes their capabilities away"),
    ):
        if _text(settings / setting).strip() == refusing:
            dotted = setting.replace("/", ".")
            remedy = f"echo '{dotted} = {right}' | sudo tee -a {DROP_IN} && sudo sysctl --system"
            return Need(name, False, f"{why} ({dotted} is {refusing})", remedy)
    said = done.stderr.strip().splitlines()
    found = f"cannot be made: {said[-1] if said else f'exit code {done.returncode}'}"
    if "/etc/sub" in found:
        return Need(name, False, found, "first mend the subordinate ids")
    return Need(name, False, found, "in a container, start it with --privileged; else see docs/rootless.md")


def tun(device: Path, user: str) -> Need:
    """Check the device of the machines' network cards."""
    if not device.exists():
        return Need("network cards", False, f"no {device}", "sudo modprobe tun")
    if not may_use(device):
        return Need("network cards", False, f"{device} may not be used by {user}", f"sudo chmod 0666 {device}")
    return Need("network cards", True, f"{device} may be used")


def kvm_remedy(device: Path) -> str:
    """Return the line that lets the user use KVM: in their namespaces a group is no help."""
    return f"sudo setfacl -m u:{getpass.getuser()}:rw {device}"


def may_use(device: Path) -> bool:
    """Return whether the user may use the device other than by a supplementary group, which QEMU does not have."""
    if not os.access(device, os.R_OK | os.W_OK):
        return False
    there = device.stat()
    by_group = there.st_gid in set(os.getgroups()) - {os.getegid()} and there.st_mode & 0o006 != 0o006
    return not by_group or there.st_uid == os.geteuid() or _named_in_acl(device)


def _named_in_acl(device: Path) -> bool:
    """Return whether the device's access list names the user (systemd's does for who sits at the machine)."""
    with suppress(OSError):
        listed = os.getxattr(device, "system.posix_acl_access")[4:]
        entries = [listed[at : at + 8] for at in range(0, len(listed), 8)]
        named = {int.from_bytes(entry[4:], "little") for entry in entries if entry[:1] == b"\x02"}
        return os.geteuid() in named
    return False


def orphans() -> list[int]:
    """Return the processes in the user's namespaces that a holder left; there has to be none now."""
    here, found = os.stat("/proc/self/ns/user"), []
    if os.geteuid() == 0:  # who sees those of all users, and has none
        return []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it is another user's, or has ended
            if not os.path.samestat((folder / "ns/user").stat(), here):
                held_for = (folder / "root/run" / own_namespaces.HELD_FOR).read_text()
                found += [int(folder.name)] if held_for == str(record()) else []  # the user may have two homes
    return found


def start_holder() -> None:
    """Make the namespaces; raise HostError with the first need that is not met.

    What an earlier holder left when it was killed ends first: its machines would have their disks, unseen from the new.
    """
    processes.end(orphans())
    program = [sys.executable, "-I", own_namespaces.__file__, "hold", str(record())]
    log = record().with_name("holder.log")
    with log.open("w") as said:
        holder = subprocess.Popen(
            [*NEW, *program],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath)},
            start_new_session=True,  # it outlives this command
        )

    def ready() -> bool | NotYet:
        if own_namespaces.holder(record()) == holder.pid:
            return True
        return NotYet("it is being made") if holder.poll() is None else False

    try:
        if until(ready, START_S, poll_s=0.01):
            log.unlink()
            return
        why = log.read_text().strip() or f"exit code {holder.returncode}"
    except Expired as expired:
        holder.kill()
        why = f"not within {expired.seconds:.0f} s"
    for need in needs():
        if not need.ok:
            log.unlink()
            raise HostError(f"{need.name}: {need.found}", remedy=need.remedy)
    raise HostError(f"no namespaces for labs without root: {why}", remedy="see ./lab doctor", log=str(log))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one command at a time run the body."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _take(file: Path) -> int:
    """Return a descriptor of the lock file that is there now, with the lock shared."""
    while True:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(FileNotFoundError):  # the last command removes the file and the folder
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if file.exists() and os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
            os.close(descriptor)


def _ranges(text: str, user: str = "") -> list[tuple[int, int]]:
    """Return first id and length of each range in /etc/subuid, of one user (by name or number) or of all."""
    owner = rf"(?:{re.escape(user)}|{os.getuid()})" if user else r"[^:\n]+"
    found = re.findall(rf"^{owner}:(\d+):(\d+)$", text, re.MULTILINE)
    return [(int(first), int(count)) for first, count in found]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
