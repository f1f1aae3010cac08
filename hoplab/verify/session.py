"""A running lab under verification: its snapshot, traffic in it, and objects that lessons create or change.

with opened(paths) as session:
    session.snapshot                     # for read-only lessons
    session.request(pod, url)            # one request from inside a pod, with what the node saw of it
    session.created(path, body)          # an object of Kubernetes, for as long as the with block
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from hoplab import image
from hoplab.cluster.api import Requests, connect
from hoplab.cluster.guarded_api import GuardedApi
from hoplab.core.errors import LabError, UnavailableError
from hoplab.core.paths import LabPaths
from hoplab.core.wait import HOST, Timing, slowness
from hoplab.expectations import cni, proxy
from hoplab.expectations.proxy import ServiceExpectation
from hoplab.expectations.registry import UnknownPart
from hoplab.lab import state
from hoplab.observe.cilium_maps import CiliumMaps
from hoplab.observe.facts import CommandMissing
from hoplab.observe.facts.fdb import FDB
from hoplab.observe.facts.neighbours import NEIGHBOURS
from hoplab.observe.facts.routes import ROUTES
from hoplab.observe.outage import API, ETCD
from hoplab.observe.snapshot import Node, Snapshot
from hoplab.observe.ssh import Hosts
from hoplab.pki.certificates import ensure_certificates
from hoplab.verify import external, observations, workload
from hoplab.verify.diagnosis import Diagnosis
from hoplab.verify.objects import API_TIMEOUT
from hoplab.verify.partial import PATIENCE, PartialLook
from hoplab.verify.scaling import Scalings


@dataclass(frozen=True)
class LabSession(Scalings):
    """The running lab, for lessons with traffic: observations, requests, and objects to change."""


@contextmanager
def opened(paths: LabPaths, say: Callable[[str], None] = lambda _text: None) -> Iterator[LabSession]:
    """Connect to a running lab, create the verification workload unless it exists, and take a snapshot."""
    lab = state.load(paths)
    setting = state.built_setting(lab, paths)
    versions = {**image.versions_of(lab.image), "image": lab.image[:12], "accel": lab.accel}
    options = workload.options(setting, ensure_certificates(paths, workload.SITES))
    with ExitStack() as stack:
        api = GuardedApi(stack.enter_context(connect(paths, lab.netns, timeout_s=API_TIMEOUT)))
        hosts = Hosts([node.name for node in lab.nodes], paths.ssh_config)
        stack.callback(hosts.close)
        served = stack.enter_context(external.serving(setting.gateway, lab.netns, remote=lab.remote))
        served6 = None
        if setting.gateway6:
            served6 = stack.enter_context(external.serving(setting.gateway6, lab.netns, remote=lab.remote))
        say("waiting for the pods of the verification workload")
        look = PartialLook(setting, versions, hosts, Diagnosis(lab, paths, api))
        look.ensure_workload(options, announced=setting.load_balancer != "none")
        say("looking at the nodes")
        seen = settled_snapshot(look(), look, api, observations.SETTLE_DEADLINE * slowness())
        found = LabSession(seen, look.hosts, served, api, look, served6, paths.ca)
        stack.callback(found.settle)
        yield found


def settled_snapshot(
    seen: Snapshot, look: Callable[[], Snapshot], api: Requests, patience: float, timing: Timing = HOST
) -> Snapshot:
    """Return a snapshot that shows the most recent changes of pods applied on all nodes: ``seen``, or a later look.

    When no pod has changed for ``patience`` seconds, return the last snapshot: the lessons report missing rules. A
    lab with outages has PATIENCE seconds in all, scaled; without the API or etcd no change is waited for.
    """
    bound = timing.deadline(PATIENCE)
    while True:
        if seen.outage(API) or seen.outage(ETCD) or not seen.node_facts or settled(seen):
            return seen
        if seen.outages and not bound.left():
            return seen
        try:
            pods = api.read("/api/v1/pods")["items"]
        except UnavailableError:
            return look()
        if seconds_since_change(pods, datetime.now(UTC)) > patience:
            return seen
        time.sleep(1)
        seen = look()


def seconds_since_change(pods: Iterable[Mapping[str, Any]], now: datetime) -> float:
    """Return the seconds since a pod last became ready or ceased to be; infinity when none did."""
    changes = [
        datetime.fromisoformat(condition["lastTransitionTime"])
        for pod in pods
        for condition in pod.get("status", {}).get("conditions", ())
        if condition["type"] == "Ready" and condition.get("lastTransitionTime")
    ]
    return min(((now - change).total_seconds() for change in changes), default=float("inf"))


def settled(seen: Snapshot) -> bool:
    """Return whether kube-proxy and the CNI have applied every endpoint and node; True where that cannot be known."""
    try:
        return _leads_everywhere(seen) and _reaches_everywhere(seen)
    except (UnknownPart, CommandMissing, UnavailableError):  # of a cluster that hoplab did not make, or a hurt one
        return True
    except LabError:  # a node has not announced itself through the API yet
        return False


def _reaches_everywhere(seen: Snapshot) -> bool:
    """Return whether every node has the routes, neighbours and FDB entries of every other one."""
    return all(
        all(any(route.met_by(found) for found in facts[ROUTES]) for route in expected.routes)
        and all(any(neighbour.met_by(found) for found in facts[NEIGHBOURS]) for neighbour in expected.neighbours)
        and all(any(entry.met_by(found) for found in facts[FDB]) for entry in expected.fdb)
        for facts, expected in ((seen.node_facts[name], it) for name, it in cni.expectations(seen).items())
    )


def _leads_everywhere(seen: Snapshot) -> bool:
    """Return whether every node leads a service to every ready endpoint."""
    clients: list[tuple[IPv4Address | IPv6Address, tuple[ServiceExpectation, ...]]] = [
        (seen.setting.pod_cidr[-2], proxy.expectations(seen))
    ]
    if seen.setting.ipv6:
        clients.append((seen.setting.ipv6.pod_cidr[-2], proxy.expectations6(seen)))
    return all(
        {endpoint.to for endpoint in service.on(node.name).endpoints} <= found
        for node in seen.nodes
        for client, services in clients
        for service in services
        for found in _targets(seen, node, client, service)
    )


def _targets(
    seen: Snapshot, node: Node, client: IPv4Address | IPv6Address, service: ServiceExpectation
) -> Iterator[Set[str]]:
    """Yield where a service leads by the rules of a node, and by the map of Cilium, which may be alone there."""
    if seen.setting.has_kube_proxy:
        yield proxy.targets(node, client, service)
    if cni.by_programs(seen):
        at = CiliumMaps(node.facts).frontend(service.cluster_ip, service.port, service.protocol, inside=True)
        yield {backend.to for backend in at.backends} if at else set()
