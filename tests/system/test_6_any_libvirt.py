"""Labs of a user who is not root: on the system's libvirt, and on another host's libvirt over SSH.

The hosts are namespaces of ``tests.support.libvirt_worlds``: a libvirtd as a distribution starts it, with QEMU as its
own user, and a student in the group libvirt. What takes seconds is done every time, with machines that never run; the
whole lives of labs are run on request.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hoplab.core.paths import cache_dir, lab_id
from hoplab.spec.plan import bridge_name
from tests.support import far_network, libvirt_worlds
from tests.support.libvirt_worlds import FAR, STRANGER, STUDENT, Host

SYSTEM = "qemu:///system"
OVER_SSH = f"qemu+ssh://{STUDENT}@{FAR}/system"
CHECKOUT = Path(f"/home/{STUDENT}/hoplab")
BRIDGE = bridge_name(lab_id("dev", CHECKOUT))
MADE = [
    *("create CloudInitDisk worker1-seed", "create Domain worker1", "create Network network", "create Pool store"),
    *("create Volume image-disk", "create Volume image-initrd", "create Volume image-kernel"),
    *("create Volume worker1-console", "create Volume worker1-disk"),
]
VOLUMES = ["disk-aaaaaaaaaaaa", "initrd-aaaaaaaaaaaa", "kernel-aaaaaaaaaaaa"]
VOLUMES += ["worker1-seed.iso", "worker1.console", "worker1.qcow2"]
LACKING = libvirt_worlds.missing()

pytestmark = pytest.mark.skipif(bool(LACKING), reason=LACKING)
needs_sshd = pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="no sshd (package openssh-server)")


@dataclass(frozen=True)
class Place:
    """Where a lab is made: the host of the checkout, that of libvirt, and what the spec says."""

    here: Host
    libvirt: Host
    uri: str

    def python(self, module: str, *words: str) -> Any:
        """Run a module of the tests as the student; return the JSON that it prints."""
        program = ["sh", "-c", 'cd "$1" && shift && exec .venv/bin/python "$@"', "sh", str(CHECKOUT), "-m", module]
        done = self.here.run(*program, *words, user=STUDENT, env={"PYTHONPATH": str(CHECKOUT)})
        return json.loads(done.stdout)

    def lab(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``./lab`` as the student."""
        program = ["sh", "-c", 'cd "$1" && shift && exec ./lab "$@"', "sh", str(CHECKOUT), *words]
        return self.here.run(*program, user=STUDENT, env={"PYTHONPATH": str(CHECKOUT)}, check=check)

    def spec(self, **settings: str) -> None:
        lines = "".join(f"  lab:{name}: {value}\n" for name, value in {"libvirt": self.uri, **settings}.items())
        file = self.here.root / f"home/{STUDENT}/hoplab/Pulumi.dev.yaml"
        file.write_text(f"config:\n{lines}")

    def doctor(self) -> dict[str, Any]:
        """Return the checks of ``./lab doctor --json`` by name."""
        found = json.loads(self.lab("doctor", "--json", check=False).stdout)
        return {check["name"]: check for check in found["checks"]}


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that other users get to; pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="hoplab-hosts-", dir="/var/tmp", ignore_cleanup_errors=True) as made:
        yield Path(made)


@pytest.fixture(scope="module")
def system() -> Iterator[Place]:
    """A student of the host that has the libvirt."""
    with folder() as files, libvirt_worlds.host(files / "host", libvirt=True) as host:
        host.lend_project()
        yield Place(host, host, SYSTEM)


@pytest.fixture(scope="module")
def remote() -> Iterator[Place]:
    """A student whose libvirt is on another host; on this one there is none."""
    with (
        folder() as files,
        libvirt_worlds.host(files / "far", libvirt=True) as far,
        libvirt_worlds.host(files / "near") as near,
    ):
        libvirt_worlds.link(near, far)
        host_key = far.start_sshd(near.key_of(STUDENT))
        (near.root / f"home/{STUDENT}/.ssh/known_hosts").write_text(f"{FAR} {host_key}\n")
        near.lend_project()
        yield Place(near, far, OVER_SSH)


def accel() -> str:
    """What machines of this host run with, as the last ``up`` on it found; libvirt says what might work."""
    try:
        return str(json.loads((cache_dir() / "accel.json").read_text())["choice"]["accel"])
    except (OSError, ValueError, LookupError):
        return "auto"


def assert_nothing_left(place: Place) -> None:
    for what in ("list --all", "net-list --all", "pool-list --all"):
        assert place.libvirt.run("virsh", "-c", SYSTEM, *what.split(), "--name").stdout.split() == []
    images = place.libvirt.root / "var/lib/libvirt/images"
    assert list(images.iterdir()) == []
    names = place.here.run("ls", "-A", f"{CHECKOUT}/.lab", f"{CHECKOUT}/inventory", check=False).stdout.split()
    assert not [name for name in names if name.startswith("dev")]


def made_and_removed(place: Place, *options: str) -> dict[str, Any]:
    work = f"/home/{STUDENT}/work"
    place.here.run("rm", "-rf", work)
    place.here.run("mkdir", work, user=STUDENT)
    seen: dict[str, Any] = place.python("tests.support.paused_lab", work, place.uri, *options)
    assert seen["first"] == MADE
    assert seen["second"] == []
    assert seen["volumes"] == VOLUMES
    assert f"/var/lib/libvirt/images/{seen['name'].removesuffix('-worker1')}</path>" in seen["pool"]
    assert (seen["silent"], seen["said"], seen["crash"], seen["fresh"]) == (
        False,
        True,
        "Kernel panic - not syncing: x",
        False,
    )
    assert seen["drift"] == ["update Domain worker1"]
    assert seen["left"] == []
    assert_nothing_left(place)
    return seen


def test_a_member_of_the_group_makes_machines_on_the_systems_libvirt(system: Place) -> None:
    """QEMU runs as its own user, reads the lab's volumes and writes the console log, which the member reads."""
    made_and_removed(system)


def test_what_has_the_labs_name_is_removed_without_the_engines_state(system: Place) -> None:
    swept = made_and_removed(system, "--sweep")["swept"]
    assert [what.split()[0] for what in swept] == ["machine", "network", "pool"]


@needs_sshd
def test_volumes_and_machines_of_another_host(remote: Place) -> None:
    made_and_removed(remote)


@needs_sshd
def test_the_way_into_the_network_of_another_host(remote: Place) -> None:
    """The API's forward, requests from outside and the server there begin and end at the other host's end."""
    program = ["sh", "-c", far_network.NETWORK, "sh", "/usr/bin/python3"]
    with subprocess.Popen(
        remote.libvirt.command(*program), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as there:
        try:
            listening = f"until ss -Hltn 'src {far_network.MACHINE}:{far_network.PORT}' | grep -q .; do sleep 0.1; done"
            remote.libvirt.run("sh", "-c", listening, timeout=libvirt_worlds.READY_S)
            seen = remote.python("tests.support.far_network", OVER_SSH)
        finally:
            remote.libvirt.run("ip", "link", "delete", "hl00000000")
            there.terminate()
    assert seen["ranges"] == ["10.66.0.0/24", "192.168.77.0/24"]
    assert seen["skew"]
    assert (seen["forwarded"], seen["fetched"], seen["client"]) == ("ok", "200", far_network.HOST_END)
    assert len(seen["ended"]) == 1


def test_who_is_in_no_group_gets_the_line_that_helps(system: Place) -> None:
    script = "import sys; from hoplab.lab.libvirt_host import libvirt_answers; print(libvirt_answers(sys.argv[1])[0])"
    words = ["sh", "-c", 'cd /run && exec "$@"', "sh", sys.executable, "-c", script, SYSTEM]
    system.here.run("sh", "-c", f"cp -r {CHECKOUT}/hoplab /run/ && chmod -R go+rX /run/hoplab")  # homes are closed
    seen = system.here.run(*words, user=STRANGER, env={"PYTHONPATH": "/run"})
    assert "Permission denied" in seen.stdout and "usermod -aG libvirt $USER" in seen.stdout


def test_the_doctor_sees_the_hosts_networks(system: Place) -> None:
    """A VPN's half default routes are no clash, the lab's own bridge is none, Docker's network is one with a name."""
    host = system.here
    system.spec(accel="tcg")
    host.run("ip", "link", "add", "tun0", "type", "bridge")
    host.run("ip", "link", "set", "tun0", "up")
    for half in ("0.0.0.0/1", "128.0.0.0/1"):
        host.run("ip", "route", "add", half, "dev", "tun0")
    host.run("ip", "link", "add", BRIDGE, "type", "bridge")
    host.run("ip", "address", "add", "192.168.77.1/24", "dev", BRIDGE)
    try:
        found = system.doctor()
        assert found["spec"]["ok"], found["spec"]
        assert found["libvirt"]["ok"] and found["disk for machines"]["ok"]
        host.run("ip", "link", "add", "docker0", "type", "bridge")
        host.run("ip", "address", "add", "10.244.7.1/16", "dev", "docker0")
        refused = system.doctor()["spec"]
        assert not refused["ok"]
        assert (
            "podCIDR: 10.244.0.0/16 overlaps 10.244.0.0/16, which this host uses (Docker's network docker0)"
            in (refused["found"])
        )
    finally:
        for device in ("tun0", BRIDGE, "docker0"):
            host.run("ip", "link", "delete", device, check=False)


@needs_sshd
def test_the_doctor_looks_at_the_other_host(remote: Place) -> None:
    remote.spec(accel="tcg")
    found = remote.doctor()
    assert all(check["ok"] for check in found.values() if check["needed"]), found
    assert found["clock"]["found"].startswith(f"{STUDENT}@{FAR} is ")
    assert found["memory"]["found"].endswith(f"on {STUDENT}@{FAR}")
    remote.spec(accel="tcg", controlPlane="{placement: hosted}")
    refused = remote.doctor()["spec"]["found"]
    assert "hosted runs it on this host, which the machines of student@10.66.0.2 can't reach; vm or auto" in refused


@pytest.mark.on_request
@pytest.mark.timeout(0)  # every command that is run has a bound of its own
@pytest.mark.parametrize(
    "where",
    [
        "system",
        # its control plane is a machine there: where machines are emulated that takes a QEMU without the races of 7.2
        pytest.param("remote", marks=needs_sshd),
    ],
)
def test_the_whole_life_of_a_lab(where: str, request: pytest.FixtureRequest) -> None:
    place: Place = request.getfixturevalue(where)
    place.spec(nodes="{workers: 1}", accel=accel())
    place.lab("up")
    again = place.lab("up").stdout
    assert "changed   0 resources, 0 tasks" in again
    place.lab("verify")
    assert json.loads(place.lab("status", "--json").stdout)["healthy"]
    place.lab("stop")
    place.lab("start")
    assert json.loads(place.lab("status", "--json").stdout)["healthy"]
    place.lab("destroy")
    assert_nothing_left(place)
