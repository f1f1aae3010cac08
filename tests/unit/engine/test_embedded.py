"""The embedded engine on libvirt's own test driver: a whole libvirt in this process, without machines.

It has no uploads, no disks and only domains of type "test"; those three things are stood in for.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from hoplab.core.errors import ProtectedError
from hoplab.engine import Change, embedded, libvirt_objects
from hoplab.engine import libvirt_xml as xml
from hoplab.engine.monitor import UNKNOWN
from hoplab.engine.state_file import StateFile
from tests.support.embedded_lab import FIRST, Quiet, World, brief


def test_everything_is_made_once(world: World) -> None:
    assert set(world.preview()) == FIRST
    assert world.there() == {"domains": [], "networks": [], "volumes": [], "pools": []}
    assert not world.paths.engine_state.exists()
    assert set(world.up()) == FIRST
    there = world.there()
    assert there["domains"] == ["worker1", "worker2"]
    assert there["volumes"] == [
        *(f"{part}-aaaaaaaaaaaa" for part in ("disk", "initrd", "kernel")),
        *("worker1-seed.iso", "worker1.qcow2", "worker2-seed.iso", "worker2.qcow2"),
    ]
    assert brief(world.preview()) == brief(world.up()) == {}
    assert world.there() == there


MEMBERS = """
from hoplab.lab.resources import Host, Member
host = Host("dev", "dev")
for node, machine in lab.machines.items():
    Member(node, "dev", machine, host=host, opts=pulumi.ResourceOptions(parent=lab))
"""


def test_a_node_is_drained_before_its_machine_is_replaced_and_let_in_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str, bool]] = []

    def drain_node(_paths: Any, node: str, machine: str, _progress: Any) -> None:
        assert machine == world.domain(node).UUIDString()
        told.append(("drain", node, world.domain(node).isActive()))

    def admit_node(_context: Any, _paths: Any, node: str, _progress: Any) -> None:
        told.append(("admit", node, world.domain(node).isActive()))

    monkeypatch.setattr("hoplab.lab.lifecycle.is_member", lambda _paths, node: node == "worker2")
    monkeypatch.setattr("hoplab.lab.lifecycle.drain_node", drain_node)
    monkeypatch.setattr("hoplab.lab.lifecycle.admit_node", admit_node)
    monkeypatch.setattr("hoplab.lab.spec_file.load_spec", lambda *_: None)
    monkeypatch.setattr("hoplab.lab.context.resolve", lambda *_: None)
    world.up(more=MEMBERS)
    world.up(memory=400)
    assert told == [], "they join when the cluster is made, and an update in place is none of its business"
    world.preview(image="b" * 64)
    assert told == []
    world.up()
    assert told == [("drain", "worker2", True), ("admit", "worker2", True)]


CLUSTER = """
from hoplab.lab.resources import Cluster, ClusterArgs, Host
host = Host("dev", "dev")
args = ClusterArgs("dev", {"cni": "flannel"}, ROLES, asked["image"], lab.machines)
Cluster("dev", args, host=host, opts=pulumi.ResourceOptions(parent=lab))
"""


def test_the_cluster_is_recorded_and_made_by_others(world: World) -> None:
    def of_the_cluster(roles: str = "1", **changed: Any) -> tuple[str, str]:
        more = CLUSTER.replace("ROLES", repr(roles))
        planned = [change for change in world.preview(more=more, **changed) if change.type == "Cluster"]
        assert [change for change in world.up() if change.type == "Cluster"] == planned
        return planned[0].op, planned[0].detail

    assert of_the_cluster(workers=1) == ("create", "")
    assert of_the_cluster() == ("update", "was half made")  # nobody said that it was made
    world.engine.converged()
    assert of_the_cluster() == ("same", "")
    assert of_the_cluster("2") == ("update", "roles 1 -> 2")
    world.engine.converged()
    op, detail = of_the_cluster("2", image="b" * 64)
    assert op == "update" and "image" in detail and "nodes" in detail
    world.engine.destroy(Quiet())
    assert world.there() == {"domains": [], "networks": [], "volumes": [], "pools": []}


def test_cluster_with_a_provider_of_another_version_is_the_same(world: World) -> None:
    """The pickle names the module that the class was in: a move of the class changes no lab."""
    world.up(workers=1, more=CLUSTER.replace("ROLES", "'1'"))
    world.engine.converged()
    document = json.loads(world.paths.engine_state.read_text())
    pickles = [resource["inputs"] for resource in document["resources"] if "__provider" in resource["inputs"]]
    for inputs in pickles:
        inputs["__provider"] = "b2xkZXI="
    assert len(pickles) == 2
    world.paths.engine_state.write_text(json.dumps(document))
    assert brief(world.preview()) == brief(world.up()) == {}


def test_what_is_protected_is_neither_deleted_nor_replaced(world: World) -> None:
    pool = (
        "import pulumi_libvirt as l\n"
        "opts = pulumi.ResourceOptions(provider=l.Provider('own', uri=asked['uri']), protect=True)\n"
        "l.Pool('kept', name='NAME', type='dir', target={'path': str(here / 'kept')}, opts=opts)"
    )
    (world.paths.project / "kept").mkdir()  # libvirt's test driver does not
    world.up(workers=1, more=pool.replace("NAME", "one"))
    with pytest.raises(ProtectedError, match="Pool kept is protected, and would be replaced"):
        world.up(more=pool.replace("NAME", "two"))
    with pytest.raises(ProtectedError, match="Pool kept is protected, and would be deleted") as caught:
        world.up(more="")
    assert caught.value.remedy == "if that is what you want: set lab:protect to false, run `lab up`, then try again"
    world.connection.storagePoolLookupByName("one").destroy()
    world.connection.storagePoolLookupByName("one").undefine()


def test_outputs_are_what_the_program_exports(world: World) -> None:
    assert world.engine.outputs() is None
    world.up(workers=1)
    outputs = world.engine.outputs()
    assert outputs is not None
    assert outputs["nodes"]["worker1"]["domain"] == world.domain("worker1").UUIDString()
    world.preview(workers=2)
    assert world.engine.outputs() == outputs


def test_more_memory_is_an_update_of_the_same_machine(world: World) -> None:
    world.up(workers=1)
    before = world.domain("worker1").UUIDString()
    expected = [Change("update", "Domain", "worker1", "memory 300 -> 400")]
    assert [change for change in world.preview(memory=400) if change.op != "same"] == expected
    assert world.domain("worker1").maxMemory() == 300 * 1024
    assert [change for change in world.up() if change.op != "same"] == expected
    assert world.domain("worker1").maxMemory() == 400 * 1024
    assert world.domain("worker1").isActive()
    assert world.domain("worker1").UUIDString() == before


def test_a_worker_comes_and_goes_alone(world: World) -> None:
    world.up()
    first = world.domain("worker1").ID()
    gone = {"worker2": "delete", "worker2-disk": "delete", "worker2-seed": "delete", "network": "update"}
    assert brief(world.preview(workers=1)) == gone
    assert brief(world.up()) == gone
    assert world.there()["domains"] == ["worker1"]
    assert not [name for name in world.there()["volumes"] if name.startswith("worker2")]
    assert brief(world.up(workers=2)) == {**dict.fromkeys(gone, "create"), "network": "update"}
    assert world.domain("worker1").ID() == first  # it was not even restarted


def test_names_in_the_networks_dns_follow_the_workers(world: World) -> None:
    def names() -> dict[str, list[str]]:
        return xml.network_hosts(world.connection.networkLookupByName(f"hoplab-{world.paths.id}").XMLDesc())

    world.up()
    assert sorted(names().values()) == [["worker1"], ["worker2"]]
    world.up(workers=1)
    assert list(names().values()) == [["worker1"]]


def test_a_new_image_replaces_machines_and_keeps_what_does_not_come_from_it(world: World) -> None:
    world.up(workers=1)
    replaced = dict.fromkeys(["image-disk", "image-kernel", "image-initrd", "worker1-disk", "worker1"], "replace")
    assert brief(world.preview(image="b" * 64)) == replaced
    assert brief(world.up()) == replaced
    assert world.there()["volumes"] == [
        *(f"{part}-bbbbbbbbbbbb" for part in ("disk", "initrd", "kernel")),
        *("worker1-seed.iso", "worker1.qcow2"),
    ]
    assert brief(world.up()) == {}


def test_destroy_leaves_nothing_and_goes_backwards(world: World) -> None:
    world.up()
    changes = world.engine.destroy(Quiet())
    assert {change.op for change in changes} == {"delete"}
    names = [change.name for change in changes]
    assert names.index("worker1") < names.index("worker1-disk") < names.index("image-disk") < names.index("store")
    assert world.there() == {"domains": [], "networks": [], "volumes": [], "pools": []}
    assert not list(world.paths.root.glob("engine.json*"))
    assert world.engine.destroy(Quiet()) == ()


@pytest.mark.parametrize(
    ("break_it", "healed"),
    [
        (lambda world: world.domain("worker1").destroy(), Change("update", "Domain", "worker1", "shut off")),
        (
            lambda world: (world.domain("worker1").destroy(), world.domain("worker1").undefine()),
            Change("create", "Domain", "worker1", "was gone"),
        ),
        (
            lambda world: world.connection.networkLookupByName(f"hoplab-{world.paths.id}").destroy(),
            Change("update", "Network", "network", "stopped"),
        ),
    ],
    ids=["powered off", "undefined", "network stopped"],
)
def test_what_was_broken_by_hand_is_healed(world: World, break_it: Any, healed: Change) -> None:
    world.up(workers=1)
    break_it(world)
    assert [change for change in world.preview() if change.op != "same"] == [healed]
    assert [change for change in world.up() if change.op != "same"] == [healed]
    assert world.domain("worker1").isActive()
    assert brief(world.up()) == {}


def test_a_machine_is_restarted_on_a_disk_that_was_lost(world: World) -> None:
    world.up(workers=1)
    before = world.domain("worker1").ID()
    pool = world.connection.storagePoolLookupByName(f"hoplab-{world.paths.id}")
    pool.storageVolLookupByName("worker1.qcow2").delete()
    changes = {change.name: change.detail for change in world.up() if change.op != "same"}
    assert changes == {"worker1-disk": "was gone", "worker1": "what it is built on is new"}
    assert world.domain("worker1").ID() != before


class Killed(BaseException):
    """Stands for SIGKILL: nobody handles it."""


def kill_after(world: World, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """Run `up` and end it after so many writes of the journal, as a kill at that moment would."""
    original = StateFile.write
    left = writes

    def write(self: StateFile) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(StateFile, "write", write)
        with pytest.raises(Killed):
            world.up()


@pytest.mark.parametrize("writes", range(0, 31, 10))
def test_an_interrupted_up_is_completed_by_the_next(world: World, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    kill_after(world, monkeypatch, writes)
    world.up()
    there = world.there()
    assert there["domains"] == ["worker1", "worker2"]
    assert len(there["volumes"]) == 7
    assert all(world.domain(node).isActive() for node in there["domains"])
    assert brief(world.up()) == {}
    world.engine.destroy(Quiet())
    assert world.there() == {"domains": [], "networks": [], "volumes": [], "pools": []}


def test_a_half_made_object_is_made_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: object, inputs: object, progress: object) -> None:
        raise Killed

    world.up(workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(libvirt_objects.Domains, "create", fails)
        with pytest.raises(Killed):
            world.up(workers=2)
    changes = {change.name: (change.op, change.detail) for change in world.up() if change.op != "same"}
    assert changes["worker2"] == ("create", "was half made")


def test_secrets_do_not_show_in_a_preview(world: World) -> None:
    world.up(workers=1)
    (world.paths.keys / "host" / "worker1").unlink()
    details = {change.name: change.detail for change in world.preview()}
    assert details["worker1-seed"] == "metaData, userData"
    assert "PRIVATE KEY" not in str(details)


def test_describe_names_what_differs_and_shortens_it() -> None:
    assert embedded.changed_properties({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == {"b", "c"}
    assert embedded.changed_properties({"a": [{"b": 1}]}, {"a": [{"b": UNKNOWN}]}) == {"a"}
