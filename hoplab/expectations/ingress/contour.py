"""Contour: planned, no role yet."""

from hoplab.spec.parts import IngressPart

PART = IngressPart(name="contour", planned=True)
