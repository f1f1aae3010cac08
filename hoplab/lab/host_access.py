"""How the host's tools reach a lab: its API on a port of the loopback, a context in a kubeconfig, names for SSH.

``up``, ``start`` and a restored checkpoint open it, ``stop`` ends the process, ``reset`` and ``destroy`` also remove
the context. It is a convenience: where it fails, the lab is whole, and a note says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import yaml

from hoplab.cluster.inventory import ssh_include_text
from hoplab.core import fs
from hoplab.core.errors import ClusterError, LabError
from hoplab.core.paths import LabPaths
from hoplab.lab import kubeconfig, state
from hoplab.lab.api_forward import ApiForward
from hoplab.lab.port_forward import LOOPBACK, Destination
from hoplab.lab.state import LabState

API_PORT = 6443


def url(port: int) -> str:
    """
    >>> url(23456)
    'https://127.0.0.1:23456'
    """
    return f"https://{LOOPBACK}:{port}"


def open_host(lab: LabState, paths: LabPaths, note: Callable[[str], None]) -> LabState:
    """Do what ``open_api`` does, and write the file that ~/.ssh/config includes; return the lab's state."""
    if paths.ssh_config.exists():
        text = ssh_include_text(paths.ssh_config.read_text(), f"hoplab-{paths.lab}-")
        # ssh refuses one that others may write to, and ends where it may not read one: also for a user who is not root
        fs.write(paths.ssh_include, text, mode=0o644)
    return open_api(lab, paths, note)


def open_api(lab: LabState, paths: LabPaths, note: Callable[[str], None]) -> LabState:
    """Forward the API to the loopback and offer the context; save and return the state that says where they are."""
    if not paths.kubeconfig.exists():
        return lab  # its cluster is not made yet, or was reset
    own = paths.kubeconfig.read_text()
    try:
        port = lab.api_port if lab.remote else ApiForward(paths).start(api_server(own), lab.netns, lab.api_port)
    except LabError as error:
        note(f"kubectl of this host does not reach the lab, ./lab kubectl does: {_reason(error)}")
        return lab
    file, context = lab.kubeconfig, ""
    if lab.spec and lab.spec.kubeconfig == "merge":
        wanted = file or str(kubeconfig.users_file(paths))
        try:
            file, context = wanted, kubeconfig.offer(own, paths, url(port), Path(wanted))
        except LabError as error:
            note(f"no context for kubectl: {_reason(error)}")
    elif lab.spec and file:
        _withdraw(paths, [Path(file)], note)
        file = ""
    lab = replace(lab, api_port=port, kubeconfig=file, context=context)
    state.save(lab, paths)
    return lab


def open_way(lab: LabState, paths: LabPaths) -> LabState:
    """Forward the API of a lab whose machines another host runs: all of hoplab takes that way, also to make a cluster.

    Return the state with the port; the lab's own kubeconfig names it. Do nothing for a lab on this host.
    """
    server = next((node for node in lab.nodes if node.role == "control-plane"), None)
    if lab.remote is None or server is None:
        return lab
    port = ApiForward(paths).start(Destination(IPv4Address(server.address), API_PORT), lab.way, lab.api_port)
    if port != lab.api_port:
        if paths.kubeconfig.exists():  # another program has taken the port since
            own = paths.kubeconfig.read_text()
            fs.write(paths.kubeconfig, own.replace(url(lab.api_port), url(port)), mode=0o600)
        lab = replace(lab, api_port=port)
        state.save(lab, paths)
    return lab


def kubeconfig_text(paths: LabPaths) -> str:
    """Return a kubeconfig of the lab alone, for this host's shell; raise ClusterError where no API is forwarded."""
    port = ApiForward(paths).port()
    if not (port and paths.kubeconfig.exists()):
        state.load(paths)  # raises where there is no such lab
        raise ClusterError(
            f"the API of lab {paths.lab!r} is not forwarded to this host",
            remedy=f"./lab start --lab {paths.lab} starts that too",
        )
    return kubeconfig.standalone(paths.kubeconfig.read_text(), paths, url(port))


def api_server(own: str) -> Destination:
    """Return the address of the API server in the lab's own kubeconfig; raise ClusterError where it has none."""
    try:
        server = yaml.safe_load(own)["clusters"][0]["cluster"]["server"]
        found = re.fullmatch(r"https://\[?([^/\]]+?)\]?:(\d+)/?", server)
        assert found
        return Destination(IPv4Address(found[1]), int(found[2]))
    except (yaml.YAMLError, LookupError, TypeError, ValueError, AssertionError):
        raise ClusterError(
            "the lab's own kubeconfig names no API server", remedy="`./lab up` writes it again"
        ) from None


def end_forward(paths: LabPaths) -> list[str]:
    """End the process that forwards the API; return what it was. The context stays, for the next ``start``."""
    return ApiForward(paths).stop()


def close_api(paths: LabPaths, note: Callable[[str], None]) -> list[str]:
    """End the process and remove the context; return what was removed. A kubeconfig that can't be changed is noted."""
    before = state.made_before(paths)
    files = {kubeconfig.users_file(paths), *([Path(before.kubeconfig)] if before and before.kubeconfig else [])}
    return end_forward(paths) + _withdraw(paths, sorted(files), note)


def _withdraw(paths: LabPaths, files: list[Path], note: Callable[[str], None]) -> list[str]:
    removed = []
    for file in files:
        try:
            removed += [f"context {name} of {file}" for name in kubeconfig.withdraw(paths, file)]
        except LabError as error:
            note(f"the context of this lab stays there: {_reason(error)}")
    return removed


def _reason(error: LabError) -> str:
    return error.message + (f" ({error.remedy})" if error.remedy else "")
