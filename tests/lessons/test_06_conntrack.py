"""Chapter 6, the table of connections: /proc/sys/net/netfilter, ``conntrack -L``."""

from __future__ import annotations

import pytest

from hoplab.expectations import proxy
from hoplab.observe.facts.conntrack import CONNTRACK
from hoplab.observe.facts.counters import COUNTERS
from hoplab.observe.facts.sysctls import SYSCTLS
from hoplab.observe.snapshot import Node, Snapshot
from hoplab.verify import leftovers
from hoplab.verify.claims import Claim, counted, listed

pytestmark = pytest.mark.remedy("ssh {node} sudo conntrack -S")
NEARLY = 0.95  # of the table: it is full again with the next burst
COUNT, MAX = "net.netfilter.nf_conntrack_count", "net.netfilter.nf_conntrack_max"
COUNTED = tuple(f"nf_conntrack {name}" for name in ("drop", "early_drop", "insert_failed"))


def test_conntrack_has_room(lab: Snapshot, claim: Claim) -> None:
    """A node's conntrack table has room for new connections; when it is full, the kernel drops their packets."""
    seen = []
    for node in lab.nodes:
        values = (node[SYSCTLS].get(name, "") for name in (COUNT, MAX))
        count, most = (int(value) if value.isdecimal() else 0 for value in values)
        if not most:  # conntrack is not in the kernel, or has no bound
            seen.append(f"no bound on {node.name}")
            continue
        claim.require(
            count < NEARLY * most,
            f"the conntrack table of {node.name} is {'full' if count >= most else 'nearly full'}: {count} of {most}; "
            "packets of new connections are dropped",
            f"{MAX} = {most}",
            *_counted(node),
        )
        seen.append(f"{count} of {most} on {node.name}")
    claim.saw(f"connections: {listed(seen)}")


def _counted(node: Node) -> list[str]:
    """Return what conntrack has counted since boot, where that was looked at."""
    found = node[COUNTERS] if COUNTERS.name in node.facts.outputs else {}
    return [f"{name} since boot: {found[name]}" for name in COUNTED if name in found]


def test_udp_flows_lead_to_endpoints(lab: Snapshot, claim: Claim) -> None:
    """A UDP connection to a service goes to one of its endpoints: conntrack keeps none to a pod that is gone."""
    proxy.get_mode(lab.setting.proxy_mode)  # of another mode or program it is not known what it leaves in conntrack
    flows = 0
    for node in lab.nodes:
        dead = leftovers.dead_flows(lab, node)
        claim.require(not dead, f"on {node.name} {dead[0].why}" if dead else "", *(found.flow for found in dead))
        flows += sum(flow.protocol == "udp" for flow in node[CONNTRACK])
    claim.saw(f"{counted(flows, 'UDP connection')} on {counted(len(lab.nodes), 'node')}, none to a dead endpoint")
