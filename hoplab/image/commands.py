"""Running the programs that do the work: logged, explained when they fail, and gone when we are."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from hoplab.core.errors import HostError, ImageError
from hoplab.core.packages import install_remedy

TAIL = 15  # lines of output shown with an error; the log has the rest


def require(programs: Iterable[str]) -> None:
    """Raise HostError unless we are root and every program is there; the error names all that are missing."""
    if os.geteuid() != 0:
        raise HostError("building the node image needs root (it makes a Debian root file system)", remedy="use sudo")
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise HostError(f"building the node image needs {', '.join(missing)}", remedy=install_remedy(missing))


def isolated(argv: Sequence[str], proc: Path | None = None) -> list[str]:
    """The command in mount and PID namespaces of its own: when it ends, or we are killed, no mount or child stays."""
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
    # Only the one command dies with us; what has children goes through isolated().
    bound = list(argv) if argv[0] == "setpriv" else ["setpriv", "--pdeathsig", "KILL", "--", *argv]
    with (
        log.open("a") as file,
        subprocess.Popen(
            bound,
            cwd=cwd,
            env={**os.environ, **env} if env else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
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
