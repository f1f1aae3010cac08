"""One look at the host whose libvirt runs the machines: this one, or another one over SSH. Text in, records out.

A script prints what the checks need, each output under its title, and works for a user who is not root: what only
root may read is missing then.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from hoplab.core.errors import HostError
from hoplab.host.info import HostFacts, parse_meminfo, parse_qemu_version
from hoplab.host.ranges import UsedRange, used_ranges
from hoplab.spec.libvirt_uri import RemoteHost

IMAGES = "/var/lib/libvirt/images"  # where AppArmor's and SELinux's rules for libvirt let QEMU read
ANSWER_S = 60.0  # for all of it; a login takes seconds on a busy host
SECTION = "=== "
SCRIPT = f"""\
PATH=$PATH:/usr/sbin:/sbin; export PATH LC_ALL=C
say() {{ echo; echo "{SECTION}$1"; }}
say clock; date +%s.%N
say meminfo; cat /proc/meminfo
say cpus; nproc
say addresses; ip -j addr
say routes; ip -j route show table all
say rules; ip -j rule
say qemu; qemu-system-x86_64 --version
say space; df -P -B1 {IMAGES} || df -P -B1 /var/lib
say label; stat -c %C {IMAGES}
say bridged; cat /proc/sys/net/bridge/bridge-nf-call-iptables
say firewalld; firewall-cmd --state
say zone; firewall-cmd --zone=libvirt --list-all
say ufw; cat /etc/ufw/ufw.conf
say filter; iptables-save -t filter
say backend; cat /etc/libvirt/network.conf
say docker; cat /sys/class/net/docker0/ifindex
say end
"""


@dataclass(frozen=True)
class HostLook:
    """The outputs of one look, by title; "" where a command is missing or failed."""

    outputs: Mapping[str, str]
    ahead_s: float = 0.0  # of this machine's clock
    remote: str = ""  # "ann@rack7", "" for this host

    def __getitem__(self, title: str) -> str:
        return self.outputs.get(title, "")

    def ranges(self, libvirt_networks: str = "") -> tuple[UsedRange, ...]:
        """Return the address ranges in use there."""
        return used_ranges(self["addresses"], self["routes"], self["rules"], libvirt_networks)

    def facts(self, libvirt_networks: str = "") -> HostFacts:
        """Return the figures of the host; raise HostError where it is none that shows them."""
        memory = parse_meminfo(self["meminfo"])
        if "MemTotal" not in memory:
            raise HostError(
                f"{self.remote or 'this host'} does not show its memory: it seems to be no Linux host with a shell",
                remedy=f"`ssh {self.remote} cat /proc/meminfo` has to work" if self.remote else "mount /proc",
            )
        ranges = self.ranges(libvirt_networks)
        return HostFacts(
            memory_mib=memory["MemTotal"],
            available_memory_mib=memory.get("MemAvailable", memory["MemTotal"]),
            cpus=int(self["cpus"] or 1),
            networks=tuple(used.network for used in ranges),
            is_root=False,
            qemu_version=parse_qemu_version(self["qemu"]),
            used=ranges,
            name=self.remote,
        )

    @property
    def free_gib(self) -> float:
        """Return the free space for images there; 0 where it is not known."""
        found = re.search(r"^\S+\s+\d+\s+\d+\s+(\d+)\s+\d+%", self["space"], re.MULTILINE)
        return int(found[1]) / 2**30 if found else 0.0


def look(remote: RemoteHost | None) -> HostLook:
    """Look at the host of a libvirt; raise HostError where SSH does not get there."""
    command = [*remote.ssh("-T"), "sh"] if remote else ["sh"]
    began = time.time()
    try:
        done = subprocess.run(
            command, input=SCRIPT, capture_output=True, text=True, errors="replace", check=False, timeout=ANSWER_S
        )
    except subprocess.TimeoutExpired:
        raise _unreachable(remote, f"no answer after {ANSWER_S:.0f} s") from None
    outputs = parse(done.stdout)
    if remote and "end" not in outputs:
        raise _unreachable(
            remote, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "ssh gave no reason"
        )
    there = re.fullmatch(r"(\d+\.\d+)", outputs.get("clock", ""))
    ahead = float(there[1]) - (began + time.time()) / 2 if there and remote else 0.0
    return HostLook(outputs, ahead, remote.name if remote else "")


def parse(text: str) -> dict[str, str]:
    """Return the outputs by their titles.

    >>> parse("\\n=== cpus\\n2\\n\\n=== end\\n")
    {'cpus': '2', 'end': ''}
    """
    found: dict[str, str] = {}
    for part in re.split(rf"^{SECTION}", text, flags=re.MULTILINE)[1:]:
        title, _, output = part.partition("\n")
        found[title.strip()] = output.strip("\n")
    return found


def _unreachable(remote: RemoteHost | None, why: str) -> HostError:
    name = remote.name if remote else "this host"
    words = " ".join(remote.ssh()) if remote else "sh"
    return HostError(
        f"the host of the lab's libvirt can't be reached over SSH: {name}: {why}",
        remedy=f"`{words} true` has to work without a question: a key in the agent or in the URI (?keyfile=...), the "
        "host's own key in known_hosts",
    )
