"""Cilium: planned, no role yet."""

from hoplab.spec.parts import CniPart

PART = CniPart(name="cilium", planned=True)
