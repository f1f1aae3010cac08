"""ansible-runner in a process of its own, for a process that must not fork.

ansible-runner starts Ansible with fork, in Python. A process that other threads of gRPC work in, as that of Pulumi's
dynamic providers is, may lose the forked child to a segmentation fault before it becomes Ansible. So ``subprocess``
starts an interpreter (nothing runs between fork and exec), and that forks safely:

    stdin   the arguments, one line of JSON; its end cancels the run
    stdout  ``{"event": ...}`` for each event as it comes, then ``{"status": "successful"}``
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ansible_runner

from hoplab.core.pipe_lines import PipeLines

KEPT = ("host", "task", "res", "ignore_errors")  # of an event's data: what converge's handler reads
LOST = "lost"  # the status of a run whose process ended before it reported one


def run(arguments: Mapping[str, Any], handler: Callable[[dict[str, Any]], bool], cancelled: Callable[[], bool]) -> str:
    """Run ``ansible_runner.run`` with these arguments in the other process; return its status."""
    command = [sys.executable, "-P", "-m", "hoplab.cluster.ansible_subprocess"]
    status = LOST
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin and process.stdout
        stdin = process.stdin

        def look() -> None:
            if not stdin.closed and cancelled():
                stdin.close()

        with suppress(BrokenPipeError):  # then its output ends at once, too
            stdin.write(f"{json.dumps(dict(arguments))}\n".encode())
        for line in PipeLines(process.stdout, look):
            if not line.endswith(b"\n"):
                break  # the process ended within it
            said = json.loads(line)
            if "status" in said:
                status = said["status"]
            else:
                handler(said)
    return status


def main() -> None:
    with Path("/dev/stdin").open("rb", buffering=0) as stdin:  # nothing is read ahead
        arguments = json.loads(stdin.readline())

    def handler(event: dict[str, Any]) -> bool:
        data = event.get("event_data", {})
        said = {"event": event.get("event"), "event_data": {name: data[name] for name in KEPT if name in data}}
        print(json.dumps(said, default=str), flush=True)
        return True

    def cancelled() -> bool:
        return bool(select.select([sys.stdin], [], [], 0)[0])  # nothing comes but the end

    done = ansible_runner.run(**arguments, event_handler=handler, cancel_callback=cancelled)
    print(json.dumps({"status": done.status}), flush=True)


if __name__ == "__main__":
    main()
