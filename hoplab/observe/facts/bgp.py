"""BGP sessions of a node's BIRD, read through the same socket as by `birdcl show protocols`. Without BIRD: none."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address

from hoplab.observe.facts import Fact

SOCKET = "/run/calico/bird.ctl"


@dataclass(frozen=True)
class Session:
    """One session of the mesh: ``Mesh_192_168_77_21 BGP master up 13:02:11 Established``."""

    name: str
    state: str  # of the protocol: "up", "start", "down"
    info: str  # of the session: "Established", "Active Socket: Connection refused", "Idle"

    @property
    def peer(self) -> IPv4Address | None:
        """Return the address of the other end: Calico names a session after the node's address."""
        found = re.fullmatch(r"[A-Za-z]+_(\d+)_(\d+)_(\d+)_(\d+)", self.name)
        try:
            return IPv4Address(".".join(found.groups())) if found else None
        except ValueError:
            return None

    @property
    def established(self) -> bool:
        return self.state == "up" and self.info.startswith("Established")

    def __str__(self) -> str:
        return f"{self.name} {self.state} {self.info}".rstrip()


# "1002-Mesh_192_168_77_21 BGP      master   up     13:02:11    Established": a code on the first line, then blanks
_LINE = re.compile(r"(?:\d{4}[ -]| )(\S+) +BGP +\S+ +(\S+) +\S+ *(.*)")


def parse(text: str) -> tuple[Session, ...]:
    """Return the BGP sessions; BIRD also prints a greeting, and lists protocols other than BGP."""
    return tuple(
        Session(found[1], found[2], found[3].strip())
        for line in text.splitlines()
        if (found := _LINE.fullmatch(line.rstrip()))
    )


def ask(command: str) -> str:
    """Return a line of shell that sends BIRD a command and prints its answer.

    BIRD drops pending commands and output when the client closes the connection, so the shell waits for the last line
    of the answer: "0000 ", or an error's number.
    """
    told = f"echo {command}; sed -n -ep -e/^0000/q -e/^[89]/q >&2"
    return f"timeout 5 socat UNIX-CONNECT:{SOCKET} SYSTEM:'{told}' 2>&1"


BGP = Fact("bgp", f"[ ! -S {SOCKET} ] || {ask('show protocols')}", parse)
