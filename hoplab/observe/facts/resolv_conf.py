"""Which DNS servers a node and its pods ask: resolv.conf of the node and of every pod, and the kubelet's clusterDNS.

The container runtime keeps the resolv.conf that it mounts into a pod beside the pod's host name; the folders are those
of containerd, CRI-O and cri-dockerd. Host names are names of pods, but for pods in the node's network namespace.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hoplab.observe.facts import Fact

NODE = "/etc/resolv.conf"
RESOLVED = "/run/systemd/resolve/resolv.conf"  # the servers that systemd-resolved asks, where NODE names itself
SANDBOXES = (
    "/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/*",
    "/run/containers/storage/overlay-containers/*/userdata",
    "/var/lib/docker/containers/*",
)
KUBELET_CONFIG = "/var/lib/kubelet/config.yaml"


@dataclass(frozen=True)
class ResolvConf:
    """One resolv.conf."""

    nameservers: tuple[str, ...]
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resolvers:
    """Everything that decides whom a node and its pods ask."""

    node: ResolvConf
    resolved: ResolvConf | None  # of systemd-resolved; None where it does not run
    pods: Mapping[str, tuple[ResolvConf, ...]]  # by host name; several where old sandboxes of a pod are still there
    cluster_dns: tuple[str, ...]  # of the kubelet's configuration; empty where that is elsewhere


_LINE = re.compile(r"(/[^:]*)/(resolv\.conf|hostname):(.*)")
_ADDRESS = re.compile(r"[0-9a-fA-F:.]*[.:][0-9a-fA-F:.]+")


def parse(text: str) -> Resolvers:
    """Parse lines of files, ``/etc/resolv.conf:nameserver 10.0.2.3``, then the kubelet's clusterDNS."""
    files: dict[tuple[str, str], list[str]] = {}
    kubelet = []
    for line in text.splitlines():
        if found := _LINE.fullmatch(line):
            files.setdefault((found[1], found[2]), []).append(found[3])
        else:
            kubelet.append(line)
    read = {folder: _resolv_conf(lines) for (folder, name), lines in files.items() if name == "resolv.conf"}
    pods: dict[str, tuple[ResolvConf, ...]] = {}
    for (folder, name), lines in files.items():
        if name == "hostname" and folder in read:
            pods[lines[0].strip()] = (*pods.get(lines[0].strip(), ()), read[folder])
    return Resolvers(
        node=read.get(NODE.rpartition("/")[0], ResolvConf(())),
        resolved=read.get(RESOLVED.rpartition("/")[0]),
        pods=pods,
        cluster_dns=tuple(_cluster_dns(kubelet)),
    )


def _resolv_conf(lines: Iterable[str]) -> ResolvConf:
    """Return a file as resolv.conf(5) has it: of several lines with search the last one applies."""
    words = [line.split() for line in lines if line.strip() and line.strip()[0] not in "#;"]
    search = [tuple(rest) for keyword, *rest in words if keyword in ("search", "domain")]
    return ResolvConf(
        nameservers=tuple(rest[0] for keyword, *rest in words if keyword == "nameserver" and rest),
        search=search[-1] if search else (),
        options=tuple(option for keyword, *rest in words if keyword == "options" for option in rest),
    )


def _cluster_dns(lines: Iterable[str]) -> Iterable[str]:
    """Yield the addresses of a list in YAML: one a line after a dash, or all in brackets."""
    inside = False
    for line in lines:
        inside = line.startswith("clusterDNS:") or (inside and line.lstrip().startswith("-"))
        if inside:
            yield from _ADDRESS.findall(line.removeprefix("clusterDNS:"))


_FILES = " ".join(
    (NODE, RESOLVED, *(f"{folder}/{name}" for folder in SANDBOXES for name in ("hostname", "resolv.conf")))
)
# Only this list of the kubelet's configuration is read: headers of staticPodURL may be secrets.
RESOLV_CONF = Fact(
    "resolv_conf",
    f"grep -sH '' {_FILES}; sed -n '/^clusterDNS:/,/^[^ -]/p' {KUBELET_CONFIG} 2>/dev/null || true",
    parse,
)
