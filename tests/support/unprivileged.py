"""A user without root, sudo and other groups, who exists for a test only: no file of this host knows them.

In a mount namespace /etc/passwd, /etc/subuid and their like have a line more, the user's home is a folder of the test,
and /dev/net/tun may be used by everybody, as udev's rules let it. Processes of the user are in that namespace.
Each worker of pytest-xdist has another user: a user's holder ends what an earlier one of that user left.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hoplab.core.paths import PROJECT

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
NAME, ID = "hoplab-unit", 59_876 + WORKER  # above the users of a host, below systemd's
COUNT = 65_536
FIRST = 1_900_000_000 + WORKER * COUNT  # of the subordinate ids: far above those of users
TOP = Path("/mnt")  # where the user finds things; what the host has there is not seen
HOME, CHECKOUT = TOP / "home", TOP / "checkout"
NEEDED = ("unshare", "nsenter", "setpriv", "mount", "newuidmap", "ip")
PYTHON = (TOP / "python", TOP / "venv")
FILES = {  # below /etc: a line of the user
    "passwd": f"{NAME}:x:{ID}:{ID}::{HOME}:/bin/bash",
    "group": f"{NAME}:x:{ID}:",
    "subuid": f"{NAME}:{FIRST}:{COUNT}",
    "subgid": f"{NAME}:{FIRST}:{COUNT}",
}


def lacking() -> str:
    """Return what this host lacks for such a user; "" where it can be made."""
    missing = [] if os.geteuid() == 0 else ["root"]
    missing += [tool for tool in NEEDED if not shutil.which(tool, path=f"{os.defpath}:/usr/sbin:/sbin")]
    return ", ".join(missing)


@dataclass(frozen=True)
class Unprivileged:
    """The user, for as long as the test runs."""

    keeper: int  # a process in the mount namespace
    home: Path  # as root finds it
    environment: Mapping[str, str]

    def run(self, *command: str, cwd: Path = HOME, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a command as the user, with the user's own environment; standard error is with the output."""
        return subprocess.run(
            [*self.entry(cwd), *command], capture_output=True, text=True, check=False, timeout=timeout
        )

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run Python code that may import hoplab."""
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        path = f"PYTHONPATH={CHECKOUT}:{PYTHON[1]}/lib/{version}/site-packages"
        return self.run("env", path, str(_python()), "-P", "-c", code)

    def python_words(self) -> str:
        """Return the command of the program that SSH uses as its ProxyCommand."""
        return f"{_python()} -I {CHECKOUT}/hoplab/host/own_namespaces.py"

    def entry(self, cwd: Path = HOME) -> list[str]:
        """Return the beginning of a command line that makes the rest run as the user."""
        identity = ["--reuid", str(ID), "--regid", str(ID), "--clear-groups"]
        values = [f"{name}={value}" for name, value in self.environment.items()]
        return [
            *("nsenter", f"--mount=/proc/{self.keeper}/ns/mnt", f"--wdns={cwd}", "--"),
            *("setpriv", *identity, "--", "env", "-i", *values),
        ]


@contextmanager
def unprivileged(
    folder: Path, environment: Mapping[str, str] | None = None, mounts: Mapping[Path, Path] | None = None
) -> Iterator[Unprivileged]:
    """Make the user, with a home below ``folder``, and further variables in the environment of their processes.

    ``mounts`` are folders of the host, each with the folder at which the user sees it.
    """
    home = folder / "home"
    home.mkdir(exist_ok=True)
    os.chown(home, ID, ID)
    lines = ["set -e"]
    for name, line in FILES.items():
        here = Path("/etc", name)
        copy = folder / name
        copy.write_text((here.read_text() if here.exists() else "") + f"{line}\n")
        copy.chmod(0o644)
        lines.append(f"touch /etc/{name}; mount --bind {shlex.quote(str(copy))} /etc/{name}")
    binds = [(home, HOME), (PROJECT, CHECKOUT), *zip((Path(sys.base_prefix), Path(sys.prefix)), PYTHON, strict=True)]
    binds += (mounts or {}).items()
    # by descriptors, as they may be below what is mounted over
    lines += [f"exec {number}<{shlex.quote(str(source.resolve()))}" for number, (source, _) in enumerate(binds, 3)]
    lines.append(f"mount -t tmpfs -o mode=755 tmpfs {TOP}")
    for number, (_, target) in enumerate(binds, 3):
        lines.append(f"mkdir -p {target}; mount --rbind /proc/self/fd/{number} {target}")
    lines += [
        f"mknod -m 666 {TOP}/tun c 10 200; mkdir -p /dev/net; touch /dev/net/tun; mount --bind {TOP}/tun /dev/net/tun",
        "echo ready; exec cat",
    ]
    with subprocess.Popen(
        ["unshare", "--mount", "--propagation", "slave", "bash", "-c", "\n".join(lines)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as keeper:
        assert keeper.stdin and keeper.stdout
        said = keeper.stdout.readline()
        assert said == "ready\n", said + keeper.stdout.read()
        path = f"/usr/local/bin:{os.defpath}:/usr/sbin:/sbin"
        given = {"HOME": str(HOME), "USER": NAME, "LOGNAME": NAME, "PATH": path}
        given |= {"PYTHONDONTWRITEBYTECODE": "1"}
        try:
            yield Unprivileged(keeper.pid, home, {**given, **(environment or {})})
        finally:
            keeper.stdin.close()


def processes() -> list[str]:
    """Return the command lines of the user's processes, and of those of their subordinate ids."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            owner = int((folder / "status").read_text().partition("\nUid:")[2].split()[0])
            words = (folder / "cmdline").read_text().replace("\0", " ").strip()  # none once it has ended
            if words and (owner == ID or FIRST <= owner < FIRST + COUNT):
                found.append(words)
        except (OSError, IndexError):
            pass
    return found


def _python() -> Path:
    return PYTHON[0] / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
