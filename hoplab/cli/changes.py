"""Verbs that say what changed in a lab."""

from __future__ import annotations

import json
import os
import sys

import click

from hoplab.cli.options import json_option, lab_option, require_checkout
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths

COLOURS = {"-": "red", "+": "green", "~": "yellow"}
TROUBLE = 2  # exit code, as of diff(1)


@click.command()
@lab_option
@json_option
@click.option("--all", "everything", is_flag=True, help="A line for each change; also what comes and goes by itself.")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
def diff(paths: LabPaths, as_json: bool, everything: bool, before: str, after: str) -> None:
    """Say what changed from A to B: recordings, or `now`.

    Counters, ages, order and learned MACs are left out; what belongs to one event is below its first line. The exit
    code is 0 when both are the same, 1 when they differ and 2 on an error, as that of diff(1).

    \b
    ./lab record before.json            before you change something
    ./lab diff before.json now          what it changed on the hosts and in Kubernetes
    """
    from hoplab.core.console import progress
    from hoplab.verify.changes import events, sides, text

    if before == after == sides.NOW:
        raise click.UsageError("`now` and `now` are one look: name a recording, for example of `./lab record`")
    try:
        named = {name: sides.find(name, paths) for name in (before, after) if name != sides.NOW}
        if sides.NOW in (before, after):  # last: it takes longest
            require_checkout("diff with `now`")
            screen = progress()
            with screen.phase("looking at the lab"):
                named[sides.NOW] = sides.find(sides.NOW, paths, screen.task)
        found = events.difference(named[before].snapshot, named[after].snapshot)
    except LabError as error:
        error.exit_code = TROUBLE
        raise
    if as_json:
        document = {"before": before, "after": after, **text.document(found, everything=everything)}
        click.echo(json.dumps(document, indent=2))
    else:
        for note in found.notes:
            click.echo(f"note: {note}", err=True)
        for line in text.lines(found, everything=everything):
            click.echo(coloured(line))
        if found.same and not (everything and found.momentary):
            click.echo(f"no difference between {before} and {after}", err=True)
    sys.exit(0 if found.same else 1)


@click.command()
@lab_option
@click.option("--node", "nodes", metavar="NODE", multiple=True, help="Only this node, and the API; may be repeated.")
def watch(paths: LabPaths, nodes: tuple[str, ...]) -> None:
    """Say what changes in the lab while it happens, until Ctrl-C.

    One line for each event, with the time of the look that showed it: scale a deployment in another terminal, and see
    its veth, its route and its rules appear. Nothing is created in the lab.
    """
    from hoplab.verify import live_look
    from hoplab.verify.changes import watching

    with live_look.opened(paths, nodes, without=watching.UNWATCHED) as look:
        click.echo(f"watching {', '.join(nodes) or f'lab {paths.lab}'}, until Ctrl-C", err=True)
        try:
            for seen in watching.watch(look):
                click.echo(str(seen))
        except KeyboardInterrupt:
            click.echo("ended", err=True)


def coloured(line: str) -> str:
    """Return a line in the colour of its first sign; click removes colours where the output is no terminal."""
    sign = line.lstrip()[:1]
    return click.style(line, fg=COLOURS[sign]) if sign in COLOURS and not os.environ.get("NO_COLOR") else line


VERBS = (diff, watch)
