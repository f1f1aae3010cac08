"""Verbs for checkpoints: states of a lab to which it returns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from hoplab.cli import completion
from hoplab.cli.options import json_option, lab_flag, lab_option, text_table
from hoplab.core.paths import LabPaths

if TYPE_CHECKING:
    from hoplab.lab.checkpoint.store import Checkpoint

name_argument = click.argument("name", metavar="NAME", shell_complete=completion.checkpoints)


@click.group()
def checkpoint() -> None:
    """Keep states of a lab, and return to them.

    A checkpoint has the machines with their memory and disks, the control plane with its data, keys and state, all of
    one moment. It stays when the lab is destroyed.
    """


@checkpoint.command(name="create")
@lab_option
@click.argument("name", metavar="NAME")
def checkpoint_create(paths: LabPaths, name: str) -> None:
    """Write a checkpoint of the running lab.

    The lab pauses for it and goes on running afterwards.
    """
    from hoplab.core.console import progress
    from hoplab.lab.checkpoint import create
    from hoplab.lab.checkpoint.store import mib

    made = create.create(paths, name, progress())
    click.echo(f"checkpoint {name}: {mib(made.size)}, {made.content[:12]}")
    click.echo(f"return to it   ./lab checkpoint restore{lab_flag(paths.lab)} {name} --yes")


@checkpoint.command(name="list")
@lab_option
@json_option
def checkpoint_list(paths: LabPaths, as_json: bool) -> None:
    """List the checkpoints of the lab, the oldest first."""
    from hoplab.lab.checkpoint.store import Store, mib

    found = Store(paths).all()
    if as_json:
        click.echo(json.dumps({"checkpoints": [_summary(one) for one in found]}, indent=2))
        return
    rows = [("name", "made", "size", "content")]
    for one in found:
        made = one.manifest
        if made:
            rows.append((one.name, f"{made.made.astimezone():%Y-%m-%d %H:%M}", mib(made.size), made.content[:12]))
        else:
            rows.append((one.name, "-", "-", one.problem))
    click.echo(text_table(rows) if found else "there are no checkpoints")


@checkpoint.command(name="show")
@lab_option
@json_option
@name_argument
def checkpoint_show(paths: LabPaths, name: str, as_json: bool) -> None:
    """Show what a checkpoint contains, and when it expires."""
    from hoplab.lab.checkpoint import manifest
    from hoplab.lab.checkpoint.store import Checkpoint, Store, mib

    folder = Store(paths).find(name)
    found = manifest.read(folder)
    if as_json:
        files = [vars(file) for file in found.files]
        click.echo(json.dumps({**_summary(Checkpoint(folder, found)), "files": files}, indent=2))
        return
    then = found.hypervisor
    click.echo(f"made        {found.made.astimezone():%Y-%m-%d %H:%M}, of lab {found.lab}")
    click.echo(f"content     {found.content}")
    click.echo(f"image       {found.image}")
    click.echo(f"machines    {', '.join(found.machines)}, {found.memory_mib} MiB of memory")
    click.echo(f"hypervisor  libvirt {then.libvirt}, QEMU {then.qemu}, {then.accel}, CPU {then.cpu}")
    if found.expiries:
        first = found.expiries[0]
        click.echo(f"expires     {first.when:%Y-%m-%d}: {first.what}")
    for file in sorted(found.files, key=lambda file: -file.size)[:5]:
        click.echo(f"  {mib(file.size):>9}  {file.path}")
    click.echo(f"  {mib(found.size):>9}  in all, {len(found.files)} files in {folder}")


@checkpoint.command(name="restore")
@lab_option
@click.option("--yes", is_flag=True, help="Give up the present state of the lab, running or not.")
@name_argument
def checkpoint_restore(paths: LabPaths, name: str, yes: bool) -> None:
    """Put the lab back to a checkpoint; also a lab that was destroyed.

    The checkpoint is checked before anything is lost. Where this is killed in the middle, `./lab start` finishes it.
    """
    from hoplab.core.console import clock, progress
    from hoplab.lab.checkpoint import restore

    screen = progress()
    restored = restore.restore(paths, name, screen, yes=yes)
    for notice in restored.notices:
        click.echo(f"note: {notice}", err=True)
    seconds = sum(phase.seconds for phase in screen.ended)
    click.echo(f"restored from {name} of {restored.manifest.made.astimezone():%d %B %H:%M} in {clock(seconds)}")


@checkpoint.command(name="delete")
@lab_option
@name_argument
def checkpoint_delete(paths: LabPaths, name: str) -> None:
    """Remove a checkpoint."""
    from hoplab.core.lock import locked
    from hoplab.lab.checkpoint.store import Store, mib

    with locked(paths.lock, f"lab checkpoint delete --lab {paths.lab}"):
        store = Store(paths)
        store.clean()
        size = store.delete(name)
    click.echo(f"removed checkpoint {name} ({mib(size)})")


def _summary(one: Checkpoint) -> dict[str, Any]:
    made = one.manifest
    if made is None:
        return {"name": one.name, "problem": one.problem}
    return {
        "name": one.name,
        "made": made.made.isoformat(),
        "lab": made.lab,
        "image": made.image,
        "size": made.size,
        "memoryMib": made.memory_mib,
        "hypervisor": vars(made.hypervisor),
        "expires": made.expiries[0].when.isoformat() if made.expiries else None,
        "content": made.content,
        "problem": "",
    }


VERBS = (checkpoint,)
