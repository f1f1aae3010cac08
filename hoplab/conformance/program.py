"""e2e.test as a process: what it can list, and a run of some specs, which ends with this process."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hoplab.core.errors import ImageError, LabError
from hoplab.core.pipe_lines import PipeLines
from hoplab.host import netns as namespaces
from hoplab.image.conformance import BuiltSuite

SEED = 1  # e2e.test shuffles the specs; one seed is one order
LIST_S = 120.0  # e2e.test reads all of its three thousand specs before it lists them


def listed(suite: BuiltSuite, what: str, folder: Path) -> str:
    """Return the output of `e2e.test --list-<what>`; raise LabError where it fails."""
    argv = [str(suite.program), f"--list-{what}"]
    try:
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, timeout=LIST_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"e2e.test does not run: {error}", remedy=_AGAIN.format(suite.program.parent)) from None
    if done.returncode:
        raise LabError(
            f"e2e.test --list-{what} failed: {done.stderr.strip()[-300:]}", remedy=_AGAIN.format(suite.program.parent)
        )
    return done.stdout


_AGAIN = "remove {} and run the same command again: it is built anew"


def require_images(suite: BuiltSuite, printed: str) -> None:
    """Raise ImageError where the component table has an image that the tests do not ask for, by `--list-images`."""
    asked = set(printed.split())
    for name in suite.images:
        if name not in asked:
            repository = name.rpartition(":")[0]
            now = sorted(one for one in asked if one.startswith(f"{repository}:"))
            raise ImageError(
                f"components.toml: e2e.test {suite.version} asks for no image {name}",
                remedy=f"name the one it asks for: {', '.join(now) or 'see e2e.test --list-images'}",
            )


def command(suite: BuiltSuite, *, focus: str, kubeconfig: Path, kubectl: Path, report: Path, output: Path) -> list[str]:
    """Return the command line of a run. It writes ``report`` at its end, and files of some specs to ``output``."""
    return [
        *("setpriv", "--pdeathsig", "TERM", "--", str(suite.program)),
        f"--kubeconfig={kubeconfig}",
        f"--kubectl-path={kubectl}",
        "--provider=skeleton",
        "--repo-root=",
        f"--e2e-output-dir={output}",
        "--disable-log-dump",
        f"--ginkgo.focus={focus}",
        f"--ginkgo.seed={SEED}",
        "--ginkgo.timeout=24h",
        "--ginkgo.v",
        "--ginkgo.no-color",
        f"--ginkgo.json-report={report}",
    ]


def run(
    argv: Sequence[str],
    *,
    netns: str,
    environment: Mapping[str, str],
    folder: Path,
    log: Path,
    on_line: Callable[[str], None],
    on_interrupt: Callable[[], None],
) -> bool:
    """Run the tests in the lab's network; return whether Ctrl-C ended them.

    After the first Ctrl-C e2e.test ends the running spec and deletes its namespace; a second one kills it.
    """
    interrupted = False
    with log.open("w") as file, namespaces.entered(netns):
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,  # the terminal's Ctrl-C is for this process, which passes it on
        )
        assert process.stdout  # PIPE above
        output = PipeLines(process.stdout)  # a Ctrl-C of any moment is seen
        try:
            while True:
                try:
                    for line in output:
                        text = line.decode(errors="replace").rstrip("\n")
                        file.write(f"{text}\n")
                        file.flush()
                        on_line(text)
                    process.wait()
                    return interrupted
                except KeyboardInterrupt:
                    if interrupted:
                        raise
                    interrupted = True
                    on_interrupt()
                    process.send_signal(signal.SIGINT)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
