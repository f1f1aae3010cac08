"""The network of ``live_network`` with rules as kube-proxy writes them, a server in a pod, and a snapshot of it all."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import Any

from hoplab.core.errors import LabError
from hoplab.core.wait import Timing
from hoplab.expectations.ingress import readable
from hoplab.host import netns
from hoplab.observe.facts import discover
from hoplab.observe.live.node_stream import on_this_machine, over_ssh
from hoplab.observe.live.stop import Stop
from hoplab.observe.script import Output
from hoplab.observe.setting import Setting
from hoplab.observe.snapshot import Snapshot, take
from hoplab.spec.model import Ipv6Spec
from hoplab.spec.parts import Parts
from hoplab.trace import nft_trace, render
from hoplab.trace.follow import follow
from hoplab.trace.live import node_program, run
from hoplab.trace.live.run import Wire
from hoplab.trace.model import Trace
from hoplab.trace.places import ends
from tests.support import live_network
from tests.support.live_network import BRIDGE, Network

PORT = 8080
TIMING = Timing(slowness=lambda: 1.0)
RULES = """\
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-EXT-WEB - [0:0]
:KUBE-SVC-WEB - [0:0]
:KUBE-SEP-WEB - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE --random-fully
-A KUBE-SERVICES -d 10.96.0.80/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-SVC-WEB
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m comment --comment "default/web" -m tcp --dport 30080 -j KUBE-EXT-WEB
-A KUBE-EXT-WEB -j KUBE-MARK-MASQ
-A KUBE-EXT-WEB -j KUBE-SVC-WEB
-A KUBE-SVC-WEB -m comment --comment "default/web -> 10.244.1.5:8080" -j KUBE-SEP-WEB
-A KUBE-SEP-WEB -s 10.244.1.5/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-WEB -p tcp -m tcp -j DNAT --to-destination 10.244.1.5:8080
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "traffic requiring SNAT" -j MASQUERADE --random-fully
COMMIT
"""
RULES6 = (  # kube-proxy writes the same in both families
    RULES.replace("10.244.1.5:8080", "[fd00:244:0:1::5]:8080")
    .replace("10.244.1.5/32", "fd00:244:0:1::5/128")
    .replace("10.244.0.0/16", "fd00:244::/48")
    .replace("10.96.0.80/32", "fd00:96::80/128")
)
SERVICE = {
    "metadata": {"namespace": "default", "name": "web"},
    "spec": {
        "type": "NodePort",
        "clusterIP": "10.96.0.80",
        "clusterIPs": ["10.96.0.80", "fd00:96::80"],
        "ports": [{"name": "", "port": 80, "protocol": "TCP", "targetPort": PORT, "nodePort": 30080}],
    },
    "status": {},
}
SLICE: dict[str, Any] = {
    "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
    "addressType": "IPv4",
    "ports": [{"name": "", "port": PORT, "protocol": "TCP"}],
    "endpoints": [{"addresses": ["10.244.1.5"], "nodeName": "worker2", "conditions": {"ready": True}}],
}
SLICE6 = {
    **SLICE,
    "addressType": "IPv6",
    "endpoints": [{**SLICE["endpoints"][0], "addresses": ["fd00:244:0:1::5"]}],
}

INGRESS = {
    "metadata": {"namespace": "default", "name": "apps"},
    "spec": {
        "rules": [
            {"host": "other.yash.com", "http": {"paths": [{"path": "/", "backend": {"service": {"name": "other"}}}]}},
            {"host": "app.yash.com", "http": {"paths": [{"path": "/web", "backend": {"service": {"name": "web"}}}]}},
        ]
    },
}


def inside(namespace: str, command: str, given: str = "") -> Output:
    """Run a shell command in a network namespace of this machine."""
    words = ["nsenter", f"--net=/run/netns/{namespace}", "sh", "-c", command]
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
    return Output(done.returncode, done.stdout, done.stderr)


@dataclass
class TracedNetwork:
    """Two nodes with a pod each, a service, and traces of packets between them."""

    network: Network
    ingress: bool = False  # the first pod is one of an ingress controller, which passes requests on to the other one

    @property
    def hosts(self) -> dict[str, Sequence[str]]:
        return {
            "": on_this_machine(),
            **{name: over_ssh(name, Path("/nowhere")) for name in ("worker1", "worker2")},
        }

    def on(self, node: str, command: str, given: str = "") -> str:
        """Run a command on a node; it has to succeed."""
        done = inside(f"{self.network.prefix}{node}", command, given)
        assert done.code == 0, f"{command}: {done.err}"
        return done.out

    def snapshot(self) -> Snapshot:
        setting = Setting(
            lab="dev",
            network=IPv4Network("192.168.77.0/24"),
            gateway=IPv4Address("192.168.77.1"),
            pod_cidr=IPv4Network("10.244.0.0/16"),
            service_cidr=IPv4Network("10.96.0.0/12"),
            cni="flannel",
            backend="vxlan",
            proxy_mode="iptables",
            ingress=readable.PART.name if self.ingress else "none",
            nodes={f"worker{number}": IPv4Address(f"192.168.77.{19 + number}") for number in (1, 2)},
            ipv6=Ipv6Spec(),
            nodes6={f"worker{number}": IPv6Address(f"fd00:77::{19 + number}") for number in (1, 2)},
        )
        return take(setting, {}, self, self.api, Parts({}, {}))

    def batches(self, commands: Mapping[str, str], *, in_pods: Mapping[str, str]) -> dict[str, dict[str, Output]]:
        wanted = {fact.name for where in ("node", "pod") for fact in discover(where)}
        wanted -= {"prefix_arithmetic", "no_route", "units", "disks", "ipam", "cni_config", "bgp"}
        found = {}
        for number, node in enumerate(("worker1", "worker2")):
            name = f"{self.network.prefix}{node}"
            outputs = {key: inside(name, command) for key, command in commands.items() if key in wanted}
            pod = self.network.pods[number]
            outputs |= {f"{pod}/{key}": inside(pod, text) for key, text in in_pods.items() if key in wanted}
            found[node] = outputs
        return found

    def api(self, path: str) -> Output:
        nodes = [
            {
                "metadata": {"name": f"worker{number}"},
                "spec": {
                    "podCIDR": f"10.244.{number - 1}.0/24",
                    "podCIDRs": [f"10.244.{number - 1}.0/24", f"fd00:244:0:{number - 1}::/64"],
                },
                "status": {
                    "addresses": [
                        {"type": "InternalIP", "address": f"192.168.77.{19 + number}"},
                        {"type": "InternalIP", "address": f"fd00:77::{19 + number}"},
                    ]
                },
            }
            for number in (1, 2)
        ]
        listed: dict[str, list[Any]] = {"nodes": nodes, "services": [SERVICE], "endpointslices": [SLICE, SLICE6]}
        kind = path.partition("?")[0].rpartition("/")[2]
        pods = self.network.api()["items"][:2]
        for number, pod in enumerate(pods):
            pod["status"]["podIPs"].append({"ip": f"fd00:244:0:{number}::5"})
        if self.ingress:
            pods[0]["metadata"] = {"namespace": readable.NAMESPACE, "name": "ingress-1", "labels": readable.LABELS}
            listed["ingresses"] = [INGRESS]
        items = pods if kind == "pods" else listed.get(kind, [])
        return Output(0, json.dumps({"items": items}))

    def trace(self, sender: str, receiver: str, **options: Any) -> Trace:
        """Predict a packet by a snapshot, send it and follow it."""
        return self.sent(self.snapshot(), sender, receiver, **options)

    def sent(self, lab: Snapshot, sender: str, receiver: str, stop: Stop | None = None, **options: Any) -> Trace:
        """Do the same by a snapshot that was taken before."""
        model, (_, goal) = follow(lab, sender, receiver, **options), ends(lab, sender, receiver, **options)
        wire = Wire(self.network.wire, BRIDGE)
        return run.send(lab, model, goal, self.hosts, wire, _unreachable, stop or Stop(), timing=TIMING)


def lacking() -> str:
    """Return what this machine lacks to trace packets in such a network; "" where it lacks nothing."""
    tools = (tool for tool in ("nft", "iptables-nft") if not shutil.which(tool, path="/usr/sbin:/sbin"))
    return ", ".join(filter(None, [live_network.lacking(), *tools]))


def has_tracefs() -> bool:
    return "\ttracefs\n" in Path("/proc/filesystems").read_text()


def instances() -> list[str]:
    """Return the names of the instances of tracefs."""
    mount = "mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; ls /sys/kernel/tracing/instances"
    words = ["unshare", "--mount", "sh", "-c", mount]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()


def whole(trace: Trace) -> None:
    """Require that a packet was seen at every hop of the predicted way, there and back."""
    assert trace.complete and trace.sent, render.text(trace)
    assert trace.sent.seen == trace.sent.hops == trace.sent.predicted, render.text(trace)
    assert trace.sent.wrong == () and trace.sent.lacking == (), trace.sent


def left(network: TracedNetwork) -> list[str]:
    """Return what a trace has left on the nodes."""
    found = [f"process {pid}" for pid in network.network.captures() if pid != os.getpid()]
    for node in ("worker1", "worker2"):
        found += [line for line in network.on(node, "nft list tables").splitlines() if nft_trace.TABLE in line]
    return found + [name for name in instances() if name.startswith(node_program.INSTANCE)]


def _unreachable(node: str, printed: str, code: int | None) -> LabError:
    return LabError(f"{node}: {printed} {code}")


@contextmanager
def made(folder: Path) -> Iterator[TracedNetwork]:
    """Make the network with its rules and its server, and remove it at the end."""
    with live_network.made(folder, ipv6=True) as network:
        found = TracedNetwork(network)
        for node in ("worker1", "worker2"):
            found.on(node, "iptables-nft-restore", RULES)
            found.on(node, "ip6tables-nft-restore", RULES6)
        with (
            _serving(network.pods[1], ("10.244.1.5", PORT), _answer),
            _serving(network.pods[1], ("fd00:244:0:1::5", PORT), _answer),
            _serving(network.pods[0], ("10.244.0.5", 80), lambda request: _pass_on(network.pods[0], request)),
            _serving(network.pods[0], ("fd00:244::5", 80), lambda request: _pass_on(network.pods[0], request)),
        ):
            yield found


@contextmanager
def _serving(namespace: str, address: tuple[str, int], answer: Callable[[bytes], bytes]) -> Iterator[None]:
    """Answer the first data of each connection, one after the other."""
    with netns.entered(namespace):
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        server = socket.create_server(address, family=family)
    thread = threading.Thread(target=_serve, args=(server, answer), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def _serve(server: socket.socket, answer: Callable[[bytes], bytes]) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            if request := connection.recv(4096):
                connection.sendall(answer(request))


def _answer(_request: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def _pass_on(namespace: str, request: bytes) -> bytes:
    """Do what an ingress controller does: ask the pod that the host and path of the request are for."""
    first, host, *_ = request.decode().split("\r\n")
    if not first.startswith("GET /web?") or host != "Host: app.yash.com":
        return b"HTTP/1.1 404 Not Found\r\n\r\n"
    with netns.entered(namespace):
        upstream = socket.socket()
    with upstream:
        upstream.connect(("10.244.1.5", PORT))
        upstream.sendall(request)
        return upstream.recv(4096)
