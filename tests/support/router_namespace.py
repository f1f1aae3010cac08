"""A router in the network namespace of this process, between a client and a server in namespaces of their own.

    unshare --net python -m tests.support.router_namespace < cases.json

Each case is a set of rules for the router. It prints what facts of the router's rules say, and which packets of the
client arrive at the server. Everything is gone with the process.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.ipset import IPSET
from hoplab.observe.facts.iptables import IPTABLES
from hoplab.observe.facts.iptables_legacy import IPTABLES_LEGACY
from hoplab.observe.facts.nft_ruleset import NFT_RULESET

CLIENT, SERVER = "10.9.1.2", "10.9.2.2"
PORTS = (53, 80, 8472)
PROGRAMS = {"iptables": "iptables-nft-restore", "legacy": "iptables-legacy-restore", "nft": "nft -f -"}
ARRIVE_S = 0.15  # a packet crosses both pairs while it is sent
NEW_NAMESPACE = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def run(command: str, given: str = "") -> str:
    done = subprocess.run(["sh", "-c", command], input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr}\n{given}")
    return done.stdout


def namespace() -> int:
    """A new network namespace, as a file descriptor; this process stays where it is."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    if _libc.unshare(NEW_NAMESPACE):
        raise SystemExit("cannot make a network namespace")
    made = os.open("/proc/self/ns/net", os.O_RDONLY)
    _libc.setns(here, NEW_NAMESPACE)
    os.close(here)
    return made


@contextmanager
def inside(there: int) -> Iterator[None]:
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    _libc.setns(there, NEW_NAMESPACE)
    try:
        yield
    finally:
        _libc.setns(here, NEW_NAMESPACE)
        os.close(here)


def attached(dev: str, network: str) -> int:
    """A namespace behind an interface of the router; its default route is the router."""
    made = namespace()
    path = f"/proc/{os.getpid()}/fd/{made}"
    run(f"ip link add {dev} type veth peer name eth0 netns {path}; ip address add {network}.1/24 dev {dev}")
    run(f"ip link set {dev} up")
    with inside(made):
        run(f"ip address add {network}.2/24 dev eth0; ip link set eth0 up; ip route add default via {network}.1")
    return made


def tried(case: Mapping[str, str], client: int, servers: list[socket.socket]) -> dict[str, Any]:
    """What the facts say of one case, and which ports the client reaches."""
    run("nft flush ruleset; for table in raw mangle nat filter; do iptables-legacy -t $table -F; done")
    run("for table in raw mangle nat filter; do iptables-legacy -t $table -X; done")
    for kind, program in PROGRAMS.items():
        if case.get(kind):
            run(program, case[kind])
    facts = {fact.name: run(fact.command) for fact in (IPTABLES, IPTABLES_LEGACY, NFT_RULESET, IPSET, ADDRESSES)}
    with inside(client):
        sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for port in PORTS:
        sending.sendto(str(port).encode(), (SERVER, port))
    arrived: set[int] = set()
    while len(arrived) < len(PORTS) and (ready := select.select(servers, [], [], ARRIVE_S)[0]):
        arrived |= {int(server.recv(10)) for server in ready}
    sending.close()
    return {"facts": facts, "arrived": sorted(arrived)}


def main() -> None:
    client, server = attached("c0", "10.9.1"), attached("s0", "10.9.2")
    run("echo 1 >/proc/sys/net/ipv4/ip_forward; ip link set lo up")
    servers = []
    with inside(server):
        for port in PORTS:
            servers.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            servers[-1].bind((SERVER, port))
    if tried({}, client, servers)["arrived"] != list(PORTS):  # also asks for every MAC address
        raise SystemExit("packets do not arrive without any rule")
    json.dump([tried(case, client, servers) for case in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
