"""Where all tables of iptables are called: an experiment in an empty namespace, made anew on every look.

On a node a table is there only once somebody has used it, and of its chains those that somebody has used. Here each
table is given chains of all five names: those that are built in get a hook, the others are like a user's own.
"""

from __future__ import annotations

from hoplab.observe.facts import Fact
from hoplab.observe.facts.base_chains import BaseChain, parse

TABLES = ("raw", "mangle", "nat", "filter", "security")
CHAINS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")

_CHAINS = "".join(f":{chain} ACCEPT\\n" for chain in CHAINS)
_ALL = "".join(f"*{table}\\n{_CHAINS}COMMIT\\n" for table in TABLES)

IPTABLES_HOOK_ORDER: Fact[tuple[BaseChain, ...]] = Fact(
    "all_hooks", f"unshare --net sh -c 'printf \"{_ALL}\" | iptables-restore && nft -j list chains ip'", parse
)
