"""Scripts of a node's batch, run on this machine."""

from __future__ import annotations

import subprocess

from hoplab.observe.script import PROLOGUE, Output, Script


def ran(script: Script) -> dict[str, Output]:
    """Run a script as a node's shell does; return its outputs by key."""
    text = f"{PROLOGUE}\n{script.text}".replace("/run/hoplab-err", "/tmp/hoplab-err")  # anybody may run tests
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True, timeout=60)
    assert script.end in done.stdout
    return script.split(done.stdout)
