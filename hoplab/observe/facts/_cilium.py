"""How Cilium's maps are read on a node: by cilium-dbg, in the namespaces of cilium-agent's container (cilium-dbg reads
/proc/self: mounts alone are not enough)."""

from __future__ import annotations

import re
from ipaddress import ip_address

from hoplab.core.errors import FactError
from hoplab.core.ip import REMEDY, IPAddress
from hoplab.observe.facts._json import document

AGENT = "cilium-agent"
SOCKET = "/run/cilium/cilium.sock"  # of a node that runs Cilium
ENTER = f'nsenter --target "$(pgrep -o -x {AGENT})" --mount --pid'  # before a command that runs where the agent runs


def in_agent(command: str) -> str:
    """Return a line of shell that runs a command where the agent runs; on a node without Cilium it prints nothing."""
    return f"[ ! -S {SOCKET} ] || {ENTER} {command}"


def listed(text: str, what: str) -> dict[str, list[str]]:
    """Return a map as `cilium-dbg bpf ... -o json` prints it: keys to values, both as text; empty without Cilium."""
    raw = document(text, what) if text.strip() else {}
    if not isinstance(raw, dict) or not all(isinstance(values, list) for values in raw.values()):
        raise FactError(f"{what} should be lists of values by their keys", remedy=REMEDY)
    return {key: [str(value) for value in values] for key, values in raw.items()}


def address(text: str, what: str) -> IPAddress:
    """Return an address of either family."""
    try:
        return ip_address(text.strip("[]"))
    except ValueError:
        raise FactError(f"{what}: {text!r} is not an address", remedy=REMEDY) from None


def matched(pattern: re.Pattern[str], text: str, what: str) -> re.Match[str]:
    """Return the match of a whole text; FactError for another one."""
    found = pattern.fullmatch(text.strip())
    if not found:
        raise FactError(f"{what}: {text!r} is not of the known form", remedy=REMEDY)
    return found
