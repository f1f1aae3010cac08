"""Chapter 1, the machines' clocks: ``date``."""

from __future__ import annotations

from itertools import combinations

import pytest

from hoplab.observe.facts.clock import CLOCK
from hoplab.observe.snapshot import Snapshot
from hoplab.verify.claims import Claim, listed

# Seconds. The API server accepts a token up to a minute before or after its time, and kubeadm's certificates begin five
# minutes early. A node is late where its clock is off by more, whenever in the look it was read.
BOUND = 60.0

pytestmark = pytest.mark.remedy("ssh {node} timedatectl")


@pytest.mark.needs(facts=(CLOCK.name,))
def test_clocks_agree(lab: Snapshot, claim: Claim) -> None:
    """The clocks of all nodes and of the machine that looks differ by less than a minute: certificates and tokens are
    valid from one time to another."""
    clocks = {node.name: node[CLOCK] for node in lab.nodes}
    for name, clock in clocks.items():
        claim.require(
            clock.least < BOUND, f"the clock of {name} is at least {clock.least:.0f} s ahead of this machine's", clock
        )
        claim.require(
            clock.most > -BOUND, f"the clock of {name} is at least {-clock.most:.0f} s behind this machine's", clock
        )
    for (one, first), (other, second) in combinations(clocks.items(), 2):
        apart = max(first.least - second.most, second.least - first.most)
        claim.require(apart < BOUND, f"the clocks of {one} and {other} are at least {apart:.0f} s apart", first, second)
    claim.saw(
        listed(f"{name} is between {clock.least:.1f} and {clock.most:.1f} s ahead" for name, clock in clocks.items())
    )
