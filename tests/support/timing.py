"""The timing of waits in tests."""

from __future__ import annotations

from hoplab.core.wait import Timing

UNSCALED = Timing(slowness=lambda: 1.0)  # deadlines do not grow with the load of the machine
