"""The verbs. Each says what happens, calls hoplab.lab.lifecycle and prints the result; nothing is decided here."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hoplab import __version__, image, practice
from hoplab.core import fs
from hoplab.core.console import PlainProgress, clock, progress
from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.devtools import testing
from hoplab.engine import Changes
from hoplab.engine.install import install
from hoplab.host import netns
from hoplab.image.archives import Kept
from hoplab.infra.context import node_image
from hoplab.lab import doctor, fleet, lifecycle, port_forward, state
from hoplab.observe import snapshot
from hoplab.practice import runner
from hoplab.spec.catalog import ArchivedImage
from hoplab.spec.parse import load_spec
from hoplab.spec.validate import name_issues
from hoplab.verify import comparison

PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}  # what follows belongs to ssh or kubectl


def _paths(_context: click.Context, _option: click.Parameter, name: str) -> LabPaths:
    """The lab's paths; a name that is none never gets near anything that makes or removes files."""
    issues = name_issues(name)
    if issues:
        raise click.BadParameter(f"{name!r} is not a lab's name: {issues[0].hint}")
    return LabPaths(name)


def lab_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--lab NAME``, given to the verb as the lab's paths."""
    return click.option(
        "--lab",
        "paths",
        metavar="NAME",
        default="dev",
        envvar="HOPLAB_LAB",
        show_default=True,
        callback=_paths,
        help="The lab: its spec is Pulumi.NAME.yaml.",
    )(function)


json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


def file_option(name: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option that names a file."""
    return click.option(name, metavar="FILE", type=click.Path(path_type=Path), help=text)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cli() -> None:
    """A multi-node Kubernetes networking lab on virtual machines, as code.

    \b
    ./lab up        make the lab (image, machines, cluster)
    ./lab verify    prove on the real hosts what the course says
    ./lab destroy   leave nothing behind
    """


@cli.command()
@lab_option
@click.option("--full", is_flag=True, help="Run every role on every node, also where nothing changed.")
@click.option("--recreate", is_flag=True, help="Take the old cluster away first: for another CNI or proxy mode.")
def up(paths: LabPaths, full: bool, recreate: bool) -> None:
    """Make the lab what its spec says; run it again to continue after an interruption or to apply a change."""
    screen = progress()
    result = lifecycle.up(paths, screen, full=full, recreate=recreate)
    _print_lab(result.state, result.changes, result.converged.changed)


@cli.command()
@lab_option
def reset(paths: LabPaths) -> None:
    """Take the cluster away and leave the machines; every node is compared with what it was before it joined."""
    screen = progress()
    done = lifecycle.reset(paths, screen)
    click.echo(f"reset in {clock(done.seconds)}: the machines are as they were before they joined")
    click.echo(f"a new cluster   ./lab up --lab {paths.lab}")


@cli.command()
@lab_option
def preview(paths: LabPaths) -> None:
    """Show what `up` would do to machines, networks and volumes, without touching anything."""
    _print_changes(lifecycle.preview(paths, progress()), "would be ")


@cli.command()
@lab_option
@json_option
def status(paths: LabPaths, as_json: bool) -> None:
    """Show machines and nodes as they are now; exit code 1 when something is down."""
    seen = lifecycle.status(paths)
    if as_json:
        click.echo(json.dumps(seen, indent=2))
    else:
        table = Table("node", "role", "address", "machine", "kubernetes", "podCIDR", box=None)
        for row in seen["nodes"]:
            ready = {True: "Ready", False: "NotReady", None: "-"}[row["ready"]]
            table.add_row(row["name"], row["role"], row["address"], row["machine"], ready, row["podCIDR"] or "-")
        console = Console()
        console.print(table)
        console.print(f"api {seen['api']}, control plane {seen['placement']}, accel {seen['accel']}")
    if not seen["healthy"]:
        sys.exit(1)


@cli.command(name="verify")
@lab_option
@file_option("--recording", "Check a recording (of `lab record`) in place of a running lab; no packets are sent.")
@json_option
@file_option("--junit", "Also write JUnit XML, for CI systems.")
@file_option("--html", "Also write one HTML page, which opens without a network.")
@click.option("--cleanup", is_flag=True, help="Remove the pods that verification asks with when it is done.")
@click.option("-k", "only", metavar="EXPRESSION", default="", help="Only lessons that match, as pytest's -k.")
def verify_(paths: LabPaths, recording: Path | None, cleanup: bool, **options: Any) -> None:
    """Prove the course's claims on the real hosts; exit code 1 when one fails."""
    from hoplab.verify import runner  # noqa: PLC0415 -- brings pytest along, which no other verb should wait for

    lab_given = click.get_current_context().get_parameter_source("paths") is ParameterSource.COMMANDLINE
    if recording and lab_given:
        raise click.UsageError("--lab and --recording exclude each other: a recording says which lab it is of")
    if recording and cleanup:
        raise click.UsageError("--recording and --cleanup exclude each other: a recording has no pods to remove")
    sys.exit(runner.run(paths, recording=recording, cleanup=cleanup, **options))


@cli.command(name="record")
@lab_option
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
def record_(paths: LabPaths, file: Path | None, force: bool) -> None:
    """Look at the running lab and write what was seen to FILE, for `verify --recording`; it holds no secrets."""
    from hoplab.verify import recording  # noqa: PLC0415 -- brings testinfra along

    screen = progress()
    with screen.phase("looking at the lab"):
        made = recording.record(paths, file, force=force, say=screen.task)
    click.echo(f"recorded {made}")
    click.echo(f"verify    ./lab verify --recording {made.file}")


@cli.command()
@click.argument("recordings", nargs=-1, required=True, type=click.Path(path_type=Path))
def compare(recordings: tuple[Path, ...]) -> None:
    """Print what recordings of labs show of the same way from pod to pod and to a service, as markdown.

    \b
    ./lab compare tests/recordings/flannel-vxlan.json tests/recordings/calico-bgp.json
    """
    print(comparison.page(snapshot.load(file) for file in recordings), end="")


@cli.command(name="pages")
@lab_option
@click.option("--check", is_flag=True, help="Write nothing; show what is another now, exit code 1.")
def pages_(paths: LabPaths, check: bool) -> None:
    """Run the commands of the learners' pages (docs/lessons, docs/days) on the lab and record what they print."""
    from hoplab.devtools import pages  # noqa: PLC0415 -- brings testinfra along

    screen = progress()
    with screen.phase("the learners' pages"):
        found = pages.run(paths, check=check, say=screen.task)
    if not check:
        _print_list(found, "recorded", "there are no pages")
    elif found:
        click.echo("\n".join(found))
        sys.exit(1)


@cli.command(context_settings=PASS_ON)
@lab_option
@click.argument("node")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(paths: LabPaths, node: str, command: tuple[str, ...]) -> None:
    """Log in to NODE, or run COMMAND there."""
    names = [each.name for each in state.load(paths).nodes]
    if node not in names:
        raise LabError(f"there is no machine {node!r} in lab {paths.lab}", remedy=f"one of: {', '.join(names)}")
    os.execvp("ssh", ["ssh", "-F", str(paths.ssh_config), node, *command])


@cli.command(context_settings={**PASS_ON, "help_option_names": []})
@lab_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kubectl(paths: LabPaths, arguments: tuple[str, ...]) -> None:
    """Run kubectl against the lab, from the host side: ./lab kubectl get pods -A"""
    current = state.load(paths)
    program = Path(current.image_bin) / "kubectl"
    if not program.exists():
        raise LabError(f"{program} is gone", remedy="`./lab image build` makes it again")
    with netns.entered(current.netns):
        os.execve(program, ["kubectl", *arguments], {**os.environ, "KUBECONFIG": str(paths.kubeconfig)})


@cli.command(name="forward")
@lab_option
@click.argument("targets", nargs=-1, metavar="[[LOCAL:]TARGET[:PORT]]...")
def forward_(paths: LabPaths, targets: tuple[str, ...]) -> None:
    """Publish the ingress address, or services, on this machine's loopback until Ctrl-C.

    \b
    ./lab forward                              the ingress address: 8080 is its port 80, 8443 its port 443
    ./lab forward hoplab-verify/single         a service, by namespace and name; each of its TCP ports
    ./lab forward 9000:hoplab-verify/single:80 ... one port of it, as port 9000
    """
    wanted = [port_forward.Wanted.parse(target) for target in targets or (port_forward.INGRESS,)]
    forwards = port_forward.plan(wanted, port_forward.look(paths))
    carrier = port_forward.Forwarder(
        port_forward.listen(forwards),
        state.load(paths).netns,
        paths.ssh_config,
        lambda text: click.echo(text, err=True),
    )
    click.echo("\n".join([*port_forward.described(forwards, paths.ca if paths.ca.exists() else None), "until Ctrl-C"]))
    carrier.run()
    click.echo("ended")


@cli.command()
@lab_option
@click.option("--full", is_flag=True, help="Run every role on every node, also where nothing changed.")
def converge(paths: LabPaths, full: bool) -> None:
    """Run the Ansible roles again on the machines that exist."""
    result = lifecycle.reconverge(paths, progress(), full=full)
    click.echo(f"{result.changed} of {result.tasks} tasks changed something, in {clock(result.seconds)}")


@cli.command()
@lab_option
def stop(paths: LabPaths) -> None:
    """Shut the machines down and free the host; `start` brings the lab back."""
    stopped = lifecycle.stop(paths, PlainProgress())
    _print_list(stopped, "stopped", "nothing was running")


@cli.command()
@lab_option
def start(paths: LabPaths) -> None:
    """Bring a stopped lab back, also after a reboot of the host or a machine that was switched off."""
    lifecycle.start(paths, progress())
    click.echo("the lab is usable")


@cli.command()
@lab_option
def destroy(paths: LabPaths) -> None:
    """Remove everything of the lab, healthy or not, and say what was removed (caches stay)."""
    _print_list(lifecycle.destroy(paths, PlainProgress()), "removed", "there was nothing to remove")


@cli.command(name="doctor")
@lab_option
def doctor_(paths: LabPaths) -> None:
    """Check that this machine can run labs; every fault comes with its remedy."""
    sys.exit(doctor.report(paths))


@cli.group(name="image")
def image_() -> None:
    """Node images, and the container images that are brought to them: build, add, list, prune."""


@image_.command(name="build")
@lab_option
def image_build(paths: LabPaths) -> None:
    """Build the node image of a lab's spec, or say that it is there already."""
    screen = progress()
    with screen.phase("node image"):
        _plan, built = node_image(load_spec(paths.lab, paths), paths, screen)
    click.echo(f"{built.digest}  {built.directory}")


@image_.command(name="add")
@click.argument("archives", metavar="ARCHIVE...", nargs=-1, required=True, type=click.Path(path_type=Path))
def image_add(archives: tuple[Path, ...]) -> None:
    """Check archives of container images (OCI, or of `docker save`) and keep them for the labs that need them.

    These are images that hoplab can't build: Calico, F5's NGINX Ingress Controller. Where their registry can be
    reached, nothing has to be added.
    """
    for archive in archives:
        kept, left_out = image.add_archive(archive)
        for entry, each in kept:
            click.echo(f"added     {each.name}  {each.digest[:19]}  {_origin(entry, each)}")
        for name in left_out:
            click.echo(f"left out  {name}: no component needs it")
    for component in image.archived_components():
        lacking = image.missing_images(component)
        click.echo(f"{component}: " + (f"still missing {', '.join(lacking)}" if lacking else "complete"))


def _origin(entry: ArchivedImage, kept: Kept) -> str:
    """Whether an image is upstream's release; one that was built elsewhere is as good, and said to be."""
    if kept.is_release(entry):
        return "upstream's release"
    return f"built elsewhere: upstream's release is {entry.digest[:19]}"


@image_.command(name="list")
def image_list() -> None:
    """List the node images in the cache, and the container images that were added."""
    for built in image.list_images():
        versions = built.versions
        click.echo(f"{built.digest}  kubernetes {versions.get('kubernetes', '?')}  {built.directory}")
        for name in built.archives:
            click.echo(f"{'':<{len(built.digest)}}  with {name}")
    for entry, kept in image.list_archives():
        found = (
            f"{kept.digest[:19]}  {_origin(entry, kept)}  {kept.file}"
            if kept
            else "not here; pulled when a lab needs it"
        )
        click.echo(f"{entry.component}  {entry.name}  {found}")


@image_.command(name="prune")
def image_prune() -> None:
    """Remove the images that no lab of this project uses."""
    used = set()
    for folder in (PROJECT / ".lab").glob("*/state.json"):
        used.add(state.load(LabPaths(folder.parent.name)).image)
    _print_list(image.prune_images(used), "removed", "every image is in use")


@cli.group(name="pulumi")
def pulumi_() -> None:
    """The Pulumi CLI: fetch it, use it by hand on a lab, hand a running lab over to it."""


@pulumi_.command(name="install")
@click.option("--home", type=click.Path(path_type=Path), default=Path.home() / ".pulumi", help="Pulumi's own folder.")
def pulumi_install(home: Path) -> None:
    """Fetch the official CLI and libvirt plugin into ~/.pulumi, checked against their publishers' checksums."""
    _print_list(install(home, progress()), "installed", "both are there already")
    click.echo(f"export PATH={home}/bin:$PATH")


@pulumi_.command(name="env")
@lab_option
def pulumi_env(paths: LabPaths) -> None:
    """Print what `pulumi` by hand needs to work on the lab of `lab up`: eval "$(./lab pulumi env)"."""
    from hoplab.engine import pulumi_cli  # noqa: PLC0415 - the SDK takes a while to import

    for name, value in pulumi_cli.environment(paths).items():
        click.echo(f"export {name}={shlex.quote(value)}")


@pulumi_.command(name="export")
@lab_option
@click.argument("file", type=click.Path(path_type=Path))
def pulumi_export(paths: LabPaths, file: Path) -> None:
    """Write the embedded engine's state to FILE for `pulumi stack import`; it holds secrets."""
    deployment = lifecycle.exported(paths)
    fs.write(file, json.dumps(deployment, indent=2) + "\n", mode=0o600)
    click.echo(f"written {file}; pulumi stack import --file {file} --stack {paths.lab}")


@pulumi_.command(name="adopt")
@lab_option
def pulumi_adopt(paths: LabPaths) -> None:
    """Hand a running lab of the embedded engine to the Pulumi CLI; nothing of the lab changes."""
    kept = lifecycle.adopt(paths)
    click.echo(f"the Pulumi CLI has lab {paths.lab} now; the embedded engine's state is kept in {kept}")


@cli.group(name="practice", invoke_without_command=True)
@click.pass_context
def practice_(context: click.Context) -> None:
    """Networking by hand on a node, in network namespaces of its own, and graded; without a verb: the exercises."""
    if context.invoked_subcommand is None:
        table = Table("name", "day", "exercise", box=None)
        for exercise in practice.discover():
            table.add_row(exercise.name, str(exercise.day), exercise.title)
        Console(soft_wrap=True).print(table)
        click.echo("\nbegin with: ./lab practice start NAME")


def _desk(paths: LabPaths) -> runner.ExerciseRunner:
    return runner.ExerciseRunner(runner.nodes(paths), "" if paths.lab == "dev" else f" --lab {paths.lab}")


@practice_.command(name="start")
@lab_option
@click.argument("name")
@click.option("--node", default="", metavar="NODE", help="Where; by default the lab's first worker.")
@click.option("--again", is_flag=True, help="Begin anew: what was made so far is removed.")
def practice_start(paths: LabPaths, name: str, node: str, again: bool) -> None:
    """Make the starting state of exercise NAME and say what is to be done."""
    exercise, at = practice.find(name), _desk(paths)
    node, now = at.start(exercise, node, again=again)
    click.echo(f"day {exercise.day}: {exercise.title}\n{exercise.task}")
    if not now:
        kept = f"it was started already, and what you made is kept; anew: {at.command('start', exercise, ' --again')}"
        click.echo(f"{kept}\n")
    click.echo(f"./lab ssh{at.option} {node}")
    for namespace in exercise.namespaces:
        click.echo(f"  sudo ip netns exec {namespace} bash")
    click.echo(f"{at.command('check', exercise)}\n{at.command('hint', exercise)}")


@practice_.command(name="check")
@lab_option
@click.argument("name")
def practice_check(paths: LabPaths, name: str) -> None:
    """Look at what was made for exercise NAME and grade it; exit code 1 while something is missing."""
    exercise, at = practice.find(name), _desk(paths)
    checked = at.check(exercise, runner.PATIENCE)
    for result in checked.results:
        tick = click.style("✓", fg="green") if result.passed else click.style("✗", fg="red")
        click.echo("\n      ".join([f"  {tick} {result.message}", *result.evidence]))
    total = len(checked.results)
    click.echo(f"{checked.passed} of {total} on {checked.node}", nl=False)
    if checked.passed < total:
        click.echo(f"; a hint: {at.command('hint', exercise)}")
        sys.exit(1)
    click.echo(f": done; {at.command('reset', exercise)} removes it")


@practice_.command(name="hint")
@lab_option
@click.argument("name")
@click.option("--more", is_flag=True, help="All hints.")
def practice_hint(paths: LabPaths, name: str, more: bool) -> None:
    """Give the next hint for exercise NAME; after the last, all of them."""
    exercise = practice.find(name)
    first, end = _desk(paths).hint(exercise, more=more)
    for number in range(first, end):
        label = f"{number + 1}/{len(exercise.hints)} "
        click.echo(click.wrap_text(exercise.hints[number], 100, label, " " * len(label)))


@practice_.command(name="reset")
@lab_option
@click.argument("name")
def practice_reset(paths: LabPaths, name: str) -> None:
    """Remove exercise NAME and all that was made in its namespaces; ends the shells that are open in them."""
    removed = _desk(paths).reset(practice.find(name))
    _print_list(removed, "removed", "there was nothing to remove")


@cli.group(name="fleet")
def fleet_() -> None:
    """Several labs of one spec, one for each student: SPEC is a lab's name, its labs are SPEC-s1, SPEC-s2, ..."""


def _fleet(_context: click.Context, _argument: click.Parameter, name: str) -> fleet.Fleet:
    return fleet.Fleet(_paths(_context, _argument, name).lab)


spec_argument = click.argument("of", metavar="SPEC", callback=_fleet)
parallel_option = click.option(
    "--parallel",
    type=click.IntRange(1, fleet.MOST),
    default=2,
    show_default=True,
    help="How many labs are worked on at once.",
)


@fleet_.command(name="up")
@spec_argument
@click.option("--count", type=click.IntRange(1, fleet.MOST), required=True, metavar="N", help="How many labs.")
@parallel_option
def fleet_up(of: fleet.Fleet, count: int, parallel: int) -> None:
    """Make N labs of SPEC, and a sheet of access data for each; run it again to continue or to apply a change."""
    fleet.up(of, count, parallel, progress())
    _print_fleet(of)
    click.echo(f"sheets    {of.folder}")


@fleet_.command(name="status")
@spec_argument
def fleet_status(of: fleet.Fleet) -> None:
    """Show the labs of SPEC as they are now; exit code 1 when something is down."""
    if not _print_fleet(of):
        sys.exit(1)


@fleet_.command(name="destroy")
@spec_argument
@parallel_option
def fleet_destroy(of: fleet.Fleet, parallel: int) -> None:
    """Remove every lab of SPEC with all that belongs to it."""
    _print_list(fleet.destroy(of, parallel, progress()), "removed", "there was nothing to remove")


def _print_fleet(of: fleet.Fleet) -> bool:
    """The labs of a fleet, a line each; whether all of them are healthy."""
    rows = fleet.status(of)
    table = Table("lab", "network", "machines", "kubernetes", box=None)
    for row in rows:
        table.add_row(row.lab, row.network, row.machines, row.kubernetes)
    if not rows:
        raise LabError(f"there is no fleet of {of.spec!r}", remedy=f"make one: ./lab fleet up {of.spec} --count 3")
    Console().print(table)
    return all(row.healthy for row in rows)


@cli.command()
def version() -> None:
    """Show the versions of hoplab and of what it puts on nodes."""
    click.echo(f"hoplab {__version__}")
    for name, number in sorted(image.component_versions().items()):
        click.echo(f"{name} {number}")


@cli.command()
@click.option("--fast", is_flag=True, help="Lint, types and unit tests only: no virtual machines.")
@click.option("--matrix", is_flag=True, help="Every combination of CNI and proxy mode on real machines: hours.")
def test(fast: bool, matrix: bool) -> None:
    """Lint, types, unit tests, then the system test on real machines."""
    if fast and matrix:
        raise click.UsageError("--fast and --matrix exclude each other: the matrix is nothing but machines")
    sys.exit(testing.run(fast=fast, matrix=matrix))


def _print_changes(changes: Changes, verb: str) -> None:
    doing = [change for change in changes if change.op != "same"]
    for change in doing:
        click.echo(f"  {change.op:<8} {change.type} {change.name}{'  ' + change.detail if change.detail else ''}")
    same = len(changes) - len(doing)
    click.echo(f"{len(doing)} {verb}changed, {same} unchanged")


def _print_list(lines: list[str], done: str, nothing: str) -> None:
    for line in lines:
        click.echo(f"{done} {line}")
    if not lines:
        click.echo(nothing)


def _print_lab(current: state.LabState, changes: Changes, changed: int) -> None:
    """The short table that ends `up`."""
    console = Console()
    table = Table("node", "role", "address", "ssh", box=None)
    option = "" if current.lab == "dev" else f" --lab {current.lab}"
    for node in current.nodes:
        table.add_row(node.name, node.role, node.address, f"./lab ssh{option} {node.name}")
    if current.hosted:
        table.add_row("(this host)", "control-plane", current.gateway, "-")
    console.print()
    console.print(table)
    versions = image.component_versions()
    console.print(
        f"\nkubernetes {versions['kubernetes']}, containerd {versions['containerd']}, accel {current.accel}, "
        f"image {current.image[:12]}"
    )
    console.print(f"kubectl   ./lab kubectl{option} get pods -A")
    console.print(f"verify    ./lab verify{option}")
    resources = sum(change.op != "same" for change in changes)
    console.print(f"changed   {resources} resources, {changed} tasks")
    console.print("took      " + ", ".join(f"{title} {clock(seconds)}" for title, seconds in current.phases))


def main() -> None:
    """Run a verb; a LabError is shown as cause, remedy and log, everything else is a bug and shows its traceback."""
    try:
        cli(standalone_mode=False)
    except LabError as error:
        console = Console(stderr=True, soft_wrap=True)
        console.print(f"[red]error:[/red] {escape(error.message)}")
        if error.remedy:
            console.print(f"  -> {escape(error.remedy)}")
        if error.log:
            console.print(f"  log: {escape(error.log)}")
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; run the same command again to continue", err=True)
        sys.exit(130)
