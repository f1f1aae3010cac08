"""Network sysctls of the kernel."""

from __future__ import annotations

from collections.abc import Mapping

from hoplab.core.errors import FactError
from hoplab.observe.facts import Fact

_FILES = (
    "/proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv4/conf/*/proxy_arp "
    "/proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/bridge/bridge-nf-call-iptables "
    "/proc/sys/net/ipv6/conf/all/forwarding "
    "/proc/sys/net/netfilter/nf_conntrack_count /proc/sys/net/netfilter/nf_conntrack_max"
)
_FILES6 = (
    "/proc/sys/net/bridge/bridge-nf-call-ip6tables "
    "/proc/sys/net/ipv6/conf/*/proxy_ndp /proc/sys/net/ipv6/conf/*/force_forwarding "
)


def parse(text: str) -> Mapping[str, str]:
    """Return the values by sysctl name, ``net.ipv4.ip_forward``."""
    values = {}
    for line in text.splitlines():
        path, colon, value = line.partition(":")
        if not colon or not path.startswith("/proc/sys/"):
            raise FactError(f"{line!r} is not a sysctl with its value", remedy="look at /proc/sys/net on the node")
        values[path.removeprefix("/proc/sys/").replace("/", ".")] = value
    return values


SYSCTLS = Fact("sysctls", f"grep -sH '' {_FILES} || true", parse)
SYSCTLS6 = Fact("sysctls6", f"grep -sH '' {_FILES6} || true", parse, ipv6=True)
