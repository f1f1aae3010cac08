"""`./lab capture`: packets of pods, nodes and the lab network, at several places at once.

The API names the pods, a relay on each node finds their namespaces, and tcpdump captures there. What a node sends comes
over one SSH session, which uses the lab's shared connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from hoplab.cluster.direct import connect_directly
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.lab import state
from hoplab.lab.api_facts import read_fact
from hoplab.observe.facts.api_pods import API_PODS
from hoplab.observe.live import places
from hoplab.observe.live.clocks import HERE
from hoplab.observe.live.node_stream import on_this_machine, over_ssh
from hoplab.observe.live.places import Place, Target, Wanted
from hoplab.observe.live.run import Limits, Relays, Result, Run, Unreachable
from hoplab.observe.live.sinks import Sink
from hoplab.observe.live.stop import Stop
from hoplab.spec.plan import bridge_name

HEADERS_ONLY, WHOLE = 256, 262_144  # bytes of a packet: for the screen, with the headers in VXLAN; for a file


@dataclass(frozen=True)
class Request:
    """What to capture, as it was asked for."""

    targets: tuple[Target, ...]
    filter: str = ""  # of tcpdump, for every place
    with_node: bool = False  # the interfaces of its node that a pod's packets cross
    with_wire: bool = False  # the bridge of the lab network, on this machine
    snaplen: int = HEADERS_ONLY


def capture(
    paths: LabPaths,
    request: Request,
    sink_for: Callable[[Sequence[Place]], Sink],
    stop: Stop,
    limits: Limits = Limits(),  # noqa: B008 -- frozen
    say: Callable[[str], None] = lambda _text: None,
) -> Result:
    """Capture until a limit or a signal; ``say`` gets a line when all captures run, and for each that ends early.

    Raise LabError where a pod, node or interface is not there, a node can't be reached, or tcpdump refuses something.
    """
    lab = state.load_summary(paths)
    wanted = _resolved(paths, lab, request.targets)
    if request.with_wire and lab.remote:
        raise LabError(
            f"the wire of lab {paths.lab!r} is on {lab.remote.name}, where no capture can be made from here",
            remedy=f"capture there: sudo tcpdump -ni {bridge_name(lab.id)}; --with node works from here",
        )
    wire = Place(HERE, lab.netns, bridge_name(lab.id), f"wire {bridge_name(lab.id)}", f"wire {bridge_name(lab.id)}")
    hosts = {one.node: over_ssh(one.node, paths.ssh_config) for one in wanted}
    if request.with_wire:
        hosts[HERE] = on_this_machine()
    addresses: dict[str, list[str]] = {}
    for one in wanted:
        if one.address:
            addresses.setdefault(one.node, []).append(places.hex_of(one.address))
    with Relays(hosts, _unreachable(paths), stop) as relays:
        found = relays.look(addresses, links=request.with_node)
        spread = places.spread(wanted, found, with_node=request.with_node, wire=wire if request.with_wire else None)
        with closing(sink_for(spread)) as sink:
            run = Run(relays, spread, sink, stop, {node.name: node.mac for node in lab.nodes})
            run.start(places.commands(spread, found, request.filter, request.snaplen))
            say(f"capturing at {len(spread)} place{'s' if len(spread) != 1 else ''}; Ctrl-C ends it")
            return run.until_stopped(limits, say)


def _resolved(paths: LabPaths, lab: state.LabSummary, targets: Sequence[Target]) -> tuple[Wanted, ...]:
    """Return what the targets are; the API is asked only where one of them is no node."""
    nodes = [node.name for node in lab.nodes]
    if not places.needs_pods(targets, nodes):
        return places.resolve(targets, nodes, ())
    with connect_directly(paths, lab.netns) as api:
        pods = read_fact(api, API_PODS)
    return places.resolve(targets, nodes, pods)


def _unreachable(paths: LabPaths) -> Unreachable:
    def error(node: str, printed: str, code: int | None) -> LabError:
        # testinfra takes time to load, and is needed for nothing else here
        from hoplab.observe.ssh import LAB_REMEDY, SSH_FAILED, NodeUnreachable, failure_reason  # noqa: PLC0415

        why = failure_reason(printed)
        if node == HERE:
            return LabError(f"the capture on this machine ended: {why}", remedy="run `sudo tcpdump` here")
        if code not in (None, SSH_FAILED):
            return NodeUnreachable(
                f"{node} can't capture: {why}", remedy=f"python3 and tcpdump have to work there: ./lab ssh {node}"
            )
        return NodeUnreachable(
            f"{node} can't be reached over SSH: {why}",
            remedy=LAB_REMEDY.format(config=paths.ssh_config, host=node),
            output=printed,
        )

    return error
