"""Where the files are that tests compare with."""

from __future__ import annotations

from hoplab.core.paths import PROJECT

SUPPORT = PROJECT / "tests" / "support"
GOLDEN = SUPPORT / "golden"  # texts that hoplab emits
CAPTURED = SUPPORT / "captured"  # what real tools printed
RECORDINGS = PROJECT / "tests" / "recordings"  # of real labs
