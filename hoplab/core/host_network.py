"""The door to the network of the host, for a command that has moved to another one: see ``hoplab.host.rootless``.

A thread may enter a network namespace that belongs to its user namespace, and never come back to one that does not. So
a command of a user who is not root leaves one thread behind in the host's network, before it moves to its own. What
has to be there (programs that download, ports of the loopback, Pulumi) runs in that thread or in one that it starts.
As root it simply runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")
THREAD = "/proc/thread-self/ns/net"
_behind: list[ThreadPoolExecutor] = []  # the thread that stayed; none while this process is in the host's network
_host: list[os.stat_result] = []  # its network


def stay() -> None:
    """Leave a thread in the present network; ``run`` is there from now on."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="host-network")
    pool.submit(lambda: None).result()  # the thread starts with the first call
    _host.append(os.stat(THREAD))
    _behind.append(pool)


def left() -> bool:
    """Return whether a thread was left behind."""
    return bool(_behind)


def is_here() -> bool:
    """Return whether the calling thread is in the host's network, as far as this process knows."""
    return not _host or os.path.samestat(os.stat(THREAD), _host[-1])


def run(function: Callable[[], Result]) -> Result:
    """Call the function in the host's network. Sockets and processes that it makes stay there; it must not wait."""
    return _behind[-1].submit(function).result() if _behind else function()


def run_long(function: Callable[[], Result]) -> Result:
    """Call the function in the host's network, in a thread of its own, and wait for it."""
    if not _behind:
        return function()
    with ThreadPoolExecutor(1) as pool:
        return run(lambda: pool.submit(function)).result()  # a thread is in the network of the one that starts it
