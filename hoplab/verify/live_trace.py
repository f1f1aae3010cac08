"""Send a packet through a running lab and follow it: `./lab trace FROM TO`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Unpack

from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.lab import state
from hoplab.observe.live.clocks import HERE
from hoplab.observe.live.node_stream import on_this_machine, over_ssh
from hoplab.observe.live.run import Unreachable
from hoplab.observe.live.stop import Stop, on_signals
from hoplab.observe.snapshot import Snapshot
from hoplab.observe.ssh import LAB_REMEDY, SSH_FAILED, NodeUnreachable, failure_reason
from hoplab.spec.plan import bridge_name
from hoplab.trace import needs
from hoplab.trace.follow import between
from hoplab.trace.live import run
from hoplab.trace.live.run import Wire
from hoplab.trace.model import Trace
from hoplab.trace.places import Options, ends, names_ipv6
from hoplab.verify import live_look


def trace(
    paths: LabPaths,
    sender: str,
    receiver: str,
    *,
    say: Callable[[str], None] = lambda _text: None,
    **options: Unpack[Options],
) -> Trace:
    """Look at a lab, predict a packet's way, send it, and return the way that it took.

    Raise LabError where an end is unknown or a node cannot be reached, KeyboardInterrupt where a signal comes.
    """
    ipv6 = options.get("ipv6", False) or names_ipv6(sender, receiver)
    with live_look.opened(paths, without=needs.others(ipv6=ipv6)) as look:
        say("looking at the lab")
        lab = look()
    with on_signals() as stop:
        return send(paths, lab, sender, receiver, stop, say=say, **options)


def send(
    paths: LabPaths,
    lab: Snapshot,
    sender: str,
    receiver: str,
    stop: Stop,
    *,
    say: Callable[[str], None] = lambda _text: None,
    **options: Unpack[Options],
) -> Trace:
    """Do the same with what a look has shown before."""
    sent_by, goal = ends(lab, sender, receiver, **options)
    model = between(lab, sent_by, goal)
    made = state.load_summary(paths)
    hosts: Mapping[str, Sequence[str]] = {
        HERE: on_this_machine(),
        **{node.name: over_ssh(node.name, paths.ssh_config) for node in lab.nodes},
    }
    wire = Wire(made.netns, bridge_name(made.id))
    return run.send(lab, model, goal, hosts, wire, _unreachable(paths), stop, say=say)


def _unreachable(paths: LabPaths) -> Unreachable:
    def error(node: str, printed: str, code: int | None) -> LabError:
        why = failure_reason(printed)
        if node == HERE:
            return LabError(f"the trace on this machine ended: {why}", remedy="become root: sudo ./lab trace ...")
        if code not in (None, SSH_FAILED):
            return NodeUnreachable(
                f"{node} can't trace: {why}", remedy=f"python3 has to work there: ./lab ssh {node} sudo python3 -V"
            )
        return NodeUnreachable(
            f"{node} can't be reached over SSH: {why}",
            remedy=LAB_REMEDY.format(config=paths.ssh_config, host=node),
            output=printed,
        )

    return error
