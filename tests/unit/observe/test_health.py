"""Units that do not run and full disks: as the commands print them, and as outages."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from hoplab.core.errors import FactError
from hoplab.observe import health
from hoplab.observe.facts import Facts
from hoplab.observe.facts.disks import DISKS, Disk, Usage
from hoplab.observe.facts.units import NODE_UNITS, Unit
from hoplab.observe.script import Output
from tests.support.hurt import with_output, without_nodes
from tests.support.recordings import recording

LAB = recording("flannel-vxlan")
WELL = "unit containerd active\nunit kubelet active\nhealth ok\n"
STOPPED = (
    "unit containerd active\nunit kubelet inactive\nhealth no answer: curl: (7) Failed to connect\n"
    "said I1128 kubelet.go:1] starting\nsaid E1128 kubelet.go:2] no space left on device\n"
)
STUCK = "unit containerd active\nunit kubelet active\nhealth no answer: curl: (28) Operation timed out\nsaid last\n"
DF = """Filesystem     1024-blocks    Used Available Capacity Mounted on
/dev/vda1          4000000 {used} {free}      50% /
/dev/vdb            100000    1000     99000       1% /var/lib/some disk
Filesystem        Inodes {iused} {ifree} IUse% Mounted on
/dev/vda1         262144 {iused} {ifree}   11% /
/dev/vdb               -       -       -     - /var/lib/some disk
"""


def df(used: int = 2000000, free: int = 2000000, iused: int = 30000, ifree: int = 232144) -> str:
    return DF.format(used=used, free=free, iused=iused, ifree=ifree)


def test_units_are_read() -> None:
    assert NODE_UNITS.parse(WELL) == (Unit("containerd", "active", "", ()), Unit("kubelet", "active", "ok", ()))
    _, kubelet = NODE_UNITS.parse(STOPPED)
    assert not kubelet.runs and kubelet.last_words[-1] == "E1128 kubelet.go:2] no space left on device"


@pytest.mark.parametrize("text", ["nonsense", "health ok"])
def test_what_is_no_unit_is_refused(text: str) -> None:
    with pytest.raises(FactError, match="is not the state of a unit") as caught:
        NODE_UNITS.parse(text)
    assert "systemctl status" in caught.value.remedy


def test_the_command_prints_what_the_parser_reads() -> None:
    """Also where there is no systemd, no curl and no journal."""
    tools = (
        "systemctl() { shift; for unit; do echo failed; done; return 3; }; "
        "curl() { echo refused >&2; return 7; }; journalctl() { echo 'a b'; }"
    )
    done = subprocess.run(["sh", "-c", f"{tools}\n{NODE_UNITS.command}"], capture_output=True, text=True, check=True)
    containerd, kubelet = NODE_UNITS.parse(done.stdout)
    assert (containerd.state, containerd.last_words) == ("failed", ("a b",))
    assert kubelet == Unit("kubelet", "failed", "no answer: refused", ("a b",))


def test_a_healthy_unit_prints_no_journal() -> None:
    tools = "systemctl() { shift; for unit; do echo active; done; }; curl() { echo ok; }; journalctl() { echo secret; }"
    done = subprocess.run(["sh", "-c", f"{tools}\n{NODE_UNITS.command}"], capture_output=True, text=True, check=True)
    assert done.stdout == WELL


def test_disks_are_read() -> None:
    root, other = DISKS.parse(df())
    assert root == Disk("/dev/vda1", "/", Usage(2000000, 2000000), Usage(30000, 232144))
    assert (other.mount, other.space.share, other.inodes.share, other.full) == ("/var/lib/some disk", 0.01, 0.0, False)


def test_what_is_no_table_of_df_is_refused() -> None:
    with pytest.raises(FactError, match="'df: nonsense' is no line of `df -P`") as caught:
        DISKS.parse("df: nonsense")
    assert caught.value.remedy == "run `df -P` on the node"


def test_df_itself_is_read() -> None:
    done = subprocess.run(["sh", "-c", DISKS.command], capture_output=True, text=True, check=True)
    for disk in DISKS.parse(done.stdout):
        assert disk.mount.startswith("/") and 0 <= disk.space.share <= 1


def test_a_healthy_lab_and_an_older_recording_have_no_outage() -> None:
    assert health.outages(LAB) == ()
    assert health.outages(with_output(LAB, "worker1", units=WELL, disks=df())) == ()


def test_a_kubelet_that_is_stopped_says_its_last_words() -> None:
    (outage,) = health.outages(with_output(LAB, "worker2", units=STOPPED))
    assert outage.place == "kubelet of worker2"
    assert outage.problem == "kubelet of worker2 does not run: it is inactive"
    assert outage.evidence == (
        "the last lines of its journal on worker2:",
        "I1128 kubelet.go:1] starting",
        "E1128 kubelet.go:2] no space left on device",
    )
    assert outage.remedy == "./lab ssh worker2 systemctl status kubelet"


def test_a_kubelet_that_stands_still_is_told_from_one_that_runs() -> None:
    (outage,) = health.outages(with_output(LAB, "worker2", units=STUCK))
    assert "kubelet of worker2 stands still: it is active, but its health check says `no answer" in outage.problem


@pytest.mark.parametrize(
    ("text", "says", "figures"),
    [
        (df(3990000, 10000), "no space left: 100% are used", "3896 of 3906 MiB used, 30000 of 262144 inodes"),
        (df(iused=262144, ifree=0), "no inodes left: 100% are used", "1953 of 3906 MiB used, 262144 of 262144 inodes"),
    ],
)
def test_a_full_disk_is_named_with_its_figures(text: str, says: str, figures: str) -> None:
    (outage,) = health.outages(with_output(LAB, "worker1", disks=text))
    assert outage.problem == f"the disk of worker1 at / has {says}"
    assert outage.evidence == (f"/dev/vda1 on /: {figures}",)
    assert outage.remedy == "./lab ssh worker1 sudo du -xh --max-depth 3 /"


def test_what_a_node_shows_comes_after_what_could_not_be_looked_at() -> None:
    lab = without_nodes(with_output(LAB, "worker1", units=STOPPED), "worker2")
    assert [outage.place for outage in health.outages(lab)] == ["worker2", "kubelet of worker1"]


# Clusters that hoplab did not make

FOREIGN = replace(LAB, setting=replace(LAB.setting, foreign=True))
NEVER_THERE = "unit containerd inactive\nunit kubelet inactive\nhealth ok\n"  # k3s has both in its own unit
CDROM = "/dev/sr0 366 366 0 100% /media/cdrom\n"


def test_units_that_a_foreign_cluster_does_not_have_are_no_outage() -> None:
    assert health.outages(with_output(FOREIGN, "worker2", units=NEVER_THERE)) == ()
    assert len(health.outages(with_output(LAB, "worker2", units=NEVER_THERE))) == 2
    (outage,) = health.outages(with_output(FOREIGN, "worker2", units=STOPPED))
    assert outage.remedy == "ssh worker2 systemctl status kubelet"


def test_a_health_check_that_is_closed_is_an_outage_of_a_node_that_is_not_ready_only() -> None:
    assert health.outages(with_output(FOREIGN, "worker2", units=STUCK)) == ()
    nodes = LAB.api.outputs["nodes"].out.replace('"type":"Ready"', '"type":"Other"')
    other = replace(FOREIGN, api=Facts("api", {**LAB.api.outputs, "nodes": Output(0, nodes)}))
    (outage,) = health.outages(with_output(other, "worker2", units=STUCK))
    assert "kubelet of worker2 stands still" in outage.problem


def test_a_full_disk_is_an_outage_there_where_pods_are_on_it() -> None:
    with_cdrom = df().replace("\nFilesystem  ", f"\n{CDROM}Filesystem  ")
    assert health.outages(with_output(FOREIGN, "worker1", disks=with_cdrom)) == ()
    assert len(health.outages(with_output(LAB, "worker1", disks=with_cdrom))) == 1
    (outage,) = health.outages(with_output(FOREIGN, "worker1", disks=df(3990000, 10000)))
    assert outage.remedy == "ssh worker1 sudo du -xh --max-depth 3 /"
