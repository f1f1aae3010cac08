"""A cluster that hoplab did not make under verification: reached by a kubeconfig and an ssh_config or an inventory.

Nothing is created on it without ``traffic``: then lessons are checked on its snapshot alone. With it the workload is
made in a namespace of its own, which is removed when the body ends.

Nodes that do not answer, pods that do not start and an API server that stops are outages, as on a lab. Without the API
server nothing is known of a cluster, not even its nodes: then there is an error alone.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path

from hoplab.cluster.api import Requests, cluster_name, connect_by_kubeconfig
from hoplab.cluster.guarded_api import GuardedApi
from hoplab.core.errors import ClusterError, HostError
from hoplab.core.wait import HOST, slowness
from hoplab.observe import ssh_hosts
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS
from hoplab.observe.facts.api_nodes import API_NODES, ApiNode
from hoplab.observe.facts.api_pods import API_PODS
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from hoplab.observe.ssh import Hosts, NodeUnreachable
from hoplab.observe.ssh_hosts import HostUnreachable, NodeNames
from hoplab.verify import external, foreign_workload, probe, session, workload
from hoplab.verify.discovery import Discovery, Given, discover, provisional
from hoplab.verify.documents import PATHS, Documents
from hoplab.verify.external import ExternalHost
from hoplab.verify.foreign_diagnosis import ForeignDiagnosis
from hoplab.verify.objects import API_TIMEOUT
from hoplab.verify.observations import SETTLE_DEADLINE
from hoplab.verify.partial import PartialLook, served_at
from hoplab.verify.probe import Server
from hoplab.verify.session import LabSession

NEEDED = (API_NODES, API_PODS, API_SERVICES, API_ENDPOINTS)  # what the user of the kubeconfig has to be allowed to list
TOOLS = ("curl", "tcpdump", "conntrack", "dig", "nsenter")  # of the hosts, for lessons with traffic
RIGHTS = "the user of {} has to be allowed to list nodes, pods, services and endpointslices"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"  # label of its nodes
LOOPBACK = IPv4Address("127.0.0.1")


@dataclass(frozen=True)
class Target:
    """How to reach a cluster, and what may be done to it."""

    kubeconfig: Path
    ssh_config: Path | None = None
    inventory: Path | None = None
    traffic: bool = False
    probe_image: str = probe.AGNHOST_IMAGE
    given: Given = field(default_factory=Given)


@contextmanager
def opened(
    target: Target,
    say: Callable[[str], None] = lambda _text: None,
    show: Callable[[str], None] = lambda _text: None,
) -> Iterator[LabSession | Snapshot]:
    """Connect to a cluster, find out what it is, show that, and yield its snapshot; with ``traffic`` a session."""
    with ExitStack() as stack:
        say("reading the cluster's nodes")
        connection = stack.enter_context(connect_by_kubeconfig(target.kubeconfig, timeout_s=API_TIMEOUT))
        api = GuardedApi(connection, remedy=connection.remedy)
        nodes = list_nodes(api, target.kubeconfig)
        say("logging in to the nodes")
        hosts, lost = stack.enter_context(_reached(target, nodes))
        diagnosis = ForeignDiagnosis(api, tuple(node.name for node in nodes if CONTROL_PLANE in dict(node.labels)))
        look = PartialLook(provisional(cluster_name(target.kubeconfig), nodes), versions_of(nodes), hosts, diagnosis)
        for name, error in lost.items():
            look.note_lost(name, NodeUnreachable(error.message, remedy=error.remedy))
        say("looking at the nodes")
        found, seen = look_first(target, look)
        show(found.text)
        if not target.traffic:
            yield session.settled_snapshot(seen, look, api, SETTLE_DEADLINE * slowness())
            return
        say("waiting for the pods of the verification workload")
        yield stack.enter_context(_with_traffic(target, look, connection))


def versions_of(nodes: Iterable[ApiNode]) -> dict[str, str]:
    """Return the versions of a cluster's programs: those of its kubelets."""
    return {"kubernetes": ", ".join(sorted({node.kubelet.removeprefix("v") for node in nodes}))}


def list_nodes(api: Requests, kubeconfig: Path) -> tuple[ApiNode, ...]:
    """Return the nodes of the cluster; raise ClusterError where there is none, or the user may not list them."""
    answer = served_at(api, API_NODES.command)
    if answer.code != 0:
        raise _refused(API_NODES.command, answer, kubeconfig)
    nodes = API_NODES.parse(answer.out)
    if not nodes:
        raise ClusterError(
            f"the cluster of {kubeconfig} has no nodes",
            remedy="`kubectl get nodes` has to show some; is it the right one?",
        )
    return tuple(nodes)


@contextmanager
def _reached(target: Target, nodes: Sequence[ApiNode]) -> Iterator[tuple[Hosts, dict[str, HostUnreachable]]]:
    """Yield the nodes as hosts that commands can be run on as root, and those that cannot be reached."""
    with tempfile.TemporaryDirectory(prefix="hoplab-ssh-") as name:
        folder = Path(name)
        if target.inventory:
            named, given = target.inventory, ssh_hosts.config_of_inventory(target.inventory, folder)
        else:
            assert target.ssh_config, "the command line requires one of both"
            named = given = target.ssh_config
        aliases = ssh_hosts.matched([_names(node) for node in nodes], given, str(named))
        config = ssh_hosts.shared_config(given, folder)
        lost: dict[str, HostUnreachable] = {}
        remedy = f"`ssh -v {{host}}` with {named} shows why not"
        try:
            roots = ssh_hosts.roots(aliases, config, str(named), lost)
            names = [node.name for node in nodes if node.name not in lost]
            with closing(Hosts(names, config, aliases=aliases, roots=roots, remedy=remedy)) as hosts:
                yield hosts, lost
        finally:
            ssh_hosts.close(aliases.values(), config)


def _names(node: ApiNode) -> NodeNames:
    return NodeNames(node.name, tuple(str(address) for address in (node.address, node.address6) if address))


def look_first(target: Target, look: PartialLook) -> tuple[Discovery, Snapshot]:
    """Return what was found out, and the snapshot that it was found out from: one round trip a node."""
    documents = Documents({name: served_at(look.api, path) for name, path in PATHS.items()})
    seen = look()
    for fact in NEEDED:
        answer = seen.api.outputs.get(fact.name)
        if answer is None:
            raise ClusterError(look.api.problem, remedy=look.api.remedy)
        if answer.code != 0:
            raise _refused(fact.command, answer, target.kubeconfig)
    found = discover(seen, documents, target.given)
    look.setting = found.setting
    return found, replace(seen, setting=found.setting)


@contextmanager
def _with_traffic(target: Target, look: PartialLook, connection: Requests) -> Iterator[LabSession]:
    """Make the workload and yield a session in which it runs, or in which its outage is known.

    It is removed by the connection itself, also where the API server has been away meanwhile.
    """
    require_tools(look.hosts)
    program = probe.of_image(target.probe_image)
    address = own_address(next(iter(look.setting.nodes.values())))
    inside = address is not None and address in look.setting.network
    with (
        external.serving(address if inside and address else LOOPBACK, "") as served,
        foreign_workload.running(connection, program, look.note_workload),
    ):
        outside = inside and answers(served, look.hosts)
        if outside and address:
            look.setting = replace(look.setting, gateway=address)  # the client outside whose address lessons expect
        seen = HOST.settled(look, applied, SETTLE_DEADLINE, poll_s=1.0)
        program = replace(program, servers=servers_of(seen))
        yield LabSession(seen, look.hosts, served, look.api, look, probe=program, outside=outside)


def own_address(node: IPv4Address) -> IPv4Address | None:
    """Return the address of this machine from which it sends to a node; None without a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        try:
            sender.connect((str(node), 9))  # sends nothing: the kernel looks the route up
            return IPv4Address(sender.getsockname()[0])
        except OSError:
            return None


def answers(served: ExternalHost, hosts: Hosts) -> bool:
    """Return whether every node gets an answer from this machine."""
    command = f"curl --silent --fail --max-time 5 {served.url('reached')}"
    return all(outputs["it"].code == 0 for outputs in hosts.batches({"it": command}, in_pods={}).values())


def require_tools(hosts: Hosts) -> None:
    """Raise HostError for the first host without a command that lessons with traffic run on it."""
    commands = {tool: f"command -v {tool}" for tool in TOOLS}
    for node, found in hosts.batches(commands, in_pods={}).items():
        if lacking := [tool for tool in TOOLS if found[tool].code != 0]:
            raise HostError(
                f"node {node} lacks {', '.join(lacking)}, which lessons with traffic need",
                remedy="install them there (Debian: curl tcpdump conntrack bind9-dnsutils), or leave out --traffic",
            )


def applied(seen: Snapshot) -> bool:
    """Return whether kube-proxy's rules lead to all endpoints; True where that cannot be known or waited for."""
    return bool(seen.outages) or session.settled(seen)


def servers_of(seen: Snapshot) -> Callable[[], dict[str, Server]]:
    """Return a function that returns the pods of the workload by name."""

    @cache
    def servers() -> dict[str, Server]:
        return {
            pod.name: Server(pod.node, tuple(address for address in (pod.address, pod.address6) if address))
            for pod in seen.api[API_PODS]
            if pod.namespace == workload.NAMESPACE
        }

    return servers


def _refused(path: str, answer: Output, kubeconfig: Path) -> ClusterError:
    return ClusterError(
        f"the API server answers {path} with {answer.code}: {' '.join(answer.err.split())[:200]}",
        remedy=RIGHTS.format(kubeconfig),
    )
