"""Captures of the packets on an interface: tcpdump runs while a command runs.

    commands = capture.around("curl http://10.244.1.3:8080/", {"outer": Capture("eth0", "udp port 8472")})
    capture.read(hosts.batch("worker1", commands))["outer"]     # tuple[CapturedPacket, ...]

The commands are one batch: a capture starts, the command runs, the capture ends. Where the sender is
another machine than the captured node, `start` and `stop` are a batch each.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from hoplab.observe import pcap
from hoplab.observe.pcap import CapturedPacket, CaptureError
from hoplab.observe.script import Output

COMMAND = "command"  # key of the command's own output in a batch
PREFIX = "capture."  # of the keys of captures in a batch
PAUSE = 0.05  # seconds between two checks of tcpdump
LISTEN_TRIES = 400  # checks until tcpdump must listen
FLUSH_TRIES = 40  # checks until tcpdump must have written all packets that the kernel counted
MAX_SECONDS = 300  # until a capture without `stop` ends
MAX_PACKETS = 10_000  # a capture with more packets fails
SNAPLEN = 256  # bytes of a packet: more than all headers, with VXLAN and the inner headers


@dataclass(frozen=True)
class Capture:
    """An interface to capture on, and the filter."""

    dev: str  # "eth0"
    filter: str = ""  # in tcpdump's syntax: "udp port 8472"; "" for everything
    netns: str = ""  # a pod's, "cni-1b4e..." below /run/netns; "" for the node's own


def around(command: str, captures: Mapping[str, Capture]) -> dict[str, str]:
    """Return the commands of a batch that capture while another command runs; its own output has the key COMMAND."""
    place = new_place()
    return {**start(captures, place), COMMAND: command, **stop(captures, place)}


def new_place() -> str:
    """Return a new folder on a node for captures that `start` begins and `stop` ends."""
    return f"/run/hoplab-capture.{secrets.token_hex(6)}"


def start(captures: Mapping[str, Capture], place: str) -> dict[str, str]:
    """Return the commands that start captures: each ends when tcpdump listens, or fails with its message."""
    return {f"{PREFIX}{name}.start": _start(capture, f"{place}/{name}") for name, capture in captures.items()}


def stop(captures: Mapping[str, Capture], place: str) -> dict[str, str]:
    """Return the commands that end captures: each prints its interface and the packets, and leaves no file."""
    return {f"{PREFIX}{name}": _stop(capture, f"{place}/{name}") for name, capture in captures.items()}


def _start(capture: Capture, path: str) -> str:
    """Return the commands that start tcpdump in a session of its own, so that it outlives a login.

    Both of its files end in .pcap: AppArmor's profile of tcpdump permits no other.
    """
    words = [
        "tcpdump",
        "-i",
        capture.dev,
        "-U",
        "--immediate-mode",
        "-s",
        str(SNAPLEN),
        "-c",
        str(MAX_PACKETS),
        "-w",
        "-",
    ]
    if capture.netns:
        words = ["nsenter", f"--net=/run/netns/{capture.netns}", *words]
    if capture.filter:
        words.append(capture.filter)
    runs = f"echo $$ >{path}.pid; exec {shlex.join(words)}"
    return f"""(
mkdir -p -m 700 {path.rpartition("/")[0]}
setsid timeout {MAX_SECONDS} sh -c {shlex.quote(runs)} </dev/null >{path}.pcap 2>{path}.log.pcap &
tries=0
until grep -qs '^tcpdump: listening on' {path}.log.pcap; do
  kill -0 $! 2>/dev/null && [ $tries -lt {LISTEN_TRIES} ] || {{ cat {path}.log.pcap >&2; kill $! 2>/dev/null; exit 1; }}
  tries=$((tries + 1)); sleep {PAUSE}
done
)"""


def _stop(capture: Capture, path: str) -> str:
    """Return the commands that wait until tcpdump has written all packets that the kernel counted, and then end it.

    On SIGUSR1 tcpdump prints both numbers. On `lo` the kernel counts every packet twice and tcpdump captures one of
    them, so there the number of tries ends the wait.
    """
    # "tcpdump: 16 packets captured, 16 packets received by filter, 0 packets dropped by kernel"
    flushed = "/captured/ { done = $2 + $4 >= $3 } END { exit !done }"
    return f"""(
pid=$(cat {path}.pid) && kill -0 $pid 2>/dev/null || {{ cat {path}.log.pcap >&2; exit 1; }}
tries=0
until tail -n 1 {path}.log.pcap | awk -F '[^0-9]+' '{flushed}' || [ $tries -ge {FLUSH_TRIES} ]; do
  tries=$((tries + 1)); kill -USR1 $pid; sleep {PAUSE}
done
kill $pid
while kill -0 $pid 2>/dev/null; do sleep {PAUSE}; done
echo {shlex.quote(capture.dev)}
base64 -w 0 {path}.pcap
)
ended=$?; rm -f {path}.*; rmdir {path.rpartition("/")[0]} 2>/dev/null; (exit $ended)"""


def read(outputs: Mapping[str, Output]) -> dict[str, tuple[CapturedPacket, ...]]:
    """Return the packets of every capture in the outputs of a batch, by name; raise CaptureError when one failed."""
    found = {}
    for key, output in outputs.items():
        if not key.startswith(PREFIX):
            continue
        name = key.removeprefix(PREFIX)
        if output.code != 0:
            raise CaptureError(
                f"the capture {name.removesuffix('.start')!r} failed: {output.err.strip() or output.code}",
                remedy="try the same tcpdump on the node: ./lab ssh NODE sudo tcpdump -i INTERFACE FILTER",
            )
        if not name.endswith(".start"):
            dev, _, encoded = output.out.partition("\n")
            found[name] = pcap.parse(pcap.decode(encoded), dev)
    return found
