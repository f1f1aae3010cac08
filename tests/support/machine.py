"""A machine to practise on: this one, with everything that an exercise touches made private."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

from hoplab.observe.script import PROLOGUE, Output, Script

NEEDED = ("unshare", "nsenter", "ip", "iptables", "iptables-save", "python3")
WHERE = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # as on a node


def lacking() -> str:
    """Why there can be no such machine here; "" when there can."""
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    missing = [tool for tool in NEEDED if not shutil.which(tool, path=WHERE)]
    return f"not on this machine: {', '.join(missing)}" if missing else ""


class Machine:
    """A shell with network, mounts and processes of its own; when it is killed, all that was made inside goes."""

    def __init__(self) -> None:
        alone = ["unshare", "--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
        shell = ["sh", "-c", "mount -t tmpfs tmpfs /run && mkdir /run/netns && exec sh"]
        self.shell = subprocess.Popen([*alone, *shell], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.shell.stdin
        self.shell.stdin.write(f"{PROLOGUE}\n")

    def __call__(self, commands: Mapping[str, str]) -> dict[str, Output]:
        """Run commands as a node does."""
        assert self.shell.stdin and self.shell.stdout
        script = Script(commands, {})
        self.shell.stdin.write(f"(\n{script.text}\n) </dev/null\n")
        self.shell.stdin.flush()
        printed = ""
        for line in self.shell.stdout:
            printed += line
            if line.startswith(script.end):
                return script.split(printed)
        raise AssertionError(f"the shell ended: {printed}")

    def run(self, commands: str) -> str:
        """What a learner types, as root; the first command that fails is an error."""
        output = self({"it": f"( set -e\n{commands}\n)"})["it"]
        assert output.code == 0, output
        return output.out.strip()

    def node(self) -> str:
        """What no exercise may change: the machine's own network."""
        return self.run("ip -o link; ip -4 route; ip -4 rule; iptables-save; cat /proc/sys/net/ipv4/ip_forward")

    def left(self) -> list[str]:
        """What an exercise could leave behind: namespaces, files, interfaces, processes."""
        found = "ls -R /run/netns /run/hoplab-practice 2>&1 || :; ip -o link; readlink /proc/[0-9]*/exe"
        return sorted(self.run(found).splitlines())

    def close(self) -> None:
        with self.shell:
            self.shell.kill()
