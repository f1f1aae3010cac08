"""Verbs for the host, the node images, the Pulumi CLI and the project itself."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hoplab import __version__
from hoplab.cli.options import PASS_ON, json_option, lab_option, print_list, print_spec_notice
from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT, LabPaths

if TYPE_CHECKING:
    from hoplab.image.archives import Kept
    from hoplab.spec.catalog import ArchivedImage


@click.command()
@lab_option
@json_option
def doctor(paths: LabPaths, as_json: bool) -> None:
    """Check that this machine can run labs.

    Every fault is printed with its remedy. The exit code is 1 when a lab can't run.
    """
    from hoplab.lab import doctor as lab_doctor

    sys.exit(lab_doctor.report(paths, as_json=as_json))


@click.group()
def image() -> None:
    """Build, list and remove node images; add container images."""


@image.command(name="build")
@lab_option
def image_build(paths: LabPaths) -> None:
    """Build the node image of a lab's spec, or report that it exists."""
    from hoplab.core.console import progress
    from hoplab.lab.context import node_image
    from hoplab.lab.spec_file import load_spec

    screen = progress()
    with screen.phase("node image"):
        _plan, built = node_image(load_spec(paths), paths, screen)
    click.echo(f"{built.digest}  {built.directory}")


@image.command(name="add")
@click.argument("archives", metavar="ARCHIVE...", nargs=-1, required=True, type=click.Path(path_type=Path))
def image_add(archives: tuple[Path, ...]) -> None:
    """Keep archives of container images for the labs that need them.

    An archive is OCI or of `docker save`. These are images that hoplab can't build: Calico, F5's NGINX Ingress
    Controller. Where their registry can be reached, nothing has to be added.
    """
    from hoplab import image as images

    for archive in archives:
        added, left_out = images.add_archive(archive)
        for entry, kept in added:
            click.echo(f"added     {kept.name}  {kept.digest[:19]}  {_origin(entry, kept)}")
        for name in left_out:
            click.echo(f"left out  {name}: no component needs it")
    for component in images.archived_components():
        missing = images.missing_images(component)
        click.echo(f"{component}: " + (f"still missing {', '.join(missing)}" if missing else "complete"))


def _origin(entry: ArchivedImage, kept: Kept) -> str:
    """Return whether an image is upstream's release or was built elsewhere; labs use both."""
    if kept.is_release(entry):
        return "upstream's release"
    return f"built elsewhere: upstream's release is {entry.digest[:19]}"


@image.command(name="list")
def image_list() -> None:
    """List the node images in the cache and the added container images."""
    from hoplab import image as images

    for built in images.list_images():
        versions = built.versions
        click.echo(f"{built.digest}  kubernetes {versions.get('kubernetes', '?')}  {built.directory}")
        for name in built.archives:
            click.echo(f"{'':<{len(built.digest)}}  with {name}")
    for entry, kept in images.list_archives():
        found = (
            f"{kept.digest[:19]}  {_origin(entry, kept)}  {kept.file}"
            if kept
            else "not here; pulled when a lab needs it"
        )
        click.echo(f"{entry.component}  {entry.name}  {found}")


@image.command(name="outdated")
def image_outdated() -> None:
    """List what the node image is made of, beside the newest versions.

    Go modules are those of the table of components; Debian's packages are those of the root file systems in the cache.
    """
    from hoplab import image as images
    from hoplab.core.console import progress

    with progress().phase("newest versions"):
        found, missing = images.versions_and_newest()
    shown = [version for version in found if version.outdated or not version.package]
    width = max(len(version.name) for version in shown)
    for version in shown:
        newest = f"newest {version.newest}{f' ({version.held})' if version.held else ''}"
        click.echo(f"{version.name:<{width}}  {version.here:<10}  {newest if version.outdated else 'is the newest'}")
    packages = [version for version in found if version.package]
    same = sum(not version.outdated for version in packages)
    click.echo(f"Debian: {same} of {len(packages)} packages are the newest")
    for name in missing:
        click.echo(f"Debian: the packages of {name} are not compared, the cache has no such system yet")


@image.command(name="prune")
def image_prune() -> None:
    """Remove the images that no lab of this project and no checkpoint uses."""
    from hoplab import image as images
    from hoplab.lab import state
    from hoplab.lab.checkpoint import store

    used = store.images()
    for folder in (PROJECT / ".lab").glob("*/state.json"):
        used.add(state.load(LabPaths(folder.parent.name)).image)
    print_list(images.prune_images(used), "removed", "every image is in use")


@click.group()
def pulumi() -> None:
    """Install the Pulumi CLI, use it on a lab, hand a lab over to it."""


@pulumi.command(name="install")
@click.option("--home", type=click.Path(path_type=Path), default=Path.home() / ".pulumi", help="Pulumi's own folder.")
def pulumi_install(home: Path) -> None:
    """Fetch the official CLI and libvirt plugin into ~/.pulumi.

    Both are checked against their publishers' checksums.
    """
    from hoplab.core.console import progress
    from hoplab.engine.install import install

    print_list(install(home, progress()), "installed", "both are there already")
    click.echo(f"export PATH={home}/bin:$PATH")


@pulumi.command(name="env")
@lab_option
def pulumi_env(paths: LabPaths) -> None:
    """Print the environment of `pulumi` by hand on the lab.

    Use it as: eval "$(./lab pulumi env)"
    """
    from hoplab.engine import pulumi_cli

    for name, value in pulumi_cli.environment(paths).items():
        click.echo(f"export {name}={shlex.quote(value)}")


@pulumi.command(name="run", context_settings={**PASS_ON, "help_option_names": []})
@lab_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def pulumi_run(paths: LabPaths, arguments: tuple[str, ...]) -> None:
    """Run the Pulumi CLI on the lab: ./lab pulumi run up.

    Its environment is that of `pulumi env`. Without root it has to be run like this, in the namespaces of the lab.
    """
    from hoplab.core import host_network
    from hoplab.engine import pulumi_cli
    from hoplab.lab import rootless

    program = shutil.which("pulumi")
    if program is None:
        raise LabError("there is no Pulumi CLI on PATH", remedy="./lab pulumi install fetches it")
    rootless.enter(paths, makes=True)
    environment = {**os.environ, **pulumi_cli.environment(paths)}
    host_network.run(lambda: os.execve(program, ["pulumi", *arguments], environment))  # its ports are on the loopback


@pulumi.command(name="export")
@lab_option
@click.argument("file", type=click.Path(path_type=Path))
def pulumi_export(paths: LabPaths, file: Path) -> None:
    """Write the engine's state to FILE for `pulumi stack import`.

    It holds secrets.
    """
    from hoplab.core import fs
    from hoplab.lab import lifecycle

    deployment = lifecycle.exported(paths)
    fs.write(file, json.dumps(deployment, indent=2) + "\n", mode=0o600)
    click.echo(f"written {file}; pulumi stack import --file {file} --stack {paths.lab}")


@pulumi.command(name="adopt")
@lab_option
def pulumi_adopt(paths: LabPaths) -> None:
    """Hand a running lab of the embedded engine to the Pulumi CLI.

    Nothing of the lab changes.
    """
    from hoplab.lab import lifecycle

    kept = lifecycle.adopt(paths)
    click.echo(f"the Pulumi CLI has lab {paths.lab} now; the embedded engine's state is kept in {kept}")


@click.command()
def version() -> None:
    """Show the versions of hoplab and of what it installs on nodes."""
    from hoplab import image as images

    click.echo(f"hoplab {__version__}")
    for name, number in sorted(images.component_versions().items()):
        click.echo(f"{name} {number}")
    for minor, versions in images.other_versions().items():
        differing = ", ".join(f"{name} {number}" for name, number in sorted(versions.items()))
        click.echo(f"with lab:kubernetes.version {minor}: {differing}")


@click.command()
@lab_option
@click.option("--check", is_flag=True, help="Write nothing; print what differs, exit code 1.")
@click.option("--figures", "figures_only", is_flag=True, help="Only draw the figures; this needs no lab.")
def pages(paths: LabPaths, check: bool, figures_only: bool) -> None:
    """Record the commands of the learners' pages, draw figures.

    The pages are docs/lessons and docs/days; their commands run on the lab. The figures are drawn from the recordings
    in tests/recordings.
    """
    from hoplab.core.console import progress
    from hoplab.devtools import figures
    from hoplab.devtools import pages as recorded_pages

    old = [f"the figure {file.name} is not what is drawn now" for file in figures.outdated()] if check else []
    drawn = [] if check else figures.write()
    if figures_only:
        print_list(old or drawn, "" if check else "drew", "the figures are up to date")
        sys.exit(1 if old else 0)
    print_spec_notice(paths)
    screen = progress()
    with screen.phase("the learners' pages"):
        found = recorded_pages.run(paths, check=check, say=screen.task)
    if not check:
        print_list(drawn, "drew", "the figures are up to date")
        print_list(found, "recorded", "there are no pages")
    elif found or old:
        click.echo("\n".join([*old, *found]))
        sys.exit(1)


@click.command()
@click.option("--fast", is_flag=True, help="Lint, types and the short unit tests only, no virtual machines.")
@click.option("--matrix", is_flag=True, help="Every combination of CNI and proxy mode on real machines: hours.")
@click.option("--all", "every", is_flag=True, help="Also every fault, exercise and learners' page on the real lab.")
def test(fast: bool, matrix: bool, every: bool) -> None:
    """Run linters, type checks, unit tests and the system test."""
    from hoplab.devtools import testing

    if fast and matrix:
        raise click.UsageError("--fast and --matrix exclude each other: the matrix is nothing but machines")
    if every and (fast or matrix):
        raise click.UsageError("--all is for the usual lab, without --fast and --matrix")
    sys.exit(testing.run(fast=fast, matrix=matrix, every=every))


VERBS = (doctor, image, pulumi, version, pages, test)
