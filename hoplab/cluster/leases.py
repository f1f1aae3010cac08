"""The leases by which the control plane's programs elect a leader.

A lab has one control plane. A program that is started again would wait until its own old lease expires: 15 s in which
nothing is scheduled and no endpoint changes.
"""

from __future__ import annotations

from contextlib import suppress

from hoplab.cluster.direct import connect_directly
from hoplab.core.errors import ClusterError
from hoplab.core.paths import LabPaths

ELECTING = ("kube-controller-manager", "kube-scheduler")


def release(paths: LabPaths, netns: str, program: str) -> None:
    """Delete the lease of a program that does not run; do nothing for a program without one."""
    if program in ELECTING:
        with suppress(ClusterError), connect_directly(paths, netns) as api:  # without it the program only waits
            api("DELETE", f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{program}")
