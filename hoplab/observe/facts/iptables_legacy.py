"""The tables of iptables-legacy, which the kernel keeps beside those of iptables-nft: ``iptables-legacy-save -c``.

``iptables-save`` of one does not list the tables of the other; the kernel calls both. A kernel without the modules of
iptables-legacy, and a node without its program, have none.
"""

from __future__ import annotations

from hoplab.observe.facts import Fact
from hoplab.observe.facts.iptables import parse


def _listing(program: str) -> str:
    return f"! command -v {program} >/dev/null || {program} -c"


IPTABLES_LEGACY = Fact("iptables_legacy", _listing("iptables-legacy-save"), parse)
IP6TABLES_LEGACY = Fact("ip6tables_legacy", _listing("ip6tables-legacy-save"), parse, ipv6=True)
