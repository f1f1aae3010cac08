"""The command line: `./lab VERB`, one module for each group of verbs.

A verb has no logic of its own: it calls hoplab.lab or another package and prints the result. It imports that package
when it runs, so that `./lab --help` and `./lab status` import little.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from hoplab.cli import (
    capture,
    changes,
    checkpoint,
    completion,
    conformance,
    draw,
    learn,
    look,
    maintain,
    make,
    many,
    trace,
)
from hoplab.cli.options import from_checkout, in_namespaces, leaves
from hoplab.core import fs
from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT, cache_dir

SECTIONS = {
    "Make a lab": (*make.VERBS, *checkpoint.VERBS),
    "Look at it": (*look.VERBS, *changes.VERBS, *draw.VERBS, *capture.VERBS, *trace.VERBS),
    "Learn with it": (*learn.VERBS, *conformance.VERBS),
    "Many labs": many.VERBS,
    "Maintain": (*maintain.VERBS, completion.completion),
}
SUMMARY = 100  # characters of a verb's first sentence, which a narrow terminal has on two lines
WITHOUT_CHECKOUT = (  # what works from a wheel, too
    look.compare,
    changes.diff,
    draw.graph,
    trace.trace,
    learn.verify,
    learn.practice,
    maintain.version,
    completion.completion,
)

MAKING = (make.up, make.preview, *leaves(checkpoint.checkpoint), *leaves(many.fleet))  # also where there is no lab yet
IMAGES = (maintain.image_build, maintain.image_prune)  # whatever libvirt a lab has
OUTSIDE = (  # what looks at no machine
    look.uri,
    look.compare,
    maintain.doctor,
    maintain.image_add,
    maintain.image_list,
    *leaves(maintain.pulumi),  # of these `run` enters itself
    maintain.version,
    maintain.test,
    completion.completion,
)


class LabGroup(click.Group):
    """The verbs, listed under the headings of ``SECTIONS``."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for heading, verbs in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [(f"{verb.name:<{width}}", verb.get_short_help_str(SUMMARY)) for verb in verbs if not verb.hidden]
                )


@click.group(
    name="./lab",
    cls=LabGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
def cli() -> None:
    """A multi-node Kubernetes networking lab on virtual machines, as code.

    \b
    ./lab up        make the lab (image, machines, cluster)
    ./lab verify    check on the real hosts what the course says
    ./lab destroy   leave nothing behind
    """


for _verbs in SECTIONS.values():
    for _verb in _verbs:
        for _leaf in leaves(_verb):
            if _leaf not in OUTSIDE:
                in_namespaces(_leaf, makes=_leaf in MAKING + IMAGES, of_lab=_leaf not in IMAGES)
        cli.add_command(_verb if _verb in WITHOUT_CHECKOUT else from_checkout(_verb))


def main() -> None:
    """Run a verb; show a LabError as cause, remedy and log. Any other exception is a bug and shows its traceback."""
    try:
        name = "hoplab" if Path(sys.argv[0]).name == "hoplab" else "./lab"
        cli(standalone_mode=False, prog_name=name, complete_var=completion.VARIABLE, color=_color())
    except LabError as error:
        _print_error(error)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except PermissionError as error:
        found = fs.of_another_user(Path(str(error.filename)), (cache_dir(), PROJECT))
        if found is None:
            raise
        _print_error(found)
        sys.exit(found.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; run the same command again to continue", err=True)
        sys.exit(130)


def _color() -> bool | None:
    """Return False where the user wants no colours (https://no-color.org), None where the terminal decides."""
    return False if os.environ.get("NO_COLOR") else None


def _print_error(error: LabError) -> None:
    click.echo(f"{click.style('error:', fg='red')} {error.whole()}", err=True, color=_color())
