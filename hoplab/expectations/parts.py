"""All parts that this installation has, for the folders below that receive them as an argument."""

from __future__ import annotations

from hoplab.expectations.registry import modules
from hoplab.spec.parts import Parts

KINDS = ("cni", "proxy", "ingress", "gateway", "loadbalancer", "policy")
PACKAGES = tuple(f"hoplab.expectations.{kind}" for kind in KINDS)


def known_parts() -> Parts:
    """Return the descriptors of all parts, also of those that are planned or refused."""
    return Parts.of(part for package in PACKAGES for part, _ in modules(package))
