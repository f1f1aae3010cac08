"""Checks of a spec: between its fields, and against the host."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from ipaddress import IPv4Network
from itertools import combinations

from hoplab.core.errors import SpecIssue
from hoplab.spec.model import (
    FIRST_WORKER,
    MOST_POD_BITS,
    NAME_LENGTH,
    NODE_POD_PREFIX,
    NODE_POD_PREFIX6,
    SERVICE_PREFIXES6,
    Host,
    LabSpec,
    machine_size,
    pool_of,
    taken_addresses,
)
from hoplab.spec.parts import Parts, usable

_PRIVATE_RANGES = tuple(IPv4Network(block) for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))


def name_issues(lab: str, path: str = "name") -> list[SpecIssue]:
    """Return what is wrong with the name of a lab, or of a family of labs, which is at ``path``."""
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", lab):
        hint = "a letter, then letters, digits and dashes, all lower case"
        return [SpecIssue(path, f"{lab!r} is no name for a lab", hint)]
    if len(lab) > NAME_LENGTH:
        return [SpecIssue(path, f"{lab!r} has {len(lab)} characters", f"at most {NAME_LENGTH}")]
    return []


def field_issues(spec: LabSpec, parts: Parts, wrong: Collection[str], given: Collection[str]) -> list[SpecIssue]:
    """Return the issues between fields.

    ``wrong`` has the paths of fields that are wrong in themselves and are left out, ``given`` those that the file has.
    """
    family = name_issues(spec.family, "family") if spec.family else []
    placement = [] if {"libvirt", "controlPlane.placement"} & set(wrong) else placement_issues(spec)
    ranges = _range_issues(spec, parts, wrong, given) + _range6_issues(spec, wrong)
    of_parts = (
        _proxy_issues(spec, parts, wrong)
        + _pool_issues(spec, parts, wrong)
        + _gateway_issues(spec, parts, wrong)
        + _policy_issues(spec, parts, wrong)
    )
    return family + placement + ranges + of_parts


def host_issues(spec: LabSpec, host: Host) -> list[SpecIssue]:
    """Return what this host does not have: enough memory, and ranges that it does not use itself."""
    issues, here = [], host.name or "this host"
    worker = machine_size(spec.worker_size, "worker", spec.accel).memory_mib
    memory = spec.workers * worker
    asked = f"{spec.workers} workers with {worker} MiB each" if spec.workers > 1 else f"a worker with {worker} MiB"
    if spec.control_plane_placement == "vm" or (
        spec.control_plane_placement == "auto" and (spec.accel == "kvm" or spec.remote)
    ):
        control_plane = machine_size(spec.control_plane_size, "control-plane", spec.accel).memory_mib
        memory += control_plane
        asked += f" and a control plane with {control_plane} MiB"
    if memory > host.memory_mib:
        problem = f"{asked} need {memory} MiB, and {here} has {host.memory_mib} MiB"
        issues.append(SpecIssue("nodes", problem, "fewer workers, or less memory for each"))
    if spec.libvirt != "private":  # a private libvirt lives in a network namespace of its own
        ranges = _ranges(spec)
        for path, network in ranges.items():
            if clash := host.clash(network):
                other, by, both = clash
                free = _free_range(network.prefixlen, [*ranges.values(), *host.networks])
                problem = f"{network} overlaps {other}, which {here} uses{f' ({by})' if by else ''}"
                hint = f"a range {'it' if host.name else 'the host'} does not use, for instance {free}"
                issues.append(SpecIssue(path, problem, f"{hint}; or there: {both}" if both else hint))
    return issues


def placement_issues(spec: LabSpec) -> list[SpecIssue]:
    """Return whether the control plane can be where it shall be: beside machines of another host it has to be one."""
    if spec.control_plane_placement != "hosted" or spec.remote is None:
        return []
    problem = f"hosted runs it on this host, which the machines of {spec.remote.name} can't reach"
    return [SpecIssue("controlPlane.placement", problem, "vm or auto: a machine there; or a libvirt of this host")]


def _has_control_plane_vm(spec: LabSpec) -> bool:
    """Return whether a control-plane VM is possible: with `auto` that depends on the host."""
    if spec.control_plane_placement == "auto":
        return spec.accel != "tcg" or spec.remote is not None
    return spec.control_plane_placement == "vm"


def _ranges(spec: LabSpec) -> dict[str, IPv4Network]:
    return {"network": spec.network, "podCIDR": spec.pod_cidr, "serviceCIDR": spec.service_cidr}


def _range_issues(spec: LabSpec, parts: Parts, wrong: Collection[str], given: Collection[str]) -> list[SpecIssue]:
    """Return issues between fields: overlapping ranges, and ranges too small for what has to fit."""
    issues = []
    ranges = {path: network for path, network in _ranges(spec).items() if path not in wrong}
    for one, other in combinations(ranges, 2):
        if ranges[one].overlaps(ranges[other]):
            # named at the later one, unless only the earlier one is in the file
            path, against = (one, other) if one in given and other not in given else (other, one)
            free = _free_range(ranges[path].prefixlen, [network for key, network in ranges.items() if key != path])
            problem = f"{ranges[path]} overlaps {against} {ranges[against]}"
            issues.append(SpecIssue(path, problem, f"ranges that are apart, for instance {free}"))
    if "nodes.workers" not in wrong:
        issues += _small_ranges(spec, parts, ranges)
    if "serviceCIDR" in ranges and not 12 <= spec.service_cidr.prefixlen <= 27:  # the API server's limits
        problem = f"{spec.service_cidr} has a prefix length of {spec.service_cidr.prefixlen}"
        issues.append(SpecIssue("serviceCIDR", problem, "a prefix length from 12 to 27"))
    return issues


def _range6_issues(spec: LabSpec, wrong: Collection[str]) -> list[SpecIssue]:
    """Return issues of IPv6 ranges: they overlap, or Kubernetes does not accept them."""
    if spec.ipv6 is None or any(path.startswith("ipv6") for path in wrong):
        return []
    issues = []
    asked = spec.ipv6
    ranges = {"network": asked.network, "podCIDR": asked.pod_cidr, "serviceCIDR": asked.service_cidr}
    for one, other in combinations(ranges, 2):
        if ranges[one].overlaps(ranges[other]):
            problem = f"{ranges[other]} overlaps {one} {ranges[one]}"
            issues.append(SpecIssue(f"ipv6.{other}", problem, "ranges that are apart; left out, they are"))
    low, high = SERVICE_PREFIXES6
    prefixes = {
        "network": (asked.network, (64, 64)),
        "podCIDR": (asked.pod_cidr, (NODE_POD_PREFIX6 - MOST_POD_BITS, NODE_POD_PREFIX6)),
        "serviceCIDR": (asked.service_cidr, (low, high)),
    }
    for key, (network, (low, high)) in prefixes.items():
        if not low <= network.prefixlen <= high:
            problem = f"{network} has a prefix length of {network.prefixlen}"
            hint = f"a prefix length from {low} to {high}" if low < high else f"a /{low}"
            issues.append(SpecIssue(f"ipv6.{key}", problem, hint))
    most = 2 ** max(NODE_POD_PREFIX6 - asked.pod_cidr.prefixlen, 0)
    nodes = spec.workers + _has_control_plane_vm(spec)
    if "nodes.workers" not in wrong and not issues and nodes > most:
        problem = f"{asked.pod_cidr} is too small for {nodes} nodes, each of which gets a /{NODE_POD_PREFIX6}"
        hint = f"a /{NODE_POD_PREFIX6 - (nodes - 1).bit_length()} or larger"
        issues.append(SpecIssue("ipv6.podCIDR", problem, hint))
    return issues


def _gateway_issues(spec: LabSpec, parts: Parts, wrong: Collection[str]) -> list[SpecIssue]:
    """Return issues of the Gateway API: asked of a controller without it, asked of two, or without addresses."""
    return _ingress_gateway_issues(spec, parts, wrong) + _gateway_controller_issues(spec, wrong)


def _gateway_controller_issues(spec: LabSpec, wrong: Collection[str]) -> list[SpecIssue]:
    """Return an issue where what serves the Gateway API is not alone, or where nothing gives its Gateways addresses."""
    chosen = spec.gateway_controller
    if chosen == "none" or "ingress.gateway" in wrong:
        return []
    if spec.gateway_api:
        problem = f"{chosen} serves the Gateway API, and so does the ingress controller (ingress.gatewayApi)"
        return [SpecIssue("ingress.gateway", problem, "one of them: gatewayApi: false, or gateway: none")]
    if spec.load_balancer == "none" and "loadBalancer.name" not in wrong:
        problem = f"{chosen} makes a service of type LoadBalancer for each Gateway, and nothing gives it an address"
        return [SpecIssue("ingress.gateway", problem, "a load balancer, loadBalancer.name: metallb")]
    return []


def _ingress_gateway_issues(spec: LabSpec, parts: Parts, wrong: Collection[str]) -> list[SpecIssue]:
    able = [name for name, part in parts.ingress.items() if part.gateway_api]
    chosen = spec.ingress_controller
    if not spec.gateway_api or chosen in ("auto", *able) or "ingress.controller" in wrong:
        return []
    problem = "there is no controller to serve it" if chosen == "none" else f"{chosen} does not serve the Gateway API"
    return [SpecIssue("ingress.gatewayApi", problem, f"ingress.controller: {' or '.join(('auto', *able))}, or false")]


def _proxy_issues(spec: LabSpec, parts: Parts, wrong: Collection[str]) -> list[SpecIssue]:
    """Return an issue where a CNI shall do kube-proxy's work that the lab does not have."""
    part = parts.proxy.get(spec.proxy_mode)
    if part is None or part.cni in ("", spec.cni.name) or {"cni.name", "proxy.mode"} & set(wrong):
        return []
    others = ", ".join(name for name in usable(parts.proxy) if not parts.proxy[name].cni)
    problem = f"{part.name} is the work of the CNI {part.cni}, and this lab has {spec.cni.name}"
    return [SpecIssue("proxy.mode", problem, f"one of {others}, or cni.name: {part.cni}")]


def _policy_issues(spec: LabSpec, parts: Parts, wrong: Collection[str]) -> list[SpecIssue]:
    """Return an issue where something else than the CNI shall enforce policies, and the CNI does so itself."""
    cni = parts.cni.get(spec.cni.name)
    if spec.network_policy == "none" or not (cni and cni.enforces_policies) or "cni.name" in wrong:
        return []
    without = " or ".join(name for name in usable(parts.cni) if not parts.cni[name].enforces_policies)
    problem = f"{spec.network_policy} is needless: {cni.name} enforces NetworkPolicies itself"
    return [SpecIssue("networkPolicy", problem, f"none, or cni.name: {without}")]


def _pool_issues(spec: LabSpec, parts: Parts, wrong: Collection[str]) -> list[SpecIssue]:
    """Return issues of the pool: unused, outside the network, or with an assigned address."""
    path, pool = "loadBalancer.pool", spec.load_balancer_pool
    needed = {"network", "nodes.workers", "loadBalancer", "loadBalancer.name", path}
    if needed.intersection(wrong) or _small_ranges(spec, parts, {"network"}):
        return []
    if spec.load_balancer == "none":
        problem = f"{pool} is given, and there is no load balancer"
        names = " or ".join(usable(parts.load_balancer))
        return [SpecIssue(path, problem, f"loadBalancer.name: {names}, or no pool")] if pool else []
    free = pool_of(replace(spec, load_balancer_pool=None))
    if pool is None and free is None:
        problem = f"{spec.network} has no address left for a load balancer"
        return [SpecIssue("network", problem, f"a /{spec.network.prefixlen - 1} or larger, or fewer workers")]
    hint = f"addresses of the lab network that nobody has, for instance {free}"
    if pool and not (pool.first in spec.network and pool.last in spec.network):
        return [SpecIssue(path, f"{pool} is not in network {spec.network}", hint)]
    clash = next(((address, who) for address, who in taken_addresses(spec).items() if pool and address in pool), None)
    return [SpecIssue(path, f"{pool} has {clash[0]}, the address of {clash[1]}", hint)] if clash else []


def _small_ranges(spec: LabSpec, parts: Parts, ranges: Collection[str]) -> list[SpecIssue]:
    issues = []
    highest = FIRST_WORKER + spec.workers - 1
    if "network" in ranges and highest >= spec.network.num_addresses - 1:  # the last address is for broadcast
        problem = f"{spec.network} is too small for {spec.workers} workers (their addresses begin at {FIRST_WORKER})"
        issues.append(SpecIssue("network", problem, f"a /{32 - (highest + 1).bit_length()} or larger"))
    nodes = spec.workers + _has_control_plane_vm(spec)
    if "podCIDR" in ranges:
        most = 2 ** (NODE_POD_PREFIX - spec.pod_cidr.prefixlen) if spec.pod_cidr.prefixlen <= NODE_POD_PREFIX else 0
        if nodes > most:
            problem = f"{spec.pod_cidr} is too small for {nodes} nodes, each of which gets a /{NODE_POD_PREFIX}"
            issues.append(SpecIssue("podCIDR", problem, f"a /{NODE_POD_PREFIX - (nodes - 1).bit_length()} or larger"))
        elif spec.pod_cidr.prefixlen < NODE_POD_PREFIX - 16:
            problem = f"{spec.pod_cidr} is too large for Kubernetes"
            issues.append(SpecIssue("podCIDR", problem, f"a /{NODE_POD_PREFIX - 16} or smaller"))
        elif _has_blocks(spec, parts) and nodes > 2 ** (spec.cni.block_size - spec.pod_cidr.prefixlen):
            problem = f"{spec.pod_cidr} has no /{spec.cni.block_size} for each of {nodes} nodes"
            hint = f"smaller blocks, a /{spec.pod_cidr.prefixlen + (nodes - 1).bit_length()} for instance"
            issues.append(SpecIssue("cni.blockSize", problem, hint))
    return issues


def _has_blocks(spec: LabSpec, parts: Parts) -> bool:
    """Return whether nodes take blocks of the pod range, in place of one range for each node."""
    part = parts.cni.get(spec.cni.name)
    return part is not None and part.block_sizes is not None


def unusable(network: IPv4Network) -> str:
    """Return why no lab can use a range, "" when it can."""
    if network.overlaps(IPv4Network("0.0.0.0/8")) or network.overlaps(IPv4Network("127.0.0.0/8")):
        return "partly or wholly this host itself (0.0.0.0/8, 127.0.0.0/8)"
    if network.overlaps(IPv4Network("169.254.0.0/16")):
        return "link-local"
    if network.overlaps(IPv4Network("224.0.0.0/3")):
        return "multicast or reserved"
    return ""


def _free_range(prefix: int, taken: Collection[IPv4Network]) -> IPv4Network | str:
    """Return the first private range of this size that overlaps none of the others."""
    for block in _PRIVATE_RANGES:
        if prefix < block.prefixlen:
            continue
        start, size = int(block.network_address), 2 ** (32 - prefix)
        while start <= int(block.broadcast_address):
            candidate = IPv4Network((start, prefix))
            clash = next((network for network in taken if network.overlaps(candidate)), None)
            if clash is None:
                return candidate
            start = max(start + size, -(-(int(clash.broadcast_address) + 1) // size) * size)
    return "a smaller one"
