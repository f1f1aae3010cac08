"""Runs the programs of a build: with a log, an error with their last output, and an end with this process."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from hoplab.core import host_network
from hoplab.core.errors import HostError, ImageError
from hoplab.core.packages import install_remedy

MOST_SOCKET_BYTES = 107  # sun_path of unix(7), less the byte that ends it
SOCKET = "image/work/4194303-node/containerd/containerd.sock.ttrpc"  # of the containerd that imports images
SHORTER = "choose a cache folder with a shorter name: export XDG_CACHE_HOME=/var/cache"
TAIL = 15  # lines of output in an error; the log has all lines


def require(programs: Iterable[str]) -> None:
    """Raise HostError unless this process is root and has every program; the error names all missing programs."""
    if os.geteuid() != 0:
        raise HostError(
            "the node image is built by root, or in namespaces of your own, which ./lab enters",
            remedy="./lab image build",
        )
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise HostError(f"building the node image needs {', '.join(missing)}", remedy=install_remedy(missing))


def longest_socket(cache: Path) -> int:
    """Return the bytes in the path of the longest socket that a build makes below a cache folder."""
    return len(os.fsencode(cache / SOCKET))


def require_short(cache: Path) -> None:
    """Raise HostError where the name of the cache folder is too long for the sockets below it."""
    longest = longest_socket(cache)
    if longest > MOST_SOCKET_BYTES:
        raise HostError(
            f"{cache} is too long a name: sockets below it have {longest} bytes, and {MOST_SOCKET_BYTES} are possible",
            remedy=SHORTER,
        )


def isolated(argv: Sequence[str], proc: Path | None = None) -> list[str]:
    """Return the command in its own mount and PID namespaces, which end with it or with this process."""
    mount_proc = ["--mount-proc" if proc is None else f"--mount-proc={proc}"]
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *mount_proc, "--"]
    return ["setpriv", "--pdeathsig", "KILL", "--", *unshare, *argv]


def run(
    argv: Sequence[str],
    what: str,
    log: Path,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] = lambda line: None,
) -> None:
    """Run a command, its output appended to ``log``; ``on_line`` sees each line of it, for the progress display."""
    last: list[str] = []
    # Only the command itself dies with this process; a command with children needs isolated().
    bound = list(argv) if argv[0] == "setpriv" else ["setpriv", "--pdeathsig", "KILL", "--", *argv]
    start = partial(
        subprocess.Popen,
        bound,
        cwd=cwd,
        env={**os.environ, **env} if env else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with log.open("a") as file, host_network.run(start) as process:  # programs, packages and images are downloaded
        print("$", *argv, file=file, flush=True)
        assert process.stdout is not None  # PIPE above
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                last = [*last[-TAIL + 1 :], line.rstrip()]
                on_line(line.rstrip())
            status = process.wait()
        except BaseException:
            process.kill()
            raise
    if status == 0:
        return
    output = "\n".join(last)
    if "No space left on device" in output or "Disk quota exceeded" in output:
        raise OSError(errno.ENOSPC, f"{what}: {output}")
    message = f"{what} failed (exit status {status}):\n{output}"
    raise ImageError(message, remedy=f"the whole output is in {log}", log=str(log))
