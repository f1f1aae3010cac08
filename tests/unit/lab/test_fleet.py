"""Several labs of one spec: their names and networks, what is refused before anything starts, and what is said."""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from hoplab import cli
from hoplab.core.errors import HostError, LabError, SpecError, StateError
from hoplab.core.paths import LabPaths
from hoplab.host import ksm
from hoplab.host.info import HostFacts
from hoplab.host.ksm import Merged, NoMerging
from hoplab.lab import fleet, fleet_members, fleet_sheets, state
from hoplab.lab.fleet_members import Fleet, FleetError
from hoplab.lab.spec_file import load_spec, plan_lab
from hoplab.spec.model import LabSpec
from hoplab.spec.plan import LabPlan
from tests.support.fleets import Heard, stand_in

HOST = HostFacts(24_000, 20_000, cpus=2, networks=(), is_root=True, qemu_version="")


def plans(of: Fleet, count: int) -> dict[LabPaths, LabPlan]:
    return {
        member: plan_lab(load_spec(member), lab_id=member.id, accel="tcg")
        for member in fleet_members.write_specs(of, count)
    }


def save(member: LabPaths, plan: LabPlan) -> None:
    """What `up` writes down."""
    spec = load_spec(member)
    made = state.lab_state(plan, libvirt_uri="", netns="", image="", image_bin=Path("/bin"), spec=spec)
    state.save(made, member)


def test_members_are_alike_inside_and_forks_of_the_first(course: Fleet) -> None:
    made = plans(course, 2)
    first, second = made
    assert (first.lab, second.lab) == ("course-s1", "course-s2")
    one, two = made.values()
    assert (one.nodes, one.network.cidr, one.network.domain) == (two.nodes, two.network.cidr, "course.hoplab")
    assert (one.id, one.network.name, one.network.bridge) != (two.id, two.network.name, two.network.bridge)
    assert first.spec.read_text() == (
        "# written by `lab fleet up course`; change Pulumi.course.yaml instead\n"
        "config:\n  lab:nodes:\n    workers: 1\n"
        "  lab:checkpoint: auto\n  lab:network: 192.168.77.0/24\n  lab:family: course\n"
    )
    assert load_spec(second).checkpoint == "take"


@pytest.mark.parametrize("setting", ["lab:checkpoint: 'off'", "lab:libvirt: system"])
def test_members_that_are_no_forks_differ_in_their_network(course: Fleet, setting: str) -> None:
    (course.project / "Pulumi.course.yaml").write_text(f"config:\n  {setting}\n")
    one, two = (load_spec(member) for member in fleet_members.write_specs(course, 2))
    assert (str(one.network), str(two.network)) == ("192.168.77.0/24", "192.168.78.0/24")
    assert (one.family, two.family, one.checkpoint, two.checkpoint) == ("", "", "off", "off")


def test_a_member_from_before_there_were_forks_keeps_its_network(course: Fleet) -> None:
    old = course.member(2)
    old.spec.write_text("# written by `lab fleet up course`\nconfig:\n  lab:network: 192.168.78.0/24\n")
    save(old, plan_lab(load_spec(old), lab_id=old.id, accel="tcg"))
    one, two, three = (load_spec(member) for member in fleet_members.write_specs(course, 3))
    assert (str(two.network), two.family, two.checkpoint) == ("192.168.78.0/24", "", "off")
    assert [(str(spec.network), spec.family) for spec in (one, three)] == [("192.168.77.0/24", "course")] * 2


def test_networks_keep_clear_of_pods_and_services() -> None:
    spec = LabSpec("course", network=IPv4Network("10.243.255.0/24"))
    assert [str(network) for network in fleet_members.networks(spec, 2)] == ["10.243.255.0/24", "10.245.0.0/24"]


def test_networks_never_leave_the_private_ranges() -> None:
    with pytest.raises(SpecError) as refused:
        fleet_members.networks(LabSpec("course", network=IPv4Network("192.168.254.0/24")), 3)
    assert str(refused.value.issues[0]) == (
        "network: private networks of this size from 192.168.254.0/24 on are 2; "
        "a network with room for 3 after it, for instance 10.100.0.0/24"
    )


def test_write_specs_again_keeps_members_and_applies_a_change(course: Fleet) -> None:
    fleet_members.write_specs(course, 3)
    (course.project / "Pulumi.course.yaml").write_text("config:\n  lab:nodes: {workers: 2}\n")
    assert [member.lab for member in fleet_members.write_specs(course, 2)] == ["course-s1", "course-s2"]
    assert [member.lab for member in course.made()] == ["course-s1", "course-s2", "course-s3"]
    assert yaml.safe_load(course.member(2).spec.read_text())["config"]["lab:nodes"] == {"workers": 2}


def test_write_specs_writes_nothing_for_a_wrong_spec(course: Fleet) -> None:
    (course.project / "Pulumi.course.yaml").write_text("config:\n  lab:nodes: {workers: 0}\n")
    with pytest.raises(SpecError, match=r"Pulumi\.course\.yaml: 1 mistake"):
        fleet_members.write_specs(course, 2)
    assert course.made() == ()


def test_write_specs_leaves_a_lab_of_no_fleet_alone(course: Fleet) -> None:
    own = course.project / "Pulumi.course-s2.yaml"
    own.write_text("config: {}\n")
    with pytest.raises(LabError) as refused:
        fleet_members.write_specs(course, 2)
    assert refused.value.message == "Pulumi.course-s2.yaml is there already and was not written by a fleet"
    assert own.read_text() == "config: {}\n"
    assert not course.member(1).spec.exists()


def test_write_specs_refuses_a_name_without_room_for_a_number(tmp_path: Path) -> None:
    name = "a-course-with-a-name"
    (tmp_path / f"Pulumi.{name}.yaml").write_text("config: {}\n")
    with pytest.raises(LabError) as refused:
        fleet_members.write_specs(Fleet(name, tmp_path), 10)
    assert refused.value.message == (
        "a-course-with-a-name-s10 is too long for the name of a lab, which has at most 20 characters"
    )
    assert refused.value.remedy == "give the spec 'a-course-with-a-name' a shorter name"


def test_check_host_looks_at_memory(course: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostFacts, "disk_free_gib", lambda *_: 100.0)
    wanted = plans(course, 7)  # 2 GiB for a worker, 1 for its hosted control plane
    with pytest.raises(HostError, match="the machines need 21504 MiB of memory, and 20000"):
        fleet.check_host(course, wanted, HOST)
    running = next(iter(wanted))
    running.root.mkdir(parents=True)
    running.state.write_text("{}")  # its memory is in use already
    assert fleet.check_host(course, wanted, HOST) == ["7 emulated machines share 2 processors: everything takes longer"]


def test_check_host_looks_at_disk_space(course: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostFacts, "disk_free_gib", lambda *_: 3.0)
    with pytest.raises(HostError, match=re.escape("4.0 GiB of disk space are needed")):
        fleet.check_host(course, plans(course, 2), HOST)


def test_up_makes_labs_and_sheets(course: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet_members.write_specs(course, 3)
    monkeypatch.setattr(HostFacts, "disk_free_gib", lambda *_: 100.0)
    monkeypatch.setattr("hoplab.lab.libvirt_host.facts_of", lambda *_: HOST)
    monkeypatch.setattr(
        fleet, "node_image", lambda spec, paths, _: (plan_lab(spec, lab_id=paths.id, accel="tcg"), None)
    )
    monkeypatch.setattr(ksm, "merge", lambda _report: Merged(300 * 2**20, 4))
    stand_in(course, f"echo $1 $3 $4 >>{course.project}/ran")
    heard = Heard()
    fleet.up(course, 2, 2, heard)
    assert (course.project / "ran").read_text().splitlines() == ["up course-s1", "up course-s2"]
    assert heard.phases == ["specs", "node image", "labs", "sheets", "memory"]
    assert heard.notes[-1] == "300 MiB of the machines' memory are kept once instead of several times"
    assert "course-s3 is beyond --count 2 and stays" in heard.notes
    assert sorted(path.name for path in course.folder.glob("*.md")) == ["course-s1.md", "course-s2.md"]
    assert sorted(path.name for path in course.folder.glob("*.html")) == ["course-s1.html", "course-s2.html"]


def test_fresh_is_for_the_new_labs_alone(course: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.lab.libvirt_host.facts_of", lambda *_: HOST)
    monkeypatch.setattr(
        fleet, "node_image", lambda spec, paths, _: (plan_lab(spec, lab_id=paths.id, accel="tcg"), None)
    )
    save(course.member(1), plans(course, 1)[course.member(1)])
    stand_in(course, f"echo $1 $3 $4 >>{course.project}/ran")
    heard = Heard()
    fleet.up(course, 2, 1, heard, fresh=True)
    assert (course.project / "ran").read_text().splitlines() == ["up course-s1", "up course-s2 --fresh"]
    assert "memory" not in heard.phases


def test_memory_that_is_not_shared_is_a_note(course: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_report: object) -> Merged:
        raise NoMerging("this kernel has no KSM")

    monkeypatch.setattr(ksm, "merge", none)
    fleet_members.write_specs(course, 1)
    stand_in(course, "")
    heard = Heard()
    fleet.reset(course, ["s1"], 1, heard, yes=True)
    assert heard.notes[-1] == "the labs share no memory: this kernel has no KSM"


@pytest.mark.parametrize("kind", fleet_sheets.SHEETS)
def test_sheet(kind: Any, golden: Any) -> None:
    member = LabPaths("course-s2", Path("/srv/hoplab"))
    spec = LabSpec("course-s2", network=IPv4Network("192.168.78.0/24"))
    golden(
        f"fleet_sheet.{kind}", fleet_sheets.sheet(member, plan_lab(spec, lab_id="course-s2-1a2b3c", accel="tcg"), kind)
    )


def test_destroy_leaves_nothing_but_the_spec(course: Fleet) -> None:
    fleet_members.write_specs(course, 2)
    stand_in(course, "")
    assert fleet.destroy(course, 2, Heard()) == ["lab course-s1", "lab course-s2", f"folder {course.folder}"]
    assert sorted(path.name for path in course.project.iterdir()) == [".lab", "Pulumi.course.yaml", "lab"]
    assert not course.folder.parent.exists()


def test_destroy_keeps_the_spec_of_a_lab_that_stays(course: Fleet) -> None:
    fleet_members.write_specs(course, 1)
    stand_in(course, "echo 'error: libvirt does not answer'; exit 1")
    with pytest.raises(FleetError, match="libvirt does not answer"):
        fleet.destroy(course, 1, Heard())
    assert course.member(1).spec.exists()


def test_reset_makes_the_named_labs_anew_and_no_other(course: Fleet) -> None:
    (course.project / "Pulumi.course.yaml").write_text("config:\n  lab:checkpoint: 'off'\n")
    fleet_members.write_specs(course, 3)
    stand_in(course, f"echo $1 $3 >>{course.project}/ran")
    heard = Heard()
    made = fleet.reset(course, ["s3", "course-s1", "s3"], 1, heard, yes=True)
    assert [member.lab for member in made] == ["course-s3", "course-s1"]
    ran = (course.project / "ran").read_text().splitlines()
    assert ran == ["destroy course-s3", "destroy course-s1", "up course-s3", "up course-s1"]
    assert (
        "course-s3 has no checkpoint and is made from nothing: without lab:checkpoint: off in Pulumi.course.yaml, "
        "new labs of it are forks of the first one"
    ) in heard.notes
    assert "memory" not in heard.phases
    assert len(course.made()) == 3


def test_reset_says_nothing_of_labs_that_are_forks(course: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ksm, "merge", lambda _report: Merged(0, 4))
    fleet_members.write_specs(course, 2)
    stand_in(course, "")
    heard = Heard()
    fleet.reset(course, ["s2"], 1, heard, yes=True)
    assert not [note for note in heard.notes if "has no checkpoint" in note]


def test_reset_asks_before_anything_is_lost(course: Fleet) -> None:
    fleet_members.write_specs(course, 2)
    stand_in(course, "exit 1")
    with pytest.raises(FleetError, match="the present state of course-s1, course-s2 would be lost") as refused:
        fleet.reset(course, ["s1", "s2"], 1, Heard())
    assert refused.value.remedy == "if that is what you want: ./lab fleet reset course s1 s2 --yes"


@pytest.mark.parametrize(
    ("count", "says", "remedy"),
    [
        (2, "the fleet of 'course' has no course-s7 and no course-x", "its labs are course-s1, course-s2"),
        (0, "the fleet of 'course' has no course-s7 and no course-x", "make one: ./lab fleet up course --count 3"),
    ],
)
def test_reset_of_a_lab_that_is_not_there(course: Fleet, count: int, says: str, remedy: str) -> None:
    fleet_members.write_specs(course, count)
    with pytest.raises(FleetError, match=says) as refused:
        fleet.reset(course, ["s7", "x", "s7"], 1, Heard(), yes=True)
    assert refused.value.remedy == remedy


def test_status_has_a_row_for_every_lab(course: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    for member, plan in plans(course, 2).items():
        save(member, plan)
    (course.project / "Pulumi.course-s1.yaml").write_text(
        "# written by `lab fleet up course`\nconfig:\n  lab:network: 10.9.0.0/24\n"
    )
    course.member(2).state.unlink()

    def seen(paths: LabPaths) -> dict[str, Any]:
        if paths.lab == "course-s2":
            raise StateError("there is no lab 'course-s2' here")
        return {"healthy": True, "nodes": [{"machine": "running", "ready": True}, {"machine": "absent", "ready": None}]}

    monkeypatch.setattr("hoplab.lab.status.status", seen)
    assert fleet.status(course) == [
        fleet.Row("course-s1", "192.168.77.0/24", "1 of 2 running", "1 of 2 Ready", healthy=True),
        fleet.Row("course-s2", "192.168.77.0/24", "there is no lab 'course-s2' here", "-", healthy=False),
    ]


def test_notices_name_the_specs_that_were_edited(course: Fleet) -> None:
    for member, plan in plans(course, 2).items():
        save(member, plan)
    assert fleet.notices(course) == []
    spec = course.member(2).spec
    spec.write_text(spec.read_text() + "  lab:proxy: {mode: nftables}\n")
    (course.project / "Pulumi.course.yaml").write_text("config:\n  lab:nodes: {workers: 2}\n")
    assert fleet.notices(course) == [
        "Pulumi.course.yaml has changed since `fleet up`: nodes.workers",
        "Pulumi.course-s2.yaml has changed since `up`: proxy.mode",
    ]


@pytest.mark.parametrize("verb", ["up", "status", "destroy"])
def test_every_verb_explains_itself(verb: str) -> None:
    result = CliRunner().invoke(cli.cli, ["fleet", verb, "--help"])
    assert result.exit_code == 0
    assert f"Usage: ./lab fleet {verb} [OPTIONS] SPEC" in result.output


def test_status_of_no_fleet() -> None:
    with pytest.raises(LabError) as refused:
        CliRunner().invoke(cli.cli, ["fleet", "status", "nobody"], catch_exceptions=False)
    assert refused.value.message == "there is no fleet of 'nobody'"
    assert refused.value.remedy == "make one: ./lab fleet up nobody --count 3"


def test_status_tells_by_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    for healthy in (True, False):
        rows = [fleet.Row("course-s1", "192.168.77.0/24", "2 of 2 running", "2 of 2 Ready", healthy=healthy)]
        monkeypatch.setattr(fleet, "status", lambda _, rows=rows: rows)
        result = CliRunner().invoke(cli.cli, ["fleet", "status", "course"])
        assert result.exit_code == (0 if healthy else 1)
        assert "course-s1" in result.output
