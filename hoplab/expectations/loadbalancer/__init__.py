"""How a load balancer has to announce the addresses that it assigns to Services.

One load balancer is one module of this folder, which its ``PART`` describes, and the role loadbalancer_<name>.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, cast

from hoplab.core.ip import IPAddress
from hoplab.expectations.registry import get_module
from hoplab.spec.parts import LoadBalancerPart


class LoadBalancer(Protocol):
    """The shape of a load balancer's module."""

    PART: LoadBalancerPart
    EXCLUDED: str  # label of nodes that announce no address

    def announcer(self, address: IPAddress, nodes: Iterable[str]) -> str:
        """Return which of the nodes answers for an address on the lab network."""


def get_load_balancer(name: str) -> LoadBalancer:
    """Return the module of the load balancer of that name; LabError when there is none."""
    return cast("LoadBalancer", get_module(__name__, name, "load balancer"))
