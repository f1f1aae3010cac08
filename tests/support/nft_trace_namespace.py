"""Packets that the kernel reports, in the network namespace of this process.

    unshare --net python -m tests.support.nft_trace_namespace

It makes rules of iptables-nft and of nftables, lets the kernel report packets to a port of lo, and prints the report,
what lists the rules, and what is left of the table when its `nft` ends in one way or another.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from ipaddress import IPv4Address
from typing import IO, Any

from hoplab.trace import nft_trace
from hoplab.trace.model import Header

LO, PORT, BEHIND = IPv4Address("127.0.0.1"), 99, 98
RULES = f"""\
iptables-nft -N USER
iptables-nft -A USER -s 203.0.113.0/24 -j RETURN
iptables-nft -A USER -p udp -m udp --dport {BEHIND} -m comment --comment "not here" -j DROP
iptables-nft -A INPUT -p udp -m comment --comment call -j USER
iptables-nft -t nat -A OUTPUT -d 127.0.0.1/32 -p udp -m udp --dport {PORT} -j DNAT --to-destination 127.0.0.1:{BEHIND}
nft add table inet own
nft 'add chain inet own input {{ type filter hook input priority -10; policy accept; }}'
nft 'add rule inet own input udp dport {BEHIND} counter comment "seen"'
"""
DEADLINE_S = 20.0
ANSWER_S = 0.3  # the report of a packet comes as one burst


def run(command: str) -> str:
    return subprocess.run(["sh", "-ec", command], check=True, capture_output=True, text=True).stdout


def until(what: Any) -> None:
    """Until it is so: nft and the kernel need a moment."""
    end = time.monotonic() + DEADLINE_S
    while not what():
        if time.monotonic() > end:
            raise SystemExit("it never came to that")
        time.sleep(0.02)


def tables() -> str:
    return run("nft list tables")


def holder() -> subprocess.Popen[str]:
    """The process that holds the table."""
    made = subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    stdin = made.stdin
    assert stdin
    stdin.write(nft_trace.commands([Header(LO, LO, "udp", dport=PORT), Header(LO, LO, "udp", dport=BEHIND)]))
    stdin.flush()
    until(lambda: run(f"nft list table inet {nft_trace.TABLE} 2>&1 || true").count("nftrace") == 4)
    return made


def reported(monitor: IO[bytes]) -> str:
    """The report of packets, up to the rule that drops one; another one is sent until nft listens.

    Each is of a connection of its own: the kernel calls no chain of type nat for the second packet of one.
    """
    end, text = time.monotonic() + DEADLINE_S, b""
    while b"(verdict drop)\n" not in text:
        if time.monotonic() > end:
            raise SystemExit(f"the kernel reported only {text!r}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", (str(LO), PORT))
        while select.select([monitor], [], [], ANSWER_S)[0]:
            text += os.read(monitor.fileno(), 65536)
    return text.decode()


def main() -> None:
    run(f"ip link set lo up\n{RULES}")
    found: dict[str, Any] = {"ends": {}}
    for name in ("stdin", "kill"):
        process = holder()
        found["ends"][name] = [nft_trace.TABLE in tables()]
        if name == "kill":
            process.kill()
        else:
            assert process.stdin
            process.stdin.close()
        process.wait(DEADLINE_S)
        until(lambda: nft_trace.TABLE not in tables())
        found["ends"][name].append(nft_trace.TABLE in tables())
    process = holder()
    monitor = subprocess.Popen(["stdbuf", "-oL", *nft_trace.MONITOR.split()], stdout=subprocess.PIPE)
    try:
        assert monitor.stdout
        found["report"] = reported(monitor.stdout)
    finally:
        monitor.kill()
        monitor.wait()
    found["iptables"] = run("iptables-nft-save -c")
    found["listed"] = run("nft -j list ruleset")
    process.kill()
    process.wait()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
