"""The last lines of CoreDNS on a node, in the log files of the container runtime: its last words when it crashes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hoplab.observe.facts import Fact

LINES = 5  # of each file
_HEADING = re.compile(r"==> /var/log/pods/([^/_]+)_([^/_]+)_[^/]+/[^/]+/(\d+)\.log(?:\.\S+)? <==")
_ENTRY = re.compile(r"\S+ (?:stdout|stderr) [FP] (.*)")  # <time> <stream> <full or partial> <text>


def parse(text: str) -> Mapping[str, tuple[str, ...]]:
    """Return the last lines by pod, ``kube-system/coredns-795c65fdfd-5p6q4``, those of its last container last."""
    files: dict[tuple[str, int], list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if found := _HEADING.fullmatch(line):
            lines = files.setdefault((f"{found[1]}/{found[2]}", int(found[3])), [])
        elif said := _ENTRY.fullmatch(line):
            lines.append(said[1])
    pods: dict[str, tuple[str, ...]] = {}
    for pod, number in sorted(files):
        pods[pod] = (*pods.get(pod, ()), *files[pod, number])
    return pods


_FILES = "/var/log/pods/kube-system_*coredns*/*/*.log"
DNS_LOG = Fact("dns_log", f"tail -v -n {LINES} {_FILES} 2>/dev/null || true", parse)
