"""The verb that follows a packet through a lab, or through a recording of one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from hoplab.cli.options import file_option, json_option, lab_given, lab_option, print_spec_notice, require_checkout
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths

VIA = ("nodeport", "ingress", "loadbalancer")
PROTOCOLS = ("tcp", "udp", "icmp")


@click.command()
@lab_option
@click.argument("places", nargs=-1, required=True, metavar="FROM TO")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of TO; by default the first one of a service.")
@click.option("--proto", type=click.Choice(PROTOCOLS), default=None, help="By default tcp, or the service port's.")
@click.option("--via", type=click.Choice(VIA), default=None, help="How the packet comes to the service TO.")
@click.option("--from", "sender", type=click.Choice(["outside"]), help="In place of FROM.")
@file_option("--recording", "Follow it through a recording (of `lab record`) in place of a running lab.")
@click.option("--model", is_flag=True, help="Look at the running lab and infer every hop; no packet is sent.")
@json_option
@click.option("--svg", "as_svg", is_flag=True, help="A drawing, as SVG.")
def trace(
    paths: LabPaths,
    places: tuple[str, ...],
    port: int | None,
    proto: str | None,
    via: str | None,
    sender: str | None,
    recording: Path | None,
    model: bool,
    as_json: bool,
    as_svg: bool,
) -> None:
    """Follow a packet from FROM to TO and its reply back.

    FROM is a pod, a node, an address or `outside`; TO may also be a service, as NAMESPACE/NAME or NAME, with :PORT. A
    pod may be named by the beginning of its name. The exit code is 1 when the packet does not arrive or its reply does
    not return.

    \b
    ./lab trace single- hoplab-verify/echo --model
    ./lab trace outside single --via nodeport --recording tests/recordings/flannel-vxlan.json
    """
    ends = (sender, *places) if sender else places
    if len(ends) != 2:
        raise click.UsageError("a trace has two ends: FROM TO, or --from outside TO")
    given = lab_given()
    if recording and (given or model):
        wrong = "--lab" if given else "--model"
        raise click.UsageError(f"{wrong} and --recording exclude each other: a recording is always a model of one lab")
    if as_json and as_svg:
        raise click.UsageError("--json and --svg exclude each other")
    if not recording and not model:
        raise LabError(
            "no real packet is sent yet", remedy="--model looks at the running lab, --recording FILE at a recording"
        )

    from hoplab.observe import recording_format
    from hoplab.trace import render, svg
    from hoplab.trace.follow import follow

    if recording:
        seen = recording_format.load(recording)
    else:
        require_checkout("trace without --recording")
        from hoplab.core.console import progress
        from hoplab.verify import live_look

        print_spec_notice(paths)
        screen = progress()
        with screen.phase("looking at the lab"):
            seen = live_look.look(paths, screen.task)
    found = follow(seen, *ends, port=port, protocol=proto or "", via=via or "")
    if as_json:
        click.echo(json.dumps(render.as_json(found), indent=2))
    else:
        click.echo(svg.drawing(found) if as_svg else render.text(found), nl=False)
    if not found.complete:
        sys.exit(1)


VERBS = (trace,)
