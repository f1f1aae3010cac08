"""Options and output that several verbs share. Nothing heavy is imported here: `./lab --help` imports this."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from hoplab.cli import completion
from hoplab.core.errors import LabError, StateError
from hoplab.core.paths import PROJECT, LabPaths, rootless

# What follows belongs to ssh, kubectl or helm
PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def lab_paths(_context: click.Context, _option: click.Parameter, name: str) -> LabPaths:
    """Return the lab's paths; raise BadParameter before an invalid name reaches anything that removes files."""
    from hoplab.spec.validate import name_issues

    issues = name_issues(name)
    if issues:
        raise click.BadParameter(f"{name!r} is not a lab's name: {issues[0].hint}")
    return LabPaths(name)


def lab_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--lab NAME``, which gives the verb the lab's paths."""
    return click.option(
        "--lab",
        "paths",
        metavar="NAME",
        default="dev",
        envvar="HOPLAB_LAB",
        show_default=True,
        callback=lab_paths,
        shell_complete=completion.labs,
        help="The lab: its spec is Pulumi.NAME.yaml.",
    )(function)


def lab_given() -> bool:
    """Return whether ``--lab`` stands in the command line of the running verb."""
    return click.get_current_context().get_parameter_source("paths") is ParameterSource.COMMANDLINE


def refuse_lab_and_recording(recording: Path | None) -> None:
    """Raise UsageError where a verb got both."""
    if recording and lab_given():
        raise click.UsageError("--lab and --recording exclude each other: a recording is of one lab")


json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


def file_option(name: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return an option that names a file."""
    return click.option(name, metavar="FILE", type=click.Path(path_type=Path), help=text)


def require_checkout(verb: str) -> None:
    """Raise LabError where hoplab was installed from a wheel, which has no roles and no playbooks."""
    if not (PROJECT / "playbooks").is_dir():
        raise LabError(
            f"hoplab {verb} needs the project's checkout (roles, playbooks)", remedy="git clone it, then ./lab up"
        )


def from_checkout(command: click.Command) -> click.Command:
    """Let a verb check first that it runs from a checkout; its --help works without one."""
    callback = command.callback
    assert callback

    @functools.wraps(callback)
    def checked(*arguments: Any, **options: Any) -> Any:
        require_checkout(command.name or "")
        return callback(*arguments, **options)

    command.callback = checked
    return command


def in_namespaces(command: click.Command, *, makes: bool, of_lab: bool = True) -> None:
    """Let a verb of a user who is not root first enter the namespaces that labs are in.

    ``makes`` is whether it does so where there is no lab yet, ``of_lab`` whether a lab's libvirt decides.
    """
    callback = command.callback
    assert callback

    @functools.wraps(callback)
    def entered(*arguments: Any, **options: Any) -> Any:
        if rootless():
            from hoplab.lab.rootless import enter

            fleet = options.get("of")
            paths = LabPaths(fleet.spec) if fleet else options.get("paths")
            enter(paths if of_lab else None, makes=makes)
        return callback(*arguments, **options)

    command.callback = entered


def leaves(command: click.Command) -> Iterator[click.Command]:
    """Yield the verb, or the verbs of a group."""
    if isinstance(command, click.Group):
        for verb in command.commands.values():
            yield from leaves(verb)
    else:
        yield command


def lab_flag(lab: str) -> str:
    """Return the option that names a lab in a command line, "" for the default one.

    >>> lab_flag("dev"), lab_flag("blue")
    ('', ' --lab blue')
    """
    return "" if lab == "dev" else f" --lab {lab}"


def print_spec_notice(paths: LabPaths) -> None:
    """Print a line to standard error where the spec is not what `up` made the lab from."""
    from hoplab.lab import state

    with contextlib.suppress(StateError):  # the verb itself says what is wrong with it
        if notice := state.spec_notice(state.load_summary(paths), paths):
            click.echo(f"note: {notice}", err=True)


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of equal length with aligned columns.

    >>> print(text_table([("node", "role"), ("worker1", "worker")]))
     node     role
     worker1  worker
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(f" {line}".rstrip() for line in lines)


def print_list(lines: list[str], done: str, nothing: str) -> None:
    """Print a line for each thing that was done, or that there was nothing to do."""
    for line in lines:
        click.echo(f"{done} {line}")
    if not lines:
        click.echo(nothing)
