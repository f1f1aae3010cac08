"""Verbs that make a lab, change it and remove it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hoplab.cli.options import lab_flag, lab_option, print_list, text_table
from hoplab.core.paths import LabPaths

if TYPE_CHECKING:
    from hoplab.engine import Changes
    from hoplab.lab.state import LabState


@click.command()
@lab_option
@click.option("--full", is_flag=True, help="Run every role on every node, also where nothing changed.")
@click.option("--recreate", is_flag=True, help="Remove the old cluster first: for another CNI or proxy mode.")
@click.option("--fresh", is_flag=True, help="Make a new lab without the checkpoint of an earlier one, with new keys.")
def up(paths: LabPaths, full: bool, recreate: bool, fresh: bool) -> None:
    """Make the lab as its spec describes it.

    Run it again to continue after an interruption or to apply a change of the spec. A lab that was made before and
    destroyed starts from the checkpoint that was kept of it (lab:checkpoint).
    """
    from hoplab.core.console import clock, progress
    from hoplab.lab import lifecycle

    result = lifecycle.up(paths, progress(), full=full, recreate=recreate, fresh=fresh)
    _print_lab(result.state, result.changes, result.converged.changed)
    if result.checkpoint:
        seconds = sum(seconds for _, seconds in result.state.phases)
        fork = f"fork of {result.checkpoint.lab}, " if result.checkpoint.lab != result.state.lab else ""
        click.echo(f"{fork}from checkpoint of {result.checkpoint.made.astimezone():%d %B}, {clock(seconds)}")


@click.command()
@lab_option
def preview(paths: LabPaths) -> None:
    """Show what `up` would change in machines, networks and volumes.

    Nothing is touched.
    """
    from hoplab.core.console import progress
    from hoplab.lab import lifecycle

    _print_changes(lifecycle.preview(paths, progress()), "would be ")


@click.command()
@lab_option
@click.option("--full", is_flag=True, help="Run every role on every node, also where nothing changed.")
def converge(paths: LabPaths, full: bool) -> None:
    """Run the Ansible roles again on the machines that exist."""
    from hoplab.core.console import clock, progress
    from hoplab.lab import lifecycle

    result = lifecycle.reconverge(paths, progress(), full=full)
    click.echo(f"{result.changed} of {result.tasks} tasks changed something, in {clock(result.seconds)}")


@click.command()
@lab_option
def reset(paths: LabPaths) -> None:
    """Remove the cluster and keep the machines.

    Every node is compared with what it was before it joined.
    """
    from hoplab.core.console import clock, progress
    from hoplab.lab import lifecycle

    done = lifecycle.reset(paths, progress())
    click.echo(f"reset in {clock(done.seconds)}: the machines are as they were before they joined")
    click.echo(f"a new cluster   ./lab up --lab {paths.lab}")


@click.command()
@lab_option
def stop(paths: LabPaths) -> None:
    """Shut the machines down; `start` brings the lab back."""
    from hoplab.core.console import PlainProgress
    from hoplab.lab import power

    print_list(power.stop(paths, PlainProgress()), "stopped", "nothing was running")


@click.command()
@lab_option
def start(paths: LabPaths) -> None:
    """Start a stopped lab, also after a reboot of the host."""
    from hoplab.core.console import progress
    from hoplab.lab import power

    power.start(paths, progress())
    click.echo("the lab is usable")


@click.command()
@lab_option
def destroy(paths: LabPaths) -> None:
    """Remove everything of the lab, healthy or not.

    The caches of node images stay. What was removed is listed.
    """
    from hoplab.core.console import PlainProgress
    from hoplab.lab import lifecycle
    from hoplab.lab.checkpoint.store import Store, is_kept

    print_list(lifecycle.destroy(paths, PlainProgress()), "removed", "there was nothing to remove")
    if kept := Store(paths).names():
        click.echo(f"kept      checkpoints {', '.join(kept)}: ./lab checkpoint restore{lab_flag(paths.lab)} NAME")
        if any(map(is_kept, kept)):
            click.echo(f"          ./lab up{lab_flag(paths.lab)} starts from the last one, or with --fresh anew")


def _print_changes(changes: Changes, verb: str) -> None:
    changed = [change for change in changes if change.op != "same"]
    for change in changed:
        click.echo(f"  {change.op:<8} {change.type} {change.name}{'  ' + change.detail if change.detail else ''}")
    click.echo(f"{len(changed)} {verb}changed, {len(changes) - len(changed)} unchanged")


def _print_lab(current: LabState, changes: Changes, changed: int) -> None:
    """Print the table that ends `up`."""
    from hoplab import image
    from hoplab.core.console import clock

    option = lab_flag(current.lab)
    rows = [("node", "role", "address", "ssh")]
    rows += [(node.name, node.role, node.address, f"./lab ssh{option} {node.name}") for node in current.nodes]
    if current.hosted:
        rows.append(("(this host)", "control-plane", current.gateway, "-"))
    click.echo(f"\n{text_table(rows)}\n")
    versions = image.versions_of(current.image)
    click.echo(
        f"kubernetes {versions['kubernetes']}, containerd {versions['containerd']}, accel {current.accel}, "
        f"image {current.image[:12]}"
    )
    click.echo(f"kubectl   ./lab kubectl{option} get pods -A")
    if current.context:
        click.echo(f"          kubectl --context {current.context} get pods -A")
    click.echo(f"verify    ./lab verify{option}")
    resources = sum(change.op != "same" for change in changes)
    click.echo(f"changed   {resources} resources, {changed} tasks")
    click.echo("took      " + ", ".join(f"{title} {clock(seconds)}" for title, seconds in current.phases))


VERBS = (up, preview, converge, reset, stop, start, destroy)
