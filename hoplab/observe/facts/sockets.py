"""Listening TCP sockets and bound UDP sockets, with their processes: ``ss -tulnp``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hoplab.core.errors import FactError
from hoplab.observe.facts import Fact


@dataclass(frozen=True)
class Socket:
    """One socket that accepts connections or datagrams."""

    protocol: str  # "tcp", "udp"
    address: str  # "127.0.0.1", "::1"; any address is "0.0.0.0" or "::", of both families "*"
    dev: str  # the interface it is bound to; "" for all of them
    port: int
    processes: tuple[str, ...]  # "kubelet"; none when the kernel itself listens, as it does for VXLAN

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        dev = f"%{self.dev}" if self.dev else ""
        return " ".join([self.protocol, f"{address}{dev}:{self.port}", ",".join(self.processes)]).rstrip()


_LINE = re.compile(r"(tcp|udp)\s+(?:LISTEN|UNCONN)\s+\d+\s+\d+\s+(\S+):(\d{1,5})\s+\S+:\*\s*(?:users:\((.+)\))?\s*")
_PROCESS = re.compile(r'\("(.*?)",pid=\d+,fd=\d+\)')


def parse(text: str) -> tuple[Socket, ...]:
    """Parse one socket a line: ``tcp LISTEN 0 4096 127.0.0.1:10248 0.0.0.0:* users:(("kubelet",pid=512,fd=20))``"""
    return tuple(_socket(line) for line in text.splitlines())


def _socket(line: str) -> Socket:
    found = _LINE.fullmatch(line)
    if found is None:
        raise FactError(f"{line!r} is not a socket that listens", remedy="run `ss -Htulnp` on the node and look")
    protocol, local, port, users = found.groups()
    address, _, dev = local.partition("%")
    processes = tuple(dict.fromkeys(_PROCESS.findall(users or "")))  # each once: processes can share a socket
    return Socket(protocol, address.strip("[]"), dev, int(port), processes)


SOCKETS = Fact("sockets", "ss -HOtulnp", parse)
