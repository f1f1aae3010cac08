"""Faults that are shell commands on a node or in a pod's network namespace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from hoplab.observe.snapshot import Node
from tests.system.faults.fault import Broken
from tests.system.faults.site import Site

SAVED = "/run/hoplab-fault"  # with a number: several faults may be made at once
_NUMBERS = count()


def on(where: Callable[[Site], Node]) -> Callable[[str, str], Broken]:
    """Faults that are a command on this node; ``$saved`` is a file of each one's own, for what was there before."""

    def fault(broken: str, repaired: str) -> Broken:
        saved = f"saved={SAVED}-{next(_NUMBERS)}; "

        @contextmanager
        def hurt(site: Site) -> Iterator[None]:
            node = where(site)
            try:
                site.run(saved + broken, node)
                yield
            finally:
                site.run(saved + repaired, node)

        return hurt

    return fault


on_node = on(lambda site: site.node)
on_other = on(lambda site: site.other)
on_first = on(lambda site: site.session.snapshot.nodes[0])  # whom lessons ask where one is as good as another
on_announcer = on(lambda site: site.announcer)
on_silent = on(lambda site: site.other if site.announcer is site.node else site.node)


def in_pod(broken: str, repaired: str) -> Broken:
    """Both commands run in the pod's network namespace, with the node's tools."""
    enter = "nsenter --net=/run/netns/{pod_netns} "
    return on_node(enter + broken, enter + repaired)


def nft(edit: str) -> Broken:
    """kube-proxy's table of nftables goes through a filter (``sed ...``), and is put back as it was."""
    old = "echo delete table ip kube-proxy"
    return on_node(
        f"nft list table ip kube-proxy >$saved; ( {old}; {edit} $saved ) | nft -f -",
        f"( {old}; cat $saved ) | nft -f -; rm $saved",
    )


def rules(table: str, edit: str, iptables: str = "iptables") -> Broken:
    """A whole table of iptables goes through a filter (``sed ...``), and is put back as it was."""
    return on_node(
        f"{iptables}-save -c -t {table} >$saved; {edit} $saved | {iptables}-restore -c",
        f"{iptables}-restore -c <$saved; rm $saved",
    )
