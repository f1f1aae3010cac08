"""Two nodes with a pod each and the lab network between them, as network namespaces of this machine.

    wire         hlXXXXXXXX, a bridge, 192.168.77.1
    node1        eth0 192.168.77.20, flannel.1, cni0, veth1       pod1  eth0 10.244.0.5
    node2        eth0 192.168.77.21, flannel.1, veth1             pod2  eth0 10.244.1.5

With both families also fd00:77::1, ::20 and ::21, flannel-v6.1, and pods fd00:244::5 and fd00:244:0:1::5. Without IPv6
nothing but the packets of a test travels there.

``ssh`` and ``sudo`` are programs that run a command in the namespace of a node. Like that of a real SSH session, it
outlives its ``ssh``, which only carries what it reads and writes. It sees the named namespaces of this network alone:
another one of the same addresses may be there, made by another process of the tests or left by one that was killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from hoplab.host import netns
from hoplab.spec.plan import bridge_name
from tests.support.labs import MADE

BRIDGE = bridge_name(MADE.id)
SSH = """#!/bin/sh
while [ $# -gt 2 ]; do shift; done
{fails}
export SSH_CONNECTION="192.168.77.1 40112 192.168.77.20 22"
echo $$ >{folder}/$1.pid
cat | setsid nsenter --net=/run/netns/{prefix}$1 unshare --mount sh {folder}/login "$2" | cat
"""
LOGIN = """#!/bin/sh
set -e
mount -t tmpfs hoplab {folder}/netns
for namespace in /run/netns/*{prefix}*; do
    touch {folder}/netns/${namespace##*/}
    mount --bind $namespace {folder}/netns/${namespace##*/}
done
mount --rbind {folder}/netns /run/netns
exec sh -c "$1"
"""
_NUMBERS = count(1)


def lacking() -> str:
    """Return what this machine lacks to make such a network; "" where it lacks nothing."""
    missing = [] if os.geteuid() == 0 else ["root"]
    tools = ("ip", "tcpdump", "nsenter", "unshare", "setsid")
    return ", ".join(
        [*missing, *(tool for tool in tools if shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin") is None)]
    )


@dataclass(frozen=True)
class Network:
    """The namespaces of the network, by what they stand for."""

    folder: Path  # with the programs ssh and sudo
    prefix: str
    pods: tuple[str, str]

    @property
    def wire(self) -> str:
        return f"{self.prefix}wire"

    def names(self) -> list[str]:
        return [self.wire, f"{self.prefix}worker1", f"{self.prefix}worker2", *self.pods]

    def ping(self) -> None:
        """Send an ICMP echo request of 64 bytes from one pod to the other, and receive its answer."""
        body = struct.pack("!HH", os.getpid() & 0xFFFF, 1) + bytes(56)
        sum_ = 0x0800 + sum(struct.unpack(f"!{len(body) // 2}H", body))
        checksum = ~((sum_ & 0xFFFF) + (sum_ >> 16)) & 0xFFFF
        with netns.entered(self.pods[0]):
            sending = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        with sending:
            sending.settimeout(30)
            sending.sendto(struct.pack("!BBH", 8, 0, checksum) + body, ("10.244.1.5", 0))
            while sending.recv(100)[20] != 0:
                pass  # not the answer

    def ping6(self) -> None:
        """Do the same by ICMPv6, whose checksum the kernel computes; neighbours are found meanwhile."""
        with netns.entered(self.pods[0]):
            sending = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        with sending:
            sending.settimeout(30)
            sending.sendto(struct.pack("!BBHHH", 128, 0, 0, 1, 1) + bytes(56), ("fd00:244:0:1::5", 0))
            while sending.recv(100)[0] != 129:
                pass  # not the answer

    def captures(self) -> list[int]:
        """Return the ids of processes that are in the namespaces."""
        return [pid for name in self.names() for pid in netns.processes(name)]

    def api(self) -> dict[str, Any]:
        """Return the list of pods, as the API has it: one on each node, and others that can't be captured."""
        pods = [
            _pod("default", "web-1", "worker1", "10.244.0.5"),
            _pod("default", "web-2", "worker2", "10.244.1.5"),
            _pod("shop", "web-1", "worker2", "10.244.1.9"),
            _pod("kube-system", "kube-proxy-x", "worker1", "192.168.77.20", hostNetwork=True),
            _pod("default", "pending", "worker1", "", phase="Pending"),
        ]
        return {"items": pods}

    def ip(self, node: str, line: str) -> None:
        """Change the interfaces of a node."""
        _ip(f"{self.prefix}{node}", line)

    def cut(self, node: str) -> None:
        """End the SSH session of a node from outside."""
        os.killpg(int((self.folder / f"{node}.pid").read_text()), signal.SIGKILL)

    def accept(self) -> None:
        """Let every login succeed from now on."""
        self._write_ssh("")

    def refuse(self, says: str, code: int = 255) -> None:
        """Let no login succeed from now on."""
        self._write_ssh(f"echo '{says}' >&2; exit {code}")

    def _write_ssh(self, fails: str) -> None:
        (self.folder / "netns").mkdir(exist_ok=True)
        for name, content in (("ssh", SSH), ("login", LOGIN), ("sudo", '#!/bin/sh\nexec "$@"\n')):
            text = content.replace("{folder}", str(self.folder)).replace("{prefix}", self.prefix)
            (self.folder / name).write_text(text.replace("{fails}", fails))
            (self.folder / name).chmod(0o755)


def _pod(namespace: str, name: str, node: str, address: str, phase: str = "Running", **spec: Any) -> dict[str, Any]:
    status = {"phase": phase, **({"podIP": address, "podIPs": [{"ip": address}]} if address else {})}
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"nodeName": node, "containers": [], **spec},
        "status": status,
    }


@contextmanager
def made(folder: Path, *, ipv6: bool = False) -> Iterator[Network]:
    """Make the network, with both families where that is asked for, and remove it at the end."""
    prefix = f"hoplab-live{os.getpid()}-{next(_NUMBERS)}-"
    network = Network(folder, prefix, (f"cni-{prefix}1", f"cni-{prefix}2"))
    network.accept()
    try:
        for name in network.names():
            netns.create(name)
            with netns.entered(name):
                for which in ("all", "default"):
                    Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("0" if ipv6 else "1")
                    Path(f"/proc/sys/net/ipv6/conf/{which}/accept_dad").write_text("0")  # an address is there at once
        _ip(
            network.wire,
            f"link add {BRIDGE} type bridge",
            f"link set {BRIDGE} up",
            f"address add 192.168.77.1/24 dev {BRIDGE}",
        )
        for number, pod in enumerate(network.pods):
            node, other = f"{prefix}worker{number + 1}", 1 - number
            _ip(
                network.wire,
                f"link add port{number} master {BRIDGE} up type veth peer name eth0 netns {node}",
            )
            bridge = ("link add cni0 up type bridge",) if number == 0 else ()
            _ip(
                node,
                f"address add 192.168.77.{20 + number}/24 dev eth0",
                f"link set eth0 address {MADE.nodes[number].mac} up",
                f"link add flannel.1 up type vxlan id 1 dstport 8472 local 192.168.77.{20 + number} "
                f"remote 192.168.77.{20 + other} dev eth0",
                *bridge,
                f"link add veth1 up {'master cni0' if bridge else ''} type veth peer name eth0 netns {pod}",
                f"address add 10.244.{number}.1/24 dev {'cni0' if bridge else 'veth1'}",
                f"address add 10.244.{number}.0/32 dev flannel.1",
                f"route add 10.244.{other}.0/24 via 10.244.{other}.0 dev flannel.1 onlink",
            )
            _ip(
                pod,
                f"address add 10.244.{number}.5/24 dev eth0",
                "link set eth0 up",
                f"route add default via 10.244.{number}.1",
            )
        if ipv6:
            _add_ipv6(network)
            network.ping6()
        network.ping()  # so that no ARP is needed
        yield network
    finally:
        for name in network.names():
            netns.end_processes(name)
            netns.delete(name)


def _add_ipv6(network: Network) -> None:
    """Give the network the second family, as flannel does: a tunnel of its own, in packets of IPv6."""
    _ip(network.wire, f"address add fd00:77::1/64 dev {BRIDGE}")
    for number, pod in enumerate(network.pods):
        other = 1 - number
        _ip(
            f"{network.prefix}worker{number + 1}",
            f"address add fd00:77::{20 + number}/64 dev eth0",
            f"link add flannel-v6.1 up type vxlan id 1 dstport 8472 local fd00:77::{20 + number} "
            f"remote fd00:77::{20 + other} dev eth0",
            f"address add fd00:244:0:{number}::1/64 dev {'veth1' if number else 'cni0'}",
            f"address add fd00:244:0:{number}::/128 dev flannel-v6.1",
            f"route add fd00:244:0:{other}::/64 via fd00:244:0:{other}:: dev flannel-v6.1 onlink",
            "route add default via fd00:77::1",
        )
        _ip(pod, f"address add fd00:244:0:{number}::5/64 dev eth0", f"route add default via fd00:244:0:{number}::1")


def _ip(namespace: str, *lines: str) -> None:
    command = ["ip", "-n", namespace, "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{namespace}: {done.stderr}"
