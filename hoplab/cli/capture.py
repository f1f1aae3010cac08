"""The verb that captures packets at several places of a running lab."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hoplab.cli.options import lab_option, print_spec_notice, text_table
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths

if TYPE_CHECKING:
    from hoplab.observe.live.places import Place
    from hoplab.observe.live.sinks import Sink

STANDARD_OUTPUT = "-"


class Extras(click.ParamType[frozenset[str]]):
    """Names of a fixed set, separated by commas."""

    name = "places"
    known = ("node", "wire")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[str]:
        if isinstance(value, frozenset):
            return value
        names = [name.strip() for name in str(value).split(",") if name.strip()]
        if unknown := next((name for name in names if name not in self.known), ""):
            self.fail(f"{unknown!r} is none of {', '.join(self.known)}", param, ctx)
        return frozenset(names)


def is_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout.isatty()


@click.command()
@lab_option
@click.argument("targets", nargs=-1, metavar="[POD|NODE][:INTERFACE]...")
@click.option("--filter", "bpf", metavar="BPF", default="", help="Only these packets, in tcpdump's syntax.")
@click.option(
    "--with",
    "extras",
    type=Extras(),
    default=frozenset(),
    metavar="node,wire",
    help="Also where the packets pass: `node` for veth, bridge, tunnels and NIC of the pod's node, `wire` for the "
    "lab network's bridge on this machine.",
)
@click.option(
    "-w",
    "--write",
    metavar="FILE",
    default="",
    help="Write whole packets to FILE as pcapng in place of the lines, or to standard output with `-`.",
)
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N packets.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), metavar="N", help="End after N seconds.")
def capture(
    paths: LabPaths,
    targets: tuple[str, ...],
    bpf: str,
    extras: frozenset[str],
    write: str,
    force: bool,
    count: int | None,
    seconds: float | None,
) -> None:
    """Capture packets of pods and nodes, at several places at once.

    A pod is NAMESPACE/NAME, NAME, or an unambiguous beginning of one. Its interface is eth0 unless another is named,
    and so is a node's. Packets are in the order of time, on this machine's clock. Nothing is left on the nodes,
    whichever way it ends. Exit code 1 when a capture ended early.

    \b
    ./lab capture web-1 worker2:flannel.1                       lines on the screen until Ctrl-C
    ./lab capture default/web-1 --with node,wire -w web.pcapng  each hop of the pod's packets, in one file
    ./lab capture web-1 web-2 --filter 'tcp port 80' -w - | wireshark -k -i -
    """
    from hoplab.core import fs
    from hoplab.lab import captures
    from hoplab.observe.live.places import Target
    from hoplab.observe.live.run import Limits
    from hoplab.observe.live.sinks import PcapngSink, ScreenSink
    from hoplab.observe.live.stop import on_signals

    if not targets and "wire" not in extras:
        raise click.UsageError("name a pod or a node, or give --with wire")
    file = Path(write) if write and write != STANDARD_OUTPUT else None
    if write == STANDARD_OUTPUT and is_terminal():
        raise LabError(
            "a capture file is not for a terminal",
            remedy="pipe it: ./lab capture ... -w - | wireshark -k -i -, or leave -w out for a line a packet",
        )
    if file:
        fs.check(file, force=force)
    print_spec_notice(paths)
    request = captures.Request(
        targets=tuple(Target.parse(target) for target in targets),
        filter=bpf.strip(),
        with_node="node" in extras,
        with_wire="wire" in extras,
        snaplen=captures.WHOLE if write else captures.HEADERS_ONLY,
    )

    def sink_for(places: Sequence[Place]) -> Sink:
        if write:
            return PcapngSink(file or sys.stdout.buffer)
        return ScreenSink(click.echo, [place.short for place in places], sys.stdout)

    def say(text: str) -> None:
        click.echo(text, err=True)

    with on_signals() as stop:
        result = captures.capture(paths, request, sink_for, stop, Limits(count, seconds), say)
    if result.output_closed:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 1)  # Python flushes its standard output when it ends
    rows = [("place", "packets", "dropped")]
    for counted in result.counted:
        dropped = "?" if counted.dropped is None else str(counted.dropped)
        rows.append((counted.place.label, str(counted.packets), dropped))
    click.echo(text_table(rows), err=True)
    if result.late:
        click.echo(f"note: {result.late} packets came too late for their place in the order of time", err=True)
    if file:
        click.echo(f"wrote {file}", err=True)
    if result.lost:
        sys.exit(1)


VERBS = (capture,)
