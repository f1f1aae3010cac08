"""Looking at a lab of which parts may not answer: each is waited for within one bound, and its outage is explained.

All nodes are asked at the same time. What did not answer once is not asked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hoplab.cluster.api import Requests
from hoplab.cluster.guarded_api import GuardedApi
from hoplab.core.errors import ClusterError, UnavailableError
from hoplab.core.wait import HOST, Deadline, Timing
from hoplab.expectations.parts import known_parts
from hoplab.observe import snapshot
from hoplab.observe.outage import API, ETCD, WORKLOAD, Outage, in_order
from hoplab.observe.script import Output
from hoplab.observe.setting import Setting
from hoplab.observe.snapshot import Snapshot
from hoplab.observe.ssh import Hosts, NodeUnreachable
from hoplab.verify import workload
from hoplab.verify.diagnosis import Evidence

PATIENCE = 120.0  # seconds of waiting in all for what does not answer, scaled
LEAST = 30.0  # of these, for the nodes: a login to an emulated one takes many seconds
NO_ANSWER = -1  # exit code of an output that the API did not give


class PartialLook:
    """Takes snapshots of a lab, each of the parts that answer."""

    def __init__(
        self,
        setting: Setting,
        versions: Mapping[str, str],
        hosts: Hosts,
        diagnosis: Evidence,
        timing: Timing = HOST,
        *,
        without: frozenset[str] = frozenset(),
    ) -> None:
        """Take looks without the facts of these names."""
        self.hosts = hosts  # those that have answered so far
        self.setting = setting  # of the snapshots to come
        self._versions, self._timing, self._without = versions, timing, without
        self._diagnosis = diagnosis
        self._outages: dict[str, Outage] = {}
        self._before: Snapshot | None = None  # the snapshot taken last
        self._waited = 0.0  # seconds, for pods and nodes without an answer

    @property
    def api(self) -> GuardedApi:
        return self._diagnosis.api

    def ensure_workload(self, options: workload.IngressOptions, *, announced: bool) -> None:
        """Create the workload and wait until it is ready; note an outage where it does not get ready."""
        try:
            workload.ensure(
                self.api, options, announced=announced, timing=self._timing, stall_s=PATIENCE - LEAST - self.api.waited
            )
        except UnavailableError:
            if not self.api.problem:  # it was late once; after the second time it has a problem
                self.ensure_workload(options, announced=announced)
        except ClusterError as error:
            self._waited += getattr(error, "stalled_s", 0.0) / self._timing.slowness()
            if not self.api.problem:
                self.note_workload(error)

    def note_lost(self, name: str, error: NodeUnreachable) -> None:
        """Note the outage of a node that did not answer and is not among the hosts."""
        self._outages[name] = self._diagnosis.of_node(name, error)

    def note_workload(self, error: ClusterError) -> None:
        """Note the outage of a verification workload that is not ready."""
        self._outages[WORKLOAD] = self._diagnosis.of_workload(error)

    def __call__(self) -> Snapshot:
        """Take a snapshot: one round trip for each node, all nodes and the API at once."""
        began, deadline = self._timing.clock(), self._deadline()
        nodes = _Answering(self.hosts, deadline)
        parts = known_parts()
        seen = snapshot.take(
            self.setting, self._versions, nodes, self._read, parts, self._before, without=self._without
        )
        self._before = seen
        if nodes.lost:
            self._waited += self._timing.clock() - began
            self.hosts = self.hosts.only(name for name in self.hosts.names if name not in nodes.lost)
            for name, error in nodes.lost.items():
                self.note_lost(name, error)
        if self.api.problem and not self._api_is_explained:
            for outage in self._diagnosis.of_api(self.hosts, self._deadline()):
                self._outages[outage.place] = outage
        answered = {name: output for name, output in seen.api.outputs.items() if output.code != NO_ANSWER}
        lost = "" if len(answered) == len(seen.api.outputs) else self.api.problem
        return replace(
            seen,
            api=replace(seen.api, outputs=answered, unavailable=lost),
            outages=in_order(self._outages.values(), self.setting.nodes),
        )

    @property
    def _api_is_explained(self) -> bool:
        return API in self._outages or (self.api.cached and ETCD in self._outages)

    def _deadline(self) -> Deadline:
        """Return the bound of the next wait for nodes: what is left of the patience, at least LEAST."""
        return self._timing.deadline(max(LEAST, PATIENCE - self._waited - self.api.waited))

    def _read(self, path: str) -> Output:
        """Return what the API serves at a path; an output with NO_ANSWER without one."""
        try:
            return served_at(self.api, path)
        except UnavailableError as error:
            return Output(NO_ANSWER, "", error.message) if self.api.problem else self._read(path)


def served_at(api: Requests, path: str) -> Output:
    """Return what the API serves at a path, in the form of a command's output."""
    status, text = api.request("GET", path)
    return Output(0, text) if status == 200 else Output(status, "", text)


class _Answering:
    """The nodes that answer; the others are in ``lost`` afterwards."""

    def __init__(self, hosts: Hosts, deadline: Deadline) -> None:
        self._hosts, self._deadline = hosts, deadline
        self.lost: dict[str, NodeUnreachable] = {}

    def batches(self, commands: Mapping[str, str], *, in_pods: Mapping[str, str]) -> dict[str, dict[str, Output]]:
        """Run commands on all nodes, as ``Hosts.batches`` does; return the outputs of those that answer."""
        found: dict[str, dict[str, Output]] = {}
        for name, answer in self._hosts.answers(commands, in_pods=in_pods, deadline=self._deadline).items():
            if isinstance(answer, NodeUnreachable):
                self.lost[name] = answer
            else:
                found[name] = answer
        return found
