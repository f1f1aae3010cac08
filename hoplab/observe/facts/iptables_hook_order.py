"""Hooks and priorities of all iptables tables: an experiment in an empty namespace, repeated for every snapshot.

On a node the kernel has only the tables and chains in use. The experiment gives each table chains of all five names:
built-in chains get a hook, the others are user-defined chains.
"""

from __future__ import annotations

from hoplab.observe.facts import Fact
from hoplab.observe.facts.base_chains import BaseChain, parse

TABLES = ("raw", "mangle", "nat", "filter", "security")
CHAINS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")

_CHAINS = "".join(f":{chain} ACCEPT\\n" for chain in CHAINS)
_ALL = "".join(f"*{table}\\n{_CHAINS}COMMIT\\n" for table in TABLES)

IPTABLES_HOOK_ORDER: Fact[tuple[BaseChain, ...]] = Fact(
    "all_hooks",
    f"unshare --net sh -c 'printf \"{_ALL}\" | iptables-restore && nft -j list chains ip'",
    parse,
    constant=True,
)
