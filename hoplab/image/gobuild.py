"""Builds Go programs from their pinned modules, and copies files of these modules.

The user's own Go settings (GOPROXY, GOFLAGS, GOCACHE, ...) apply.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hoplab.core.errors import ImageError
from hoplab.core.progress import Progress
from hoplab.image.commands import run
from hoplab.image.store import Stage, Store, digest, file_digest, tree_digest
from hoplab.spec.catalog import GoComponent

SPACE_GIB = 1.0
SHARE = "share"  # folder of a stage with the files
MODULE = "go.mod"  # beside a stage in work, where its programs need more checksums than their module's go.sum has
# GOWORK: a go.work in a parent folder must not change the build.
ENVIRONMENT = {"GOOS": "linux", "GOARCH": "amd64", "GOWORK": "off"}
# With fewer garbage collections the compiler is a sixth faster and uses more memory. The programs are the same, so the
# key of the stage leaves it out.
GO_BUILD_ENV = {"GOGC": os.environ.get("GOGC", "400")}


def command(component: GoComponent, program: str, output: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command that builds one program, and its environment."""
    link = ["-s", "-w", *(f"-X {variable}" for variable in component.variables)]
    if component.cgo:
        link.append("-extldflags -static")  # they run in containers of any base, and on hosts with another libc
    verb = ("test", "-c", "-vet=off") if program in component.tests else ("build",)  # vet reads all that is imported
    argv = ["go", *verb, "-mod=readonly", "-trimpath"]
    argv += [f"-modfile={output.parent / MODULE}"] if component.more_sums else []
    argv += ["-tags", ",".join(component.tags)] if component.tags else []
    package = (component.programs | component.tests)[program]
    argv += ["-ldflags", " ".join(link), "-o", str(output / program), package]
    return argv, {**ENVIRONMENT, "CGO_ENABLED": "1" if component.cgo else "0"}


def key(component: GoComponent) -> str:
    """Return the digest of everything that determines the programs: commands, environment and the locked sources."""
    commands = [command(component, program, Path("out")) for program in (*component.programs, *component.tests)]
    files: list[object] = [component.files] if component.files else []
    files += [file_digest(component.more_sums)] if component.more_sums else []
    return digest(commands, tree_digest([component.folder], component.folder), *files)


def build(component: GoComponent, store: Store, progress: Progress) -> Stage:
    """Return the stage with the component's programs and files, built or cached."""

    def compile_all(output: Path) -> dict[str, Any]:
        log = store.log(f"go-{component.name}")
        log.unlink(missing_ok=True)
        if component.more_sums:
            _copy_module(component.folder, component.more_sums, output.parent)
        for program in (*component.programs, *component.tests):
            progress.task(f"building {program} {component.version}")
            argv, environment = command(component, program, output)
            run(
                argv,
                f"building {program} {component.version}",
                log,
                cwd=component.folder,
                env=GO_BUILD_ENV | environment,
            )
        if component.files:
            _take_files(component, output / SHARE, log)
        return {"version": component.version, "source": component.source}

    return store.make(f"go-{component.name}", key(component), compile_all, space_gib=SPACE_GIB)


def _copy_module(folder: Path, more_sums: Path, target: Path) -> None:
    """Copy go.mod as it is, and go.sum with more lines: what a program imports beside is of the versions locked there.

    Lines more in the module's own go.sum would build all programs of the node image anew.
    """
    (target / MODULE).write_text((folder / "go.mod").read_text())
    sums = (target / MODULE).with_suffix(".sum")
    sums.write_text((folder / "go.sum").read_text() + more_sums.read_text())


def _take_files(component: GoComponent, target: Path, log: Path) -> None:
    """Copy files of the module: go.sum locks them like the sources."""
    printed: list[str] = []
    run(["go", "mod", "download", component.source], f"getting {component.source}", log, cwd=component.folder)
    argv = ["go", "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", component.source]
    run(argv, f"finding {component.source}", log, cwd=component.folder, env=ENVIRONMENT, on_line=printed.append)
    module = Path(printed[-1])
    target.mkdir()
    for name, pattern in component.files.items():
        found = sorted(file for file in module.glob(pattern) if file.is_file())
        if not found:
            raise ImageError(
                f"components.toml: {component.source} {component.version} has no {pattern}",
                remedy=f"look in {module} for where it is now",
            )
        if name.endswith("/"):
            _copy_below(module / pattern.partition("*")[0].rpartition("/")[0], found, target / name)
        else:
            (target / name).write_text("".join(file.read_text() for file in found))


def _copy_below(source: Path, files: list[Path], target: Path) -> None:
    """Copy files of a folder to the same places of another one, not as in Go's cache, where nobody may write."""
    for file in files:
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
