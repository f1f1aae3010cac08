"""Labs of a user who is not root: what an administrator has to give, and real namespaces of a user made here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hoplab.core import host_network, paths
from hoplab.core.errors import HostError
from hoplab.host import own_namespaces, rootless
from hoplab.host.libvirtd import SEARCH, TOOLS
from hoplab.host.rootless import Need
from tests.support import unprivileged
from tests.support.unprivileged import HOME, Unprivileged

needs_user = pytest.mark.skipif(bool(unprivileged.lacking()), reason=f"needs {unprivileged.lacking()}")
INSTALLED = pytest.mark.usefixtures("newuidmap")


@pytest.fixture
def newuidmap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")


@INSTALLED
def test_a_user_with_subordinate_ids_has_them_by_name_or_number() -> None:
    for owner in ("learner", str(os.getuid())):
        need = rootless.subordinate_ids("learner", [f"a:1:9\n{owner}:100000:65536\n"] * 2)
        assert need == Need("subordinate ids", True, "65536 and more for learner in /etc/subuid and /etc/subgid")


@INSTALLED
@pytest.mark.parametrize(
    ("subuid", "subgid", "files", "line"),
    [
        ("", "", "uid and /etc/subgid", "--add-subuids 100000-165535 --add-subgids 100000-165535"),
        # after every range of both files
        ("", "a:100000:65536\nlearner:165536:65536\n", "uid", "--add-subuids 231072-296607"),
        ("learner:9:65536\n", "xlearner:100000:65536\nlearners:9:9\n", "gid", "--add-subgids 165536-231071"),
        (  # too few for a Debian system; `unshare` looks at the first range only
            "learner:100000:1000\nlearner:200000:65536\n",
            "learner:100000:65536\n",
            "uid",
            "--del-subuids 100000-100999 --add-subuids 265536-331071",
        ),
    ],
)
def test_a_user_without_subordinate_ids_gets_the_line_with_a_free_range(
    subuid: str, subgid: str, files: str, line: str
) -> None:
    need = rootless.subordinate_ids("learner", [subuid, subgid])
    assert not need.ok
    assert need.found == f"learner has fewer than 65536 in /etc/sub{files}"
    assert need.remedy == f"sudo usermod {line} learner"


def test_without_newuidmap_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    need = rootless.subordinate_ids("learner", ["learner:1:65536"] * 2)
    assert (need.ok, need.found) == (False, "no newuidmap, which gives a user more ids than one")
    assert need.remedy.startswith("sudo ")
    assert "uidmap" in need.remedy or "shadow" in need.remedy


@pytest.mark.parametrize(
    ("setting", "value", "found", "line"),
    [
        (
            "kernel/unprivileged_userns_clone",
            "0",
            "this kernel makes them for root alone (kernel.unprivileged_userns_clone is 0)",
            "kernel.unprivileged_userns_clone = 1",
        ),
        (
            "user/max_user_namespaces",
            "0",
            "this kernel makes none (user.max_user_namespaces is 0)",
            "user.max_user_namespaces = 15000",
        ),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "AppArmor takes their capabilities away (kernel.apparmor_restrict_unprivileged_userns is 1)",
            "kernel.apparmor_restrict_unprivileged_userns = 0",
        ),
    ],
)
def test_a_setting_that_refuses_user_namespaces_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, found: str, line: str
) -> None:
    monkeypatch.setattr(rootless, "NEW", ("false",))
    file = tmp_path / setting
    file.parent.mkdir()
    file.write_text(f"{value}\n")
    assert rootless.user_namespaces(tmp_path) == Need(
        "user namespaces",
        False,
        found,
        f"echo '{line}' | sudo tee -a /etc/sysctl.d/60-hoplab.conf && sudo sysctl --system",
    )


def test_another_reason_for_no_user_namespaces_is_the_last_line_of_unshare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rootless, "NEW", ("sh", "-c", "echo one >&2; echo 'unshare failed: No space' >&2; exit 1"))
    need = rootless.user_namespaces(tmp_path)
    assert need.found == "cannot be made: unshare failed: No space"
    assert need.remedy == "in a container, start it with --privileged; else see docs/rootless.md"
    monkeypatch.setattr(rootless, "NEW", ("sh", "-c", "echo 'no line in /etc/subuid' >&2; exit 1"))
    assert rootless.user_namespaces(tmp_path).remedy == "first mend the subordinate ids"
    monkeypatch.setattr(rootless, "NEW", ("true",))
    assert rootless.user_namespaces(tmp_path) == Need("user namespaces", True, "can be made")


def test_the_device_of_network_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "tun"
    assert rootless.tun(device, "learner") == Need("network cards", False, f"no {device}", "sudo modprobe tun")
    device.touch()
    assert rootless.tun(device, "learner").ok
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert rootless.tun(device, "learner") == Need(
        "network cards", False, f"{device} may not be used by learner", f"sudo chmod 0666 {device}"
    )


def test_a_group_is_no_access_for_qemu_which_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "kvm"
    device.touch(mode=0o660)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(os, "getegid", lambda: 12345)
    monkeypatch.setattr(os, "getgroups", lambda: [12345, device.stat().st_gid])
    assert not rootless.may_use(device)
    device.chmod(0o666)
    assert rootless.may_use(device)


def test_a_holder_is_known_by_its_start_and_the_hosts_boot(tmp_path: Path) -> None:
    record = tmp_path / "holder"
    assert own_namespaces.holder(record) == 0
    record.write_text(own_namespaces.identity(os.getpid()))
    assert own_namespaces.holder(record) == os.getpid()
    pid, started, boot = record.read_text().split()
    for other in (f"{pid} {int(started) - 1} {boot}\n", f"{pid} {started} {boot[::-1]}\n", "", "x y z\n", "1\n"):
        record.write_text(other)
        assert own_namespaces.holder(record) == 0
        with pytest.raises(OSError, match=r"holds|No such"):
            own_namespaces.opened(record, "user")


def test_as_root_nothing_is_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(paths.INSIDE, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(own_namespaces, "enter", lambda _record: pytest.fail("entered"))
    rootless.enter()
    assert host_network.run(os.getpid) == os.getpid()
    assert rootless.in_network("hoplab-x") == "nsenter --net=/run/netns/hoplab-x"


def test_ssh_of_who_is_not_root_enters_by_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rootless, "wanted", lambda: True)
    monkeypatch.setattr(paths, "user_run", lambda: Path("/home/a user/100%/run"))
    words = rootless.in_network("hoplab-x")
    assert words.endswith("/own_namespaces.py exec '/home/a user/100%%/run/holder' hoplab-x")  # %% is a % of ssh_config


def test_a_user_that_may_not_is_told_the_first_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "user_run", lambda: tmp_path)
    monkeypatch.setattr(rootless, "NEW", ("sh", "-c", "echo no >&2; exit 1"))
    monkeypatch.setattr(rootless, "needs", lambda: [Need("a", True, "is"), Need("b", False, "is not", "sudo it")])
    with pytest.raises(HostError, match="b: is not") as refused:
        rootless.start_holder()
    assert refused.value.remedy == "sudo it"
    monkeypatch.setattr(rootless, "needs", list)
    with pytest.raises(HostError, match="no namespaces for labs without root: no") as refused:
        rootless.start_holder()
    assert refused.value.log


@pytest.fixture
def user(tmp_path: Path) -> Iterator[Unprivileged]:
    with unprivileged.unprivileged(tmp_path) as made:
        yield made


ENTERED = """
import json, os, subprocess
from hoplab.core import host_network, paths
from hoplab.host import netns, rootless
host = os.readlink("/proc/self/ns/net")
rootless.enter()
rootless.enter()
{body}
"""


def seen(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@needs_user
def test_a_user_is_root_of_their_own_namespaces_and_nothing_stays(user: Unprivileged) -> None:
    body = """
netns.create("hoplab-a")
with netns.entered("hoplab-a"):
    forward = open("/proc/sys/net/ipv4/ip_forward").read().strip()
netns.delete("hoplab-a")
here = lambda: os.readlink("/proc/thread-self/ns/net")
open("file", "w").close()
os.makedirs("/run/libvirt")
print(json.dumps({"uid": os.geteuid(), "cwd": os.getcwd(), "moved": here() != host, "forward": forward,
    "outside": host_network.run(here) == host, "groups": os.getgroups(), "held": rootless.record().exists()}))
"""
    found = seen(user.python(ENTERED.format(body=body)))
    assert found == {
        "uid": 0,
        "cwd": str(HOME),
        "moved": True,
        "forward": "1",
        "outside": True,
        "groups": [],
        "held": True,
    }
    assert (user.home / "file").stat().st_uid == unprivileged.ID
    assert unprivileged.processes() == []
    assert {path.name for path in user.home.rglob("*")} == {"file", ".cache", "hoplab"}
    assert not Path("/run/netns/hoplab-a").exists()


CHILD = """
import os
from hoplab.core import host_network
from hoplab.host import rootless
here = lambda: os.readlink("/proc/thread-self/ns/net")
first = here()
rootless.enter()
print(first, here(), host_network.run(here), host_network.run_long(here), os.geteuid())
"""


@needs_user
def test_what_starts_in_the_hosts_network_moves_by_itself_or_stays(user: Unprivileged) -> None:
    body = f"""
import sys
here = lambda: os.readlink("/proc/thread-self/ns/net")
start = lambda: subprocess.run([sys.executable, "-P", "-c", {CHILD!r}], capture_output=True, text=True, check=True)
there = host_network.run(start).stdout.split()  # a lab of a fleet, Pulumi's program
beside = start().stdout.split()  # without a way to the host's network
found = {{"there": there == [host, here(), host, host, "0"], "beside": beside == [here()] * 4 + ["0"]}}
print(json.dumps(found), flush=True)
host_network.run(lambda: os.execvp("sh", ["sh", "-c", f"test $(readlink /proc/self/ns/net) = {{host}} || echo moved"]))
"""
    done = user.python(ENTERED.format(body=body))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"there": True, "beside": True}


@needs_user
def test_a_lab_keeps_the_namespaces_until_the_last_command_after_it(user: Unprivileged) -> None:
    assert user.python(ENTERED.format(body='netns.create("hoplab-a")')).returncode == 0
    (holder,) = unprivileged.processes()
    assert "own_namespaces.py hold" in holder

    at_once = user.run(
        "sh", "-c", f"ip -br link; {user.python_words()} exec {HOME}/.cache/hoplab/run/holder hoplab-a ip -br link"
    )
    assert at_once.stdout.splitlines()[-1].startswith("lo ")
    assert len(at_once.stdout.splitlines()) > 1

    assert user.python(ENTERED.format(body='netns.delete("hoplab-a")')).returncode == 0
    assert unprivileged.processes() == []


@needs_user
def test_what_a_killed_holder_left_ends_before_there_is_another(user: Unprivileged) -> None:
    body = """
netns.create("hoplab-a")
with netns.entered("hoplab-a"):
    subprocess.Popen(["sleep", "1000"], stdout=-3, stderr=-3, start_new_session=True)  # to nowhere
os.kill(int(rootless.record().read_text().split()[0]), 9)
"""
    assert user.python(ENTERED.format(body=body)).returncode == 0
    assert unprivileged.processes() == ["sleep 1000"]
    found = seen(user.python(ENTERED.format(body='print(json.dumps({"there": netns.exists("hoplab-a")}))')))
    assert found == {"there": False}
    assert unprivileged.processes() == []


@needs_user
def test_a_command_that_is_not_there_is_named(user: Unprivileged) -> None:
    assert user.python(ENTERED.format(body='netns.create("hoplab-a")')).returncode == 0
    record = str(HOME / ".cache/hoplab/run/holder")
    done = user.run(*user.python_words().split(), "exec", record, "hoplab-a", "/no/such")
    assert (done.returncode, done.stderr) == (1, "/no/such: No such file or directory\n")
    assert user.python(ENTERED.format(body='netns.delete("hoplab-a")')).returncode == 0


@needs_user
def test_with_another_home_a_user_has_other_namespaces(user: Unprivileged) -> None:
    assert user.python(ENTERED.format(body='netns.create("hoplab-a")')).returncode == 0
    elsewhere = ENTERED.replace(
        "host = os", "os.makedirs('other'); os.environ['HOME'] = os.path.abspath('other'); host = os"
    )
    found = seen(user.python(elsewhere.format(body='print(json.dumps({"there": netns.exists("hoplab-a")}))')))
    assert found == {"there": False}
    found = seen(user.python(ENTERED.format(body='print(json.dumps({"there": netns.exists("hoplab-a")}))')))
    assert found == {"there": True}
    assert user.python(ENTERED.format(body='netns.delete("hoplab-a")')).returncode == 0
    assert unprivileged.processes() == []


@needs_user
def test_root_ends_nobodys_processes(user: Unprivileged) -> None:
    assert user.python(ENTERED.format(body='netns.create("hoplab-a")')).returncode == 0
    assert len(unprivileged.processes()) == 1
    assert rootless.orphans() == []
    assert user.python(ENTERED.format(body='netns.delete("hoplab-a")')).returncode == 0


@needs_user
def test_a_command_in_another_users_place_finds_no_holder(user: Unprivileged, tmp_path: Path) -> None:
    done = user.run(*user.python_words().split(), "exec", str(HOME / "none"), "hoplab-a", "true")
    assert done.returncode == 1
    assert done.stderr.startswith("the network of this lab is not there, ./lab start makes it: ")


MACHINE = """
import libvirt
from pathlib import Path
from hoplab.core.paths import LabPaths
from hoplab.host import machines
from hoplab.host.libvirtd import PrivateLibvirt

lab = PrivateLibvirt(LabPaths("unit", Path("{home}/project")))
uri = lab.start()
with machines.connected(uri) as connection:
    connection.networkCreateXML("<network><name>n</name><forward mode='nat'/><bridge name='hlunit0'/>"
        "<ip address='192.168.77.1' netmask='255.255.255.0'><dhcp><range start='192.168.77.10' end='192.168.77.20'/>"
        "</dhcp></ip></network>")
    lab.paths.console.mkdir(parents=True)
    connection.createXML("<domain type='qemu'><name>m</name><memory unit='MiB'>32</memory><os><type machine='q35'>hvm"
        f"</type></os><devices><serial type='file'><source path='{{lab.paths.console}}/m.log'/></serial>"
        "<interface type='network'><source network='n'/></interface></devices></domain>")
inside = ["ip", "netns", "exec", lab.paths.netns]
ports = subprocess.run([*inside, "ip", "-br", "link", "show", "master", "hlunit0"], capture_output=True, text=True)
rules = subprocess.run([*inside, "iptables", "-t", "nat", "-S"], capture_output=True, text=True)
print(json.dumps({{"running": machines.domain_states(uri), "ports": ports.stdout.split()[:2], "masquerade":
    "MASQUERADE" in rules.stdout, "run": str(lab.paths.run)}}))
"""
STOP = """
from pathlib import Path
from hoplab.core.paths import LabPaths
from hoplab.host.libvirtd import PrivateLibvirt
print(json.dumps(PrivateLibvirt(LabPaths("unit", Path("{home}/project"))).stop()))
"""


@needs_user
@pytest.mark.skipif(not all(shutil.which(tool, path=SEARCH) for tool in TOOLS), reason="needs libvirt")
def test_a_user_has_a_libvirtd_with_a_network_and_a_machine(user: Unprivileged) -> None:
    found = seen(user.python(ENTERED.format(body=MACHINE.format(home=HOME))))
    run = found.pop("run")
    assert found == {"running": {"m": "running"}, "ports": ["vnet0", "UNKNOWN"], "masquerade": True}
    assert str(run).startswith(f"{HOME}/.cache/hoplab/run/unit-")
    assert not Path("/sys/class/net/hlunit0").exists()
    assert any("qemu" in words for words in unprivileged.processes())

    # from the user's own shell, outside of the namespaces
    listed = user.run("virsh", "-c", f"qemu+unix:///system?socket={run}/libvirt-sock", "list", "--name")
    assert listed.stdout.split() == ["m"], listed.stderr

    removed = json.loads(user.python(ENTERED.format(body=STOP.format(home=HOME))).stdout)
    assert any(line.startswith("qemu-system-x86_64 m (pid ") for line in removed)
    assert unprivileged.processes() == []
    assert {path.stat().st_uid for path in user.home.rglob("*")} == {unprivileged.ID}
    assert not (user.home / ".cache/hoplab/run").exists()
