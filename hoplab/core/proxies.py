"""Proxies of the environment (HTTPS_PROXY and the like): for downloads, never for a lab's own addresses.

A proxy is elsewhere and can't reach a lab network, least of all one in a network namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

NAMES = tuple(name for low in ("http_proxy", "https_proxy", "all_proxy") for name in (low, low.upper()))
# gRPC's C library, in Pulumi's Python SDK, would ask a proxy for the engine at 127.0.0.1
LOCAL_GRPC = {"no_grpc_proxy": "localhost,127.0.0.1,::1"}


def none() -> dict[str, str]:
    """Return the variables that switch every proxy off, for a program whose environment is otherwise the user's."""
    return dict.fromkeys(NAMES, "")


def bypassing(environment: Mapping[str, str], hosts: Iterable[str]) -> dict[str, str]:
    """Return an environment whose proxies are not used for these hosts either.

    >>> bypassing({"NO_PROXY": "example.org"}, ["192.168.77.1"])
    {'NO_PROXY': 'example.org,192.168.77.1', 'no_proxy': 'example.org,192.168.77.1'}
    """
    before = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    every = ",".join([*filter(None, [before]), *hosts])
    return {**environment, "NO_PROXY": every, "no_proxy": every}


def is_loopback(url: str) -> bool:
    """Return whether a URL is of this host itself, which Go's programs never ask a proxy for.

    >>> is_loopback("https://127.0.0.1:23456"), is_loopback("https://[::1]:1"), is_loopback("https://example.org")
    (True, True, False)
    """
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
