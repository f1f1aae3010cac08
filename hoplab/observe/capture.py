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
PAUSE = 0.05  # seconds between two checks whether tcpdump has written all packets
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
    """Return the beginning of the names of files on a node, of captures that `start` begins and `stop` ends."""
    return f"/run/hoplab-capture.{secrets.token_hex(6)}"


def start(captures: Mapping[str, Capture], place: str) -> dict[str, str]:
    """Return the commands that start captures: each ends when tcpdump listens, or fails with its message."""
    return {f"{PREFIX}{name}.start": _start(capture, f"{place}.{name}") for name, capture in captures.items()}


def stop(captures: Mapping[str, Capture], place: str) -> dict[str, str]:
    """Return the commands that end captures: each prints its interface and the packets, and leaves no file."""
    return {f"{PREFIX}{name}": _stop(capture, f"{place}.{name}") for name, capture in captures.items()}


def _start(capture: Capture, path: str) -> str:
    """Return the commands that start tcpdump, whose messages come through a FIFO: waiting for them takes no processes.

    timeout(1) makes a process group of its own, so that it outlives a login. The FIFO ends in .pcap, too: AppArmor's
    profile of tcpdump permits no other files. It is opened for both directions: so it stays usable while nobody reads.
    """
    words = [
        *(["nsenter", f"--net=/run/netns/{capture.netns}"] if capture.netns else []),
        *("timeout", str(MAX_SECONDS)),
        *("tcpdump", "-i", capture.dev, "-U", "--immediate-mode", "-s", str(SNAPLEN), "-c", str(MAX_PACKETS)),
        *("-w", "-"),
        *([capture.filter] if capture.filter else []),
    ]
    return f"""(
umask 077; mkfifo {path}.log.pcap || exit
{shlex.join(words)} </dev/null >{path}.pcap 2<>{path}.log.pcap &
while read -r line; do
  case $line in 'tcpdump: listening on '*) listens=1; break;; esac
  said="$said${{said:+; }}$line"
done <{path}.log.pcap
[ "$listens" ] || {{ echo "$said" >&2; exit 1; }}
read -r pid </proc/$!/task/$!/children; echo $pid >{path}.pid
)"""


def _stop(capture: Capture, path: str) -> str:
    """Return the commands that wait until tcpdump has written all packets that the kernel counted, and then end it.

    On SIGUSR1 tcpdump prints both numbers. On `lo` the kernel counts every packet twice and tcpdump captures one of
    them, so there the number of tries ends the wait.
    """
    # "tcpdump: 16 packets captured, 16 packets received by filter, 0 packets dropped by kernel"
    return f"""(
read -r pid 2>/dev/null <{path}.pid && kill -0 $pid 2>/dev/null || {{
  echo 'tcpdump has ended early: after {MAX_PACKETS} packets or {MAX_SECONDS} seconds, or it did not start' >&2; exit 1
}}
exec 3<{path}.log.pcap
tries=0
while kill -USR1 $pid && read -r line <&3; do
  case $line in *' captured, '*' received by filter, '*) set -- $line;; *) continue;; esac
  [ $(($2 + ${{10}})) -lt $5 ] && [ $tries -lt {FLUSH_TRIES} ] || break
  tries=$((tries + 1)); sleep {PAUSE}
done
kill $pid; while read -r line <&3; do :; done
echo {shlex.quote(capture.dev)}
base64 -w 0 {path}.pcap
)
ended=$?; rm -f {path}.*; (exit $ended)"""


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
