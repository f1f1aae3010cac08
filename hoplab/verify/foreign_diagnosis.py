"""Why a part of a cluster that hoplab did not make does not answer: what Kubernetes and the nodes say of it.

There is no hypervisor or console to look at. A control plane is looked at where its parts are static pods of nodes, as
kubeadm makes them; of others nothing is known.
"""

from __future__ import annotations

from dataclasses import dataclass

from hoplab.cluster.guarded_api import GuardedApi
from hoplab.core.wait import Deadline
from hoplab.observe.ssh import Hosts, NodeUnreachable
from hoplab.verify.diagnosis import Component, Evidence, of_static_pod, static_pod


@dataclass(frozen=True)
class ForeignDiagnosis(Evidence):
    """The sources of evidence of one cluster."""

    api: GuardedApi
    homes: tuple[str, ...]  # nodes of the control plane

    def component(self, name: str, hosts: Hosts, deadline: Deadline) -> Component:
        """Return whether a static pod of the control plane runs; nothing is known where it is none."""
        for home in self.homes:
            if home not in hosts.names:
                continue
            try:
                found = hosts.batch(home, static_pod(name), deadline=deadline)
            except NodeUnreachable as error:
                return Component(None, (error.message,))
            if found["manifest"].code == 0:
                return Component(found["process"].code == 0, tuple(of_static_pod(name, home, found)))
        return Component(None, ())
