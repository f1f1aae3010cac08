"""The verb that runs upstream's own tests on a lab."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hoplab.cli.options import file_option, lab_option, print_spec_notice
from hoplab.core.paths import LabPaths


@click.command()
@lab_option
@click.option(
    "--focus",
    metavar="RE",
    default="",
    help="Only network specs whose names match, also those that no cluster has to pass: 'NetworkPolicy'.",
)
@click.option("--quick", is_flag=True, help="Five specs, one for each kind of packet.")
@file_option("--junit", "Also write JUnit XML, for CI systems.")
def conformance(paths: LabPaths, focus: str, quick: bool, junit: Path | None) -> None:
    """Run upstream's end-to-end tests of the network.

    These are the `[sig-network]` specs for conformance of the Kubernetes that the lab has. The first run builds them,
    which takes a quarter of an hour of one core. Exit code 1 when a spec fails.
    """
    from hoplab.conformance import report, runner
    from hoplab.core import fs
    from hoplab.core.console import progress

    if focus and quick:
        raise click.UsageError("--focus and --quick exclude each other: both choose the specs")
    if junit:
        fs.check(junit)
    print_spec_notice(paths)
    ended = runner.run(paths, progress(), focus=focus, quick=quick)
    click.echo(report.text(ended.run))
    if junit:
        fs.write(junit, report.junit_text(ended.run))
        click.echo(f"wrote {junit}")
    if ended.left:
        raise ended.left
    if ended.interrupted:
        raise KeyboardInterrupt
    if not ended.run.succeeded:
        sys.exit(1)


VERBS = (conformance,)
