"""Verbs that draw a lab."""

from __future__ import annotations

from pathlib import Path

import click

from hoplab.cli.options import file_option, lab_option, print_spec_notice, refuse_lab_and_recording, require_checkout
from hoplab.core.paths import LabPaths

FORMATS = ("svg", "mermaid", "dot", "d2", "json")  # of hoplab.graph.formats, which --help does not import


@click.command()
@lab_option
@file_option("--recording", "Draw a recording (of `lab record`) in place of a running lab.")
@click.option("--format", type=click.Choice(FORMATS), help="By default what the name of -o ends with, else svg.")
@click.option("--of", type=click.Choice(("all", "nodes", "pods", "path")), default="all", help="The part to draw.")
@click.option("--claims/--no-claims", default=True, help="Check the claims that need no packets; what fails is red.")
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="In place of standard output.")
@click.argument("ends", nargs=-1, metavar="[A B]")
def graph(
    paths: LabPaths,
    recording: Path | None,
    format: str | None,
    of: str,
    claims: bool,
    output: Path | None,
    ends: tuple[str, ...],
) -> None:
    """Draw nodes, pods, services and what connects them.

    The picture is made from facts alone: interfaces, routes, FDB entries, objects of Kubernetes.

    \b
    ./lab graph -o lab.svg                          everything
    ./lab graph --of nodes -o nodes.svg             bridges, routes and tunnels, without pods
    ./lab graph --of pods -o services.svg           services and the pods behind them
    ./lab graph --of path echo-w8kjg worker2        what a packet crosses, by routes; A and B are pods, nodes, services
    ./lab graph --recording r.json --format mermaid
    """
    from hoplab.core import fs
    from hoplab.core.console import progress
    from hoplab.verify import drawing

    if (of == "path") != (len(ends) == 2) or len(ends) > 2:
        raise click.UsageError("--of path goes with the names of two places, and only with them: --of path A B")
    refuse_lab_and_recording(recording)
    if not recording:
        require_checkout("graph without --recording")
        print_spec_notice(paths)
    if output:
        fs.check(output, force=True)
    screen = progress()
    with screen.phase("drawing the lab"):
        text = drawing.draw(
            paths,
            recording=recording,
            format=format or drawing.format_of(output),
            of=of,
            ends=ends,
            claims=claims,
            say=screen.task,
        )
    if output:
        fs.write(output, text)
        click.echo(f"drew {output}")
    else:
        click.echo(text, nl=False)


VERBS = (graph,)
