"""Verbs for learners: the course's claims on real hosts, and exercises."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hoplab.cli import completion
from hoplab.cli.cluster_options import cluster_options, target_of, traffic_options
from hoplab.cli.options import (
    file_option,
    json_option,
    lab_flag,
    lab_given,
    lab_option,
    print_list,
    print_spec_notice,
    refuse_lab_and_recording,
    require_checkout,
    text_table,
)
from hoplab.core.paths import LabPaths

if TYPE_CHECKING:
    from hoplab.practice.runner import ExerciseRunner


name_argument = click.argument("name", shell_complete=completion.exercises)


@click.command()
@lab_option
@file_option("--recording", "Check a recording (of `lab record`) in place of a running lab; no packets are sent.")
@json_option
@file_option("--junit", "Also write JUnit XML, for CI systems.")
@file_option("--html", "Also write one HTML page, which opens without a network.")
@click.option("--cleanup", is_flag=True, help="Remove the pods of the verification when it is done.")
@click.option(
    "-k",
    "only",
    metavar="EXPRESSION",
    default="",
    shell_complete=completion.lessons,
    help="Only lessons that match, as pytest's -k.",
)
@cluster_options
@traffic_options
def verify(paths: LabPaths, recording: Path | None, cleanup: bool, **options: Any) -> None:
    """Check the course's claims on the real hosts.

    The exit code is 1 when a claim fails. With --kubeconfig they are those of a cluster that hoplab did not make;
    nothing is changed there without --traffic.
    """
    from hoplab.verify import runner

    target = target_of(options)

    refuse_lab_and_recording(recording)
    if recording and cleanup:
        raise click.UsageError("--recording and --cleanup exclude each other: a recording has no pods to remove")
    if target and (recording or lab_given() or cleanup):
        wrong = "--recording" if recording else "--lab" if lab_given() else "--cleanup"
        raise click.UsageError(f"--kubeconfig and {wrong} exclude each other: it is of no lab, and --traffic cleans up")
    if target:
        sys.exit(runner.run(paths, target=target, **options))
    if not recording:
        require_checkout("verify without --recording")
        print_spec_notice(paths)
    sys.exit(runner.run(paths, recording=recording, cleanup=cleanup, **options))


@click.group(invoke_without_command=True)
@click.pass_context
def practice(context: click.Context) -> None:
    """Solve networking exercises by hand on a node, and check them.

    An exercise runs in network namespaces of its own. Without a verb, the exercises are listed.
    """
    if context.invoked_subcommand is None:
        from hoplab.practice import discover

        rows = [(exercise.name, str(exercise.day), exercise.title) for exercise in discover()]
        click.echo(text_table([("name", "day", "exercise"), *rows]))
        click.echo("\nbegin with: ./lab practice start NAME")


def _runner(paths: LabPaths) -> ExerciseRunner:
    from hoplab.practice import runner

    print_spec_notice(paths)
    return runner.ExerciseRunner(runner.nodes(paths), lab_flag(paths.lab))


@practice.command(name="start")
@lab_option
@name_argument
@click.option(
    "--node",
    default="",
    metavar="NODE",
    shell_complete=completion.nodes,
    help="The node; by default the lab's first worker.",
)
@click.option("--again", is_flag=True, help="Start anew: what was made so far is removed.")
@click.option(
    "--from",
    "checkpoint",
    default="",
    metavar="CHECKPOINT",
    shell_complete=completion.checkpoints,
    help="Put the lab back to this checkpoint first.",
)
@click.option("--yes", is_flag=True, help="Give up the present state of the lab for --from.")
def practice_start(paths: LabPaths, name: str, node: str, again: bool, checkpoint: str, yes: bool) -> None:
    """Make the starting state of exercise NAME and print its task."""
    from hoplab.practice import find

    exercise = find(name)
    if checkpoint:
        _return_to(paths, checkpoint, f"./lab practice start {name} --from {checkpoint}{lab_flag(paths.lab)}", yes=yes)
    elif yes:
        raise click.UsageError("--yes is for --from: nothing else is lost")
    runner = _runner(paths)
    node, now = runner.start(exercise, node, again=again)
    click.echo(f"day {exercise.day}: {exercise.title}\n{exercise.task}")
    if not now:
        anew = runner.command("start", exercise, " --again")
        click.echo(f"it was started already, and what you made is kept; anew: {anew}\n")
    click.echo(f"./lab ssh{runner.option} {node}")
    for namespace in exercise.namespaces:
        click.echo(f"  sudo ip netns exec {namespace} bash")
    click.echo(f"{runner.command('check', exercise)}\n{runner.command('hint', exercise)}")


def _return_to(paths: LabPaths, checkpoint: str, command: str, *, yes: bool) -> None:
    from hoplab.core.console import progress
    from hoplab.practice import reference

    restored = reference.return_to(paths, checkpoint, command, progress(), yes=yes)
    for notice in restored.notices:
        click.echo(f"note: {notice}", err=True)
    click.echo(f"the lab is as it was on {restored.manifest.made.astimezone():%d %B %H:%M}\n")


@practice.command(name="check")
@lab_option
@name_argument
def practice_check(paths: LabPaths, name: str) -> None:
    """Check exercise NAME; exit code 1 while something is missing."""
    from hoplab.practice import find
    from hoplab.practice.runner import PATIENCE

    exercise, runner = find(name), _runner(paths)
    checked = runner.check(exercise, PATIENCE)
    for result in checked.results:
        tick = click.style("✓", fg="green") if result.passed else click.style("✗", fg="red")
        click.echo("\n      ".join([f"  {tick} {result.message}", *result.evidence]))
    total = len(checked.results)
    click.echo(f"{checked.passed} of {total} on {checked.node}", nl=False)
    if checked.passed < total:
        click.echo(f"; a hint: {runner.command('hint', exercise)}")
        sys.exit(1)
    click.echo(f": done; {runner.command('reset', exercise)} removes it")


@practice.command(name="hint")
@lab_option
@name_argument
@click.option("--more", is_flag=True, help="All hints.")
def practice_hint(paths: LabPaths, name: str, more: bool) -> None:
    """Print the next hint for exercise NAME; after the last, all of them."""
    from hoplab.practice import find

    exercise = find(name)
    first, end = _runner(paths).hint(exercise, more=more)
    for number in range(first, end):
        label = f"{number + 1}/{len(exercise.hints)} "
        click.echo(click.wrap_text(exercise.hints[number], 100, label, " " * len(label)))


@practice.command(name="reset")
@lab_option
@name_argument
def practice_reset(paths: LabPaths, name: str) -> None:
    """Remove exercise NAME and all that was made in its namespaces.

    Shells that are open in its namespaces are killed.
    """
    from hoplab.practice import find

    print_list(_runner(paths).reset(find(name)), "removed", "there was nothing to remove")


VERBS = (verify, practice)
