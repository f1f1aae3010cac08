"""Completion for bash, zsh and fish: the candidates, and the text that a shell evaluates.

Candidates come from names of files and from JSON: no libvirt, no API, nothing heavy is imported between two keystrokes.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from hoplab.core import paths as places
from hoplab.core.paths import LabPaths

VARIABLE = "_LAB_COMPLETE"  # `lab` starts no set-up while it is set

# click's scripts run the program by the name that they were made for; a checkout's `lab` is on no PATH, so these run
# what was typed: ./lab, ../lab, /path/to/lab.
BASH: str = BashComplete.source_template
ZSH: str = ZshComplete.source_template.replace("    (( ! $+commands[%(prog_name)s] )) && return 1\n", "").replace(
    "zsh_complete %(prog_name)s)", "zsh_complete ${(Q)words[1]})"
)
FISH: str = FishComplete.source_template.replace(
    "(commandline -t) %(prog_name)s)", "(commandline -t) (commandline -opc)[1])"
)
TEMPLATES = {"bash": BASH, "zsh": ZSH, "fish": FISH}


@click.command()
@click.argument("shell", type=click.Choice(list(TEMPLATES)))
def completion(shell: str) -> None:
    """Print what completes `lab` commands in SHELL.

    \b
    bash   eval "$(./lab completion bash)"                       in ~/.bashrc
    zsh    eval "$(./lab completion zsh)"                        in ~/.zshrc, after compinit
    fish   ./lab completion fish >~/.config/fish/completions/lab.fish
    """
    from hoplab.cli import cli

    program = Path(sys.argv[0]).name
    shown = ShellComplete(cli, {}, "hoplab" if program == "hoplab" else "lab", VARIABLE)
    click.echo(TEMPLATES[shell] % shown.source_vars())


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})


def labs(_context: click.Context, _option: click.Parameter, incomplete: str) -> list[str]:
    """Return the labs of this project: those with a spec, and those that were made."""
    specs = [file.name.split(".")[1] for file in places.PROJECT.glob("Pulumi.*.yaml")]
    made = [file.parent.name for file in (places.PROJECT / ".lab").glob("*/state.json")]
    return _starting([*specs, *made], incomplete)


def _lab(context: click.Context) -> LabPaths:
    """Return the lab of the command line so far."""
    found = context.params.get("paths")
    return found if isinstance(found, LabPaths) else LabPaths(os.environ.get("HOPLAB_LAB") or "dev", places.PROJECT)


def nodes(context: click.Context, _argument: click.Parameter, incomplete: str) -> list[str]:
    """Return the lab's machines, as its state names them."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        return _starting([node["name"] for node in json.loads(_lab(context).state.read_text())["nodes"]], incomplete)
    return []


def lessons(_context: click.Context, _option: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the lessons, as `verify -k` takes them."""
    texts = [file.read_text(encoding="utf-8") for file in places.LESSONS.glob("test_*.py")]
    return _starting((name for text in texts for name in re.findall(r"^def test_(\w+)", text, re.M)), incomplete)


def exercises(_context: click.Context, _argument: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the exercises, which are those of their modules."""
    folder = Path(__file__).parents[1] / "practice" / "exercises"
    return _starting((file.stem for file in folder.glob("[a-z]*.py")), incomplete)


def checkpoints(context: click.Context, _argument: click.Parameter, incomplete: str) -> list[str]:
    """Return the lab's checkpoints."""
    kept = places.cache_dir() / "checkpoints" / _lab(context).id
    return _starting((folder.name for folder in kept.glob("[!.]*/")), incomplete)
