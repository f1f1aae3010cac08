"""Go programs from their pinned modules, and files that come with them.

The user's own Go settings (GOPROXY, GOFLAGS, GOCACHE, ...) are respected.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hoplab.core.errors import ImageError
from hoplab.core.progress import Progress
from hoplab.image.commands import run
from hoplab.image.store import Stage, Store, digest, tree_digest
from hoplab.spec.catalog import GoComponent

SPACE_GIB = 1.0
SHARE = "share"  # folder of a stage with the files
# GOWORK: a go.work somewhere above must not change what is built.
ENVIRONMENT = {"GOOS": "linux", "GOARCH": "amd64", "GOWORK": "off"}
# The compiler collects garbage less often and is a sixth faster, for more memory. The programs are the same, so it is
# no part of what they are known by.
HURRY = {"GOGC": os.environ.get("GOGC", "400")}


def command(component: GoComponent, program: str, output: Path) -> tuple[list[str], dict[str, str]]:
    """The command that builds one program, and the environment it needs."""
    link = ["-s", "-w", *(f"-X {variable}" for variable in component.variables)]
    if component.cgo:
        link.append("-extldflags -static")  # it runs in containers of any base, and on hosts with another libc
    argv = ["go", "build", "-mod=readonly", "-trimpath"]
    argv += ["-tags", ",".join(component.tags)] if component.tags else []
    argv += ["-ldflags", " ".join(link), "-o", str(output / program), component.programs[program]]
    return argv, {**ENVIRONMENT, "CGO_ENABLED": "1" if component.cgo else "0"}


def key(component: GoComponent) -> str:
    """Digest of all that decides what the programs are: commands, environment and the locked sources."""
    commands = [command(component, program, Path("out")) for program in component.programs]
    files = [component.files] if component.files else []
    return digest(commands, tree_digest([component.folder], component.folder), *files)


def build(component: GoComponent, store: Store, progress: Progress) -> Stage:
    """The component's programs and files, built now or earlier."""

    def compile_all(output: Path) -> dict[str, Any]:
        log = store.log(f"go-{component.name}")
        log.unlink(missing_ok=True)
        for program in component.programs:
            progress.task(f"building {program} {component.version}")
            argv, environment = command(component, program, output)
            run(argv, f"building {program} {component.version}", log, cwd=component.folder, env=HURRY | environment)
        if component.files:
            _take_files(component, output / SHARE, log)
        return {"version": component.version, "source": component.source}

    return store.make(f"go-{component.name}", key(component), compile_all, space_gib=SPACE_GIB)


def _take_files(component: GoComponent, target: Path, log: Path) -> None:
    """Files out of the module that the programs were just built from: its go.sum locks them as it locks the sources."""
    printed: list[str] = []
    argv = ["go", "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", component.source]
    run(argv, f"finding {component.source}", log, cwd=component.folder, env=ENVIRONMENT, on_line=printed.append)
    module = Path(printed[-1])
    target.mkdir()
    for name, pattern in component.files.items():
        found = sorted(module.glob(pattern))
        if not found:
            raise ImageError(
                f"components.toml: {component.source} {component.version} has no {pattern}",
                remedy=f"look in {module} for where it is now",
            )
        (target / name).write_text("".join(file.read_text() for file in found))
