"""What enforces NetworkPolicies, and which rules of a node show it.

A CNI that enforces them itself has its module here, without a ``PART``. What enforces them beside a CNI that does not
is a part of its own: one module with a ``PART``, and the role policy_<name>.
"""

from __future__ import annotations

from typing import cast

from hoplab.expectations.policy import cilium, felix
from hoplab.expectations.policy.enforcer import Admission, Direction, Enforcer
from hoplab.expectations.registry import get_module
from hoplab.observe.setting import Setting

__all__ = ["Admission", "Direction", "Enforcer", "of"]


def of(setting: Setting) -> Enforcer | None:
    """Return what enforces policies in a lab as the lessons know it; None where nothing does.

    Felix's rules are known in iptables alone, and Cilium's maps by facts of its own.
    """
    if setting.network_policy != "none":
        return cast("Enforcer", get_module(__name__, setting.network_policy, "program that enforces policies"))
    if setting.cni == "calico" and setting.proxy_mode == "iptables":
        return cast("Enforcer", felix)
    if setting.cni == "cilium" and not setting.foreign:
        return cast("Enforcer", cilium)
    return None
