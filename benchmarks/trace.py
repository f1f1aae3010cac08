"""What `./lab trace` costs beyond its look at the lab, and how many hops it sees, for packets of every kind.

The seconds of a trace contain what the packet itself takes, and the time until every node listens.
"""

from __future__ import annotations

import statistics

import click

from benchmarks.labs import Report, load, results_folder, table
from hoplab.core.paths import LabPaths
from hoplab.devtools.programs import main
from hoplab.trace import needs
from hoplab.verify import live_look
from tests.support.traced_packets import PACKETS, reals, sent

HOPS = 0.95  # of which so many are wanted
OWN_S = 5.0  # wanted of each packet, where the machines do nothing else


@click.command(help=__doc__)
@click.option("--lab", "name", default="dev", show_default=True, help="A running lab with the verification workload.")
@click.option("-n", "number", type=click.IntRange(1), default=1, show_default=True, help="How often each is sent.")
def trace(name: str, number: int) -> int:
    report, paths = Report("trace", results_folder("trace")), LabPaths(name)
    busy = load()
    with live_look.opened(paths, without=needs.others()) as look:
        lab = look()
    rows, seconds, seen, hops, wrong = [], list[float](), 0, 0, 0
    for title, (sender, receiver, options) in PACKETS.items():
        traces = [sent(paths, lab, sender, receiver, **options) for _ in range(number)]
        first = [trace.sent for trace in traces if trace.sent]
        every = [real for trace in traces for real in reals(trace)]
        own = [real.seconds for real in first]
        counts = sum(real.seen for real in every), sum(real.hops for real in every), sum(len(r.wrong) for r in every)
        seconds, seen, hops, wrong = [*seconds, *own], seen + counts[0], hops + counts[1], wrong + counts[2]
        rows.append([title, f"{statistics.median(own):.1f}", f"{counts[0]} of {counts[1]}", str(counts[2])])
        report.say(f"{title}: {', '.join(f'{one:.1f}' for one in own)} s")
    report.say(table([["packet", "seconds", "hops seen", "not as predicted"], *rows]))
    report.say(f"{seen} of {hops} hops seen, {wrong} differences, at most {max(seconds):.1f} s  (load {busy})")
    report.figures = {"seconds": seconds, "seen": seen, "hops": hops, "wrong": wrong}
    report.end()
    return 1 if seen < HOPS * hops or wrong or max(seconds) > OWN_S else 0


if __name__ == "__main__":
    main(trace)
