"""Set-up on other distributions than this host's: the first `./lab` in a root file system that has next to nothing.

A root file system of Debian 13 is made by mmdebstrap; with another /etc/os-release it is like Ubuntu's, whose packages
have the same names. Programs run there in mount and PID namespaces of their own, with the host's network for packages.
Each takes two minutes and more, mostly downloads.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.checkouts import copy_project, give, package_settings

TOOLS = ("mmdebstrap", "unshare", "chroot", "mount")
LACKING = [tool for tool in TOOLS if not shutil.which(tool)] + ([] if os.geteuid() == 0 else ["root"])
CHECKOUT, USER = "home/hoplab", 1000
HALF_AN_HOUR = 1800.0
RELEASES = {  # of /etc/os-release; "" leaves Debian's own
    "Debian 13": "",
    "like Ubuntu": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="26.04"\nPRETTY_NAME="Ubuntu 26.04 LTS"\n',
}
ENTERED = """\
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount --rbind /sys "$1/sys"
mount --rbind /dev "$1/dev"
for file in resolv.conf hosts; do
  touch "$1/etc/$file"
  mount --bind "$(readlink -f "/etc/$file")" "$1/etc/$file"
done
root=$1; shift
exec chroot "$root" "$@"
"""

pytestmark = [
    pytest.mark.timeout(0),
    pytest.mark.on_request,
    pytest.mark.skipif(bool(LACKING), reason=f"needs {', '.join(LACKING)}"),
]


@dataclass(frozen=True)
class Machine:
    """A root file system with a checkout."""

    root: Path

    def run(self, *command: str, user: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command in the checkout to its end."""
        environment = {name: self._brought(value) for name, value in package_settings().items()}
        own = {"PATH": f"{os.defpath}:/usr/sbin:/sbin", "HOME": "/root", "LC_ALL": "C.UTF-8", **environment}
        words = [f"{name}={value}" for name, value in own.items()]
        inside = ["env", "-i", *words, "sh", "-c", f'cd /{CHECKOUT} && exec "$@"', "sh", *command]
        be = ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups"] if user else []
        entered = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", ENTERED, "sh", str(self.root)]
        return subprocess.run(
            [*entered, *be, *inside], capture_output=True, text=True, check=False, timeout=HALF_AN_HOUR
        )

    def _brought(self, value: str) -> str:
        """Copy a file that a setting names, as a certificate of the host's proxy; return the setting's value there."""
        if not value.startswith("/") or not Path(value).is_file():
            return value
        copy = self.root / "srv" / value.replace("/", "-")
        shutil.copy(value, copy)
        return f"/srv/{copy.name}"


@pytest.fixture(scope="module")
def bare() -> Iterator[Path]:
    """The root file system of Debian 13 with nothing but apt."""
    folder = Path("/var/tmp", f"hoplab-set-up-{os.getpid()}")
    folder.mkdir(mode=0o755)
    try:
        subprocess.run(["mmdebstrap", "--quiet", "--variant=apt", "trixie", str(folder / "bare")], check=True)
        yield folder / "bare"
    finally:
        shutil.rmtree(folder)


@pytest.fixture(params=RELEASES)
def machine(bare: Path, request: pytest.FixtureRequest) -> Iterator[Machine]:
    root = bare.with_name(request.param.replace(" ", "-"))
    subprocess.run(["cp", "-a", str(bare), str(root)], check=True)
    copy_project(root / CHECKOUT)
    give(root / CHECKOUT, USER)
    if text := RELEASES[request.param]:
        release = root / "etc/os-release"
        release.unlink()
        release.write_text(text)
    yield Machine(root)
    shutil.rmtree(root)


def test_set_up_installs_what_is_missing(machine: Machine) -> None:
    refused = machine.run("./lab", "version", user=USER)
    assert refused.returncode == 1 and "sudo apt-get install" in refused.stderr, refused.stdout + refused.stderr

    ran = machine.run("./lab", "version")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "lab: set-up: installing " in ran.stderr and ran.stdout.startswith("hoplab"), ran.stderr
    again = machine.run("./lab", "version")
    assert (again.returncode, "set-up" in again.stderr) == (0, False), again.stderr

    # what it says of tools is true of this system: nothing is missing but what a kernel has to have
    checks = {check["name"]: check for check in json.loads(machine.run("./lab", "doctor", "--json").stdout)["checks"]}
    assert checks["tools"]["ok"], checks["tools"]
