"""Fuzzes the parsers of facts for longer than the tests do, guided by coverage: by hand, with atheris.

    .venv/bin/python -m pip install atheris==3.0.0
    .venv/bin/python -m tests.fuzz [--seconds 30] [FACT ...]

Each parser has a process of its own, which begins with what real tools print. It has to return records or raise a
FactError. What makes it do anything else is written to the folder of --found, and the exit code is 1.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from hoplab.core.errors import FactError, LabError
from hoplab.core.paths import PROJECT

MOST = 64 * 1024  # bytes of an input


def fuzz(name: str, seconds: int, corpus: Path, found: Path) -> None:
    """Fuzz one parser in this process, which ends with it."""
    import atheris  # noqa: PLC0415 -- a tool that only this program needs

    with atheris.instrument_imports(include=["hoplab"]):
        from hoplab.observe.facts import discover  # noqa: PLC0415

        fact = next(fact for where in ("node", "pod", "api") for fact in discover(where) if fact.name == name)

    def one(data: bytes) -> None:
        with contextlib.suppress(FactError):
            fact.parse(data.decode(errors="replace"))

    options = [f"-max_total_time={seconds}", f"-max_len={MOST}", "-timeout=20", f"-artifact_prefix={found}/{name}-"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def seeds(texts: Sequence[str], folder: Path) -> None:
    """Write what real tools print as the first inputs."""
    for text in texts:
        data = text.encode()[:MOST]
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


@click.command(help=__doc__)
@click.argument("facts", metavar="[FACT]...", nargs=-1)
@click.option("--seconds", type=click.IntRange(1), default=30, show_default=True, help="For each parser.")
@click.option("--found", type=click.Path(path_type=Path), default=PROJECT / ".lab" / "fuzz", show_default=True)
@click.option("--alone", type=click.Path(path_type=Path), hidden=True, help="Fuzz one parser, with this corpus.")
def main(facts: tuple[str, ...], seconds: int, found: Path, alone: Path | None) -> None:
    if alone:
        fuzz(facts[0], seconds, alone, found)
    if not importlib.util.find_spec("atheris"):
        raise LabError("atheris is not installed", remedy=f"{sys.executable} -m pip install atheris==3.0.0")
    from tests.support.real_outputs import EVERY, real_outputs  # noqa: PLC0415 -- takes seconds

    if unknown := set(facts) - set(EVERY):
        raise LabError(f"there is no fact {', '.join(sorted(unknown))}", remedy=f"facts: {', '.join(sorted(EVERY))}")
    found.mkdir(parents=True, exist_ok=True)
    broken = []
    for name in facts or sorted(EVERY):
        with TemporaryDirectory() as corpus:
            seeds(real_outputs().get(name, ()), Path(corpus))
            command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(seconds), "--found", str(found)]
            ran = subprocess.run(
                [*command, "--alone", corpus], capture_output=True, text=True, errors="replace", check=False
            )
        lines = ran.stderr.splitlines()
        last = next((line for line in reversed(lines) if line.startswith("Done ")), "")
        click.echo(f"{name:<24} {last or 'failed: ' + _why(lines)}")
        broken += [] if ran.returncode == 0 else [name]
    if broken:
        raise LabError(f"parsers that fail: {', '.join(broken)}", remedy=f"the inputs are in {found}")


def _why(lines: Sequence[str]) -> str:
    """Return the line of a traceback that says what was raised."""
    return next((line for line in lines if "Error" in line or "Exception" in line), (lines or ["?"])[-1])


if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except LabError as error:
        sys.exit(f"error: {error.message}\n  -> {error.remedy}")
