"""The door of a lab: while it is closed, nobody in the lab's namespace can log in to a machine of it.

A machine that resumes with another lab's keys accepts these until it has its own. The guest agent, which changes them,
needs no network. The namespace, and the door with it, ends with the lab's libvirtd.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from hoplab.core.errors import HostError
from hoplab.core.packages import install_remedy
from hoplab.host import netns

RULE = ("OUTPUT", "-p", "tcp", "--dport", "22", "-j", "REJECT", "--reject-with", "tcp-reset")
TOOLS = ("iptables", "ip6tables")  # a kernel without IPv6 has no second door


def close(namespace: str) -> None:
    """Refuse logins from the namespace to every machine; raise HostError where that can't be done."""
    for tool in TOOLS:
        if _run(namespace, tool, "-C").returncode == 0:
            continue
        done = _run(namespace, tool, "-I")
        if done.returncode != 0 and tool == TOOLS[0]:
            raise HostError(
                f"logins to a lab that gets new keys can't be refused: {done.stderr.strip()}",
                remedy="`./lab doctor` checks iptables; ./lab up --fresh makes the lab without another's checkpoint",
            )


def open(namespace: str) -> None:
    """Allow logins again; an open door stays open."""
    for tool in TOOLS:
        while _run(namespace, tool, "-D").returncode == 0:
            pass


def _run(namespace: str, tool: str, verb: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which(tool, path=f"/usr/sbin:/sbin:{os.defpath}")
    if program is None:
        raise HostError(f"the command `{tool}` is missing", remedy=install_remedy([tool]))
    with netns.entered(namespace):
        return subprocess.run([program, "-w", verb, *RULE], capture_output=True, text=True, check=False)
