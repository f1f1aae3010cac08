"""The present state of a lab. It is a module of its own because it needs neither Pulumi nor Ansible."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

from hoplab.cluster.direct import connect_directly
from hoplab.cluster.readiness import node_row
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.host import machines
from hoplab.host.libvirtd import PrivateLibvirt
from hoplab.lab import state
from hoplab.lab.clocks import clock_of

LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
# A kubelet writes its node's time into its lease every 10 s. A node whose lease stands still is not Ready after 50 s,
# so a Ready node with an older time has a clock that is behind.
LEASE_AGE_S = 60
AHEAD_S = 5


def clock_skews(leases: list[dict[str, Any]], now: datetime) -> dict[str, int]:
    """Return by how many seconds, at least, the clocks of nodes are ahead (or, below 0, behind), if they are Ready.

    Clocks that may agree are left out.
    """
    found = {}
    for lease in leases:
        renewed = lease.get("spec", {}).get("renewTime")
        if not renewed:
            continue
        ahead = (datetime.fromisoformat(renewed) - now).total_seconds()
        if ahead > AHEAD_S:
            found[lease["metadata"]["name"]] = int(ahead)
        elif ahead < -LEASE_AGE_S:
            found[lease["metadata"]["name"]] = int(ahead + LEASE_AGE_S)
    return found


def status(paths: LabPaths) -> dict[str, Any]:
    """Return the machines in libvirt and the nodes in Kubernetes: the object of ``lab status --json``."""
    lab = state.load_summary(paths)
    private = PrivateLibvirt(paths)
    running = not lab.netns or private.running()
    domains = machines.domain_states(lab.libvirt_uri) if running else {}
    api, nodes, skews = "unreachable", {}, {}
    if running:
        with contextlib.suppress(LabError), connect_directly(paths, lab.netns) as kubernetes:
            objects = kubernetes.read("/api/v1/nodes")["items"]
            nodes = {row.name: row for row in map(node_row, objects)}
            api = "ready"
            now = datetime.fromtimestamp(clock_of(lab)(), UTC)
            skews = clock_skews(kubernetes.read(LEASES)["items"], now)
    rows = []
    for node in lab.nodes:
        seen = nodes.get(node.name)
        rows.append(
            {
                "name": node.name,
                "role": node.role,
                "address": node.address,
                "machine": domains.get(machines.domain_name(lab.id, node.name), "absent" if running else "stopped"),
                "ready": seen.ready if seen else None,
                "kubelet": seen.version if seen else None,
                "podCIDR": seen.pod_cidr if seen else None,
                "clock": skews.get(node.name, 0) if seen and seen.ready else None,
            }
        )
    healthy = api == "ready" and all(row["machine"] == "running" and row["ready"] for row in rows)
    return {
        "lab": lab.lab,
        "id": lab.id,
        "healthy": healthy,
        "accel": lab.accel,
        "placement": lab.placement,
        "api": api,
        "libvirt": lab.libvirt_uri if running else "stopped",
        "image": lab.image,
        "nodes": rows,
    }
