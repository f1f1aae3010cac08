"""The command that prints what a controller's pod serves, run here with stand-ins for `ip` and `curl`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hoplab.expectations import gateway
from hoplab.expectations.ingress import get_controller
from hoplab.expectations.parts import known_parts
from hoplab.spec.parts import usable
from hoplab.verify.observations import Shown, look_command

IP = """\
#!/bin/sh
[ "$1 $2 $3" = "netns pids pod-1" ] && { echo 1; echo $$; exit; }
[ "$1 $2 $3 $4" = "netns exec pod-1 curl" ] && echo "asked $6"
"""


CONTROLLERS: tuple[Shown, ...] = (
    *(get_controller(name) for name in usable(known_parts().ingress)),
    *(gateway.get_controller(name) for name in usable(known_parts().gateway)),
)


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_files_and_then_what_is_in_memory(controller: Shown, tmp_path: Path) -> None:
    (tmp_path / "ip").write_text(IP)
    (tmp_path / "ip").chmod(0o755)
    command = look_command(controller, "pod-1").replace("/proc/$pid/root/", f"{tmp_path}/$pid/")
    for pattern in controller.CONFIGURATION.split():
        file = tmp_path / "1" / pattern.lstrip("/").replace("*", "one")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{pattern}\n")
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    wanted = controller.CONFIGURATION.split()
    wanted += ["", f"asked {controller.ENDPOINTS}"] if controller.ENDPOINTS else []
    assert ran.stdout.splitlines() == wanted
    assert not ran.stderr
