"""Routes from a hosted control plane to the pods.

The API server connects to pods: for webhooks, for ``/proxy`` of pods and services, for aggregated APIs. A control plane
in a machine is a node with routes of its pod network; a hosted one is outside of it. So the ranges of the pods lead to
the machines, each of which forwards what is for a pod of another one. The role writes the routes, one command of ``ip``
a line::

    route replace 10.244.0.0/16 proto 120 nexthop via 192.168.77.20 nexthop via 192.168.77.21

They are in a lab's own network namespace only: on a workstation's own network they could take packets from others.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from hoplab.core.errors import ClusterError
from hoplab.host import netns

PROTOCOL = "120"  # says whose a route is; also in the role's template. rt_protos(5) has no name for it


def apply(file: Path, namespace: str) -> None:
    """Set the routes of the file in the namespace, in place of those of an earlier one; without the file set none.

    Raise ClusterError where ``ip`` refuses one.
    """
    remove(namespace)
    if not file.exists():
        return
    with netns.entered(namespace):
        done = subprocess.run(["ip", "-batch", str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(
            f"the hosted control plane has no way to the pods: {' '.join(done.stderr.split())}",
            remedy="the lab's network has to be up: ./lab status, ./lab up",
            log=str(file),
        )


def remove(namespace: str) -> None:
    """Remove the routes; those that are not there, in a kernel without IPv6 for instance, are no error."""
    with netns.entered(namespace):
        for family in ("-4", "-6"):
            subprocess.run(["ip", family, "route", "flush", "proto", PROTOCOL], capture_output=True, check=False)
