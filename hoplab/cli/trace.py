"""The verb that follows a packet through a lab, or through a recording of one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hoplab.cli.options import file_option, json_option, lab_given, lab_option, print_spec_notice, require_checkout
from hoplab.core.paths import LabPaths

if TYPE_CHECKING:
    from hoplab.trace.model import Trace
    from hoplab.trace.places import Options

VIA = ("nodeport", "ingress", "loadbalancer")
PROTOCOLS = ("tcp", "udp", "icmp")


@click.command()
@lab_option
@click.argument("places", nargs=-1, metavar="FROM TO")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of TO; by default the first one of a service.")
@click.option("--proto", type=click.Choice(PROTOCOLS), default=None, help="By default tcp, or the service port's.")
@click.option("--via", type=click.Choice(VIA), default=None, help="How the packet comes to the service TO.")
@click.option("--ipv6", is_flag=True, help="A packet of IPv6, in a lab that has both families.")
@click.option("--from", "sender", type=click.Choice(["outside"]), help="In place of FROM.")
@file_option("--recording", "Follow it through a recording (of `lab record`), or show one of --record.")
@click.option("--model", is_flag=True, help="Look at the running lab and infer every hop; no packet is sent.")
@file_option("--record", "Write what was seen to FILE; `--recording FILE` shows it again.")
@json_option
@click.option("--svg", "as_svg", is_flag=True, help="A drawing, as SVG.")
def trace(
    paths: LabPaths,
    places: tuple[str, ...],
    port: int | None,
    proto: str | None,
    via: str | None,
    ipv6: bool,
    sender: str | None,
    recording: Path | None,
    model: bool,
    record: Path | None,
    as_json: bool,
    as_svg: bool,
) -> None:
    """Send a packet from FROM to TO, follow it and its reply.

    FROM is a pod, a node, an address or `outside`; TO may also be a service, as NAMESPACE/NAME or NAME, with :PORT. A
    pod may be named by the beginning of its name. An address of IPv6 means --ipv6; with a port it is [ADDRESS]:PORT.
    The exit code is 1 when the packet does not arrive or its reply does not return. Nothing is left on the nodes,
    whichever way it ends.

    \b
    ./lab trace single- hoplab-verify/echo
    ./lab trace outside single --via nodeport --record nodeport.json
    ./lab trace outside single --via nodeport --recording tests/recordings/flannel-vxlan.json
    """
    ends = (sender, *places) if sender else places
    given = lab_given()
    if recording and (given or model or record):
        wrong = "--lab" if given else "--model" if model else "--record"
        raise click.UsageError(f"{wrong} and --recording exclude each other: a recording is always a model of one lab")
    if model and record:
        raise click.UsageError("--model and --record exclude each other: a model is made anew from `lab record`'s file")
    if as_json and as_svg:
        raise click.UsageError("--json and --svg exclude each other")

    from hoplab.trace.live import record as records

    recorded = recording if recording and records.is_trace(recording) else None
    if len(ends) != (0 if recorded else 2):
        what = "a recorded trace has its ends in it" if recorded else "a trace has two ends: FROM TO"
        raise click.UsageError(f"{what}, or --from outside TO" if not recorded else what)

    from hoplab.trace import render, svg

    options: Options = {"port": port, "protocol": proto or "", "via": via or "", "ipv6": ipv6}
    if recorded:
        found = records.load(recorded)
    elif recording:
        from hoplab.observe import recording_format
        from hoplab.trace.follow import follow

        found = follow(recording_format.load(recording), *ends, **options)
    else:
        found = _in_lab(paths, ends, options, model=model, record=record)
    if as_json:
        click.echo(json.dumps(render.as_json(found), indent=2))
    else:
        click.echo(svg.drawing(found) if as_svg else render.text(found), nl=False)
    if record:
        records.save(found, record)
        click.echo(f"wrote {record}", err=True)
    if not found.complete:
        sys.exit(1)


def _in_lab(paths: LabPaths, ends: tuple[str, ...], options: Options, *, model: bool, record: Path | None) -> Trace:
    """Return the trace of a packet in a running lab: predicted, or sent."""
    require_checkout("trace without --recording")
    from hoplab.core import fs
    from hoplab.core.console import progress
    from hoplab.trace.follow import follow
    from hoplab.verify import live_look, live_trace

    print_spec_notice(paths)
    if record:
        fs.check(record)
    screen = progress()
    with screen.phase("looking at the lab" if model else "sending a packet"):
        if model:
            return follow(live_look.look(paths, screen.task), *ends, **options)
        return live_trace.trace(paths, *ends, say=screen.task, **options)


VERBS = (trace,)
