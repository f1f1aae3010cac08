"""Verbs for many labs of one spec."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from hoplab.cli.options import lab_paths, print_list, text_table
from hoplab.core.errors import LabError

if TYPE_CHECKING:
    from hoplab.lab.fleet_members import Fleet


class LabCount(click.IntRange):
    """A number of labs; the upper bound is of hoplab.lab.fleet_members, which --help does not import."""

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from hoplab.lab import fleet_members

        return click.IntRange(1, fleet_members.MAX_LABS).convert(value, param, ctx)


def _fleet(context: click.Context, argument: click.Parameter, name: str) -> Fleet:
    from hoplab.lab import fleet_members

    return fleet_members.Fleet(lab_paths(context, argument, name).lab)


spec_argument = click.argument("of", metavar="SPEC", callback=_fleet)
parallel_option = click.option(
    "--parallel", type=LabCount(), default=2, show_default=True, help="How many labs to work on at once."
)


@click.group()
def fleet() -> None:
    """Make several labs of one spec, one for each student.

    SPEC is a lab's name, its labs are SPEC-s1, SPEC-s2, ...
    """


@fleet.command(name="up")
@spec_argument
@click.option("--count", type=LabCount(), required=True, metavar="N", help="How many labs.")
@click.option("--fresh", is_flag=True, help="Make each new lab from nothing, not as a fork of the first one.")
@parallel_option
def fleet_up(of: Fleet, count: int, parallel: int, *, fresh: bool) -> None:
    """Make N labs of SPEC, and a sheet of access data for each.

    The first one is made, the others are forks of it with keys of their own. Run it again to continue or to apply a
    change.
    """
    from hoplab.core.console import progress
    from hoplab.lab import fleet as fleets

    fleets.up(of, count, parallel, progress(), fresh=fresh)
    _print_fleet(of)
    click.echo(f"sheets    {of.folder}")


@fleet.command(name="status")
@spec_argument
def fleet_status(of: Fleet) -> None:
    """Show the labs of SPEC; exit code 1 when something is down."""
    if not _print_fleet(of):
        sys.exit(1)


@fleet.command(name="reset")
@spec_argument
@click.argument("names", metavar="LAB...", nargs=-1, required=True)
@parallel_option
@click.option("--yes", is_flag=True, help="What is in these labs may be lost.")
def fleet_reset(of: Fleet, names: tuple[str, ...], parallel: int, *, yes: bool) -> None:
    """Give students a new start: make labs of SPEC anew, for instance `s2 s7`.

    A lab is back within a minute or two where the first one has a checkpoint, as it has without lab:checkpoint: off.
    """
    from hoplab.core.console import progress
    from hoplab.lab import fleet as fleets

    made = fleets.reset(of, names, parallel, progress(), yes=yes)
    print_list([f"lab {member.lab}" for member in made], "made anew", "")


@fleet.command(name="destroy")
@spec_argument
@parallel_option
def fleet_destroy(of: Fleet, parallel: int) -> None:
    """Remove every lab of SPEC with all that belongs to it."""
    from hoplab.core.console import progress
    from hoplab.lab import fleet as fleets

    print_list(fleets.destroy(of, parallel, progress()), "removed", "there was nothing to remove")


def _print_fleet(of: Fleet) -> bool:
    """Print the labs of a fleet, a line each; return whether all of them are healthy."""
    from hoplab.lab import fleet as fleets

    for notice in fleets.notices(of):
        click.echo(f"note: {notice}", err=True)
    rows = fleets.status(of)
    if not rows:
        raise LabError(f"there is no fleet of {of.spec!r}", remedy=f"make one: ./lab fleet up {of.spec} --count 3")
    table = [("lab", "network", "machines", "kubernetes")]
    click.echo(text_table([*table, *((row.lab, row.network, row.machines, row.kubernetes) for row in rows)]))
    return all(row.healthy for row in rows)


VERBS = (fleet,)
