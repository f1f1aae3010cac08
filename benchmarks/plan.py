"""The time of planning: .venv/bin/python benchmarks/plan.py

1000 workers: 8.9 ms (best of 5)
"""

from __future__ import annotations

import timeit
from ipaddress import IPv4Network

from hoplab.lab.spec_file import plan_lab
from hoplab.spec.model import LabSpec

spec = LabSpec("bench", workers=1000, network=IPv4Network("10.0.0.0/21"))
best = min(timeit.repeat(lambda: plan_lab(spec, lab_id="bench-0", accel="kvm"), number=1, repeat=5))
print(f"{spec.workers} workers: {best * 1000:.1f} ms (best of 5)")
