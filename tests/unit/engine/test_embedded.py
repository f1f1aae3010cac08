"""The embedded engine on libvirt's own test driver: a whole libvirt in this process, without machines.

It has no uploads, no disks and only domains of type "test"; those three things are stood in for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import libvirt
import pytest

from hoplab.core.errors import EngineError, ProtectedError
from hoplab.core.paths import LabPaths
from hoplab.engine import Change, Changes, embedded, libvirt_objects
from hoplab.engine import libvirt_xml as xml
from hoplab.engine.embedded import EmbeddedEngine
from hoplab.engine.monitor import UNKNOWN
from hoplab.engine.state_file import Journal

URI = "test:///default"
PROGRAM = """
import json
from pathlib import Path
import pulumi
from hoplab.image import NodeImage
from hoplab.infra.context import LabContext
from hoplab.infra.components import Lab, LabArgs
from hoplab.pki.keys import ensure_keys
from hoplab.core.paths import LabPaths
from hoplab.lab.spec_file import plan_lab
from hoplab.spec.model import LabSpec, NodeSize

here = Path(__file__).parent
asked = json.loads((here / "asked.json").read_text())
paths = LabPaths(pulumi.get_stack(), here)
spec = LabSpec(paths.lab, workers=asked["workers"], worker_size=NodeSize(1, asked["memory"], 2))
plan = plan_lab(spec, lab_id=paths.id, accel="tcg")
image = NodeImage(asked["image"], here, here / "disk", here / "kernel", here / "initrd", here, 2, {})
keys = ensure_keys(paths, [node.name for node in plan.nodes])
lab = Lab(paths.lab, LabArgs.of(LabContext(plan, image, asked["uri"], "", keys, "root=/dev/vda rw"), paths))
pulumi.export("nodes", lab.nodes)
if asked["more"]:
    exec(asked["more"])
"""

FIRST = {
    Change("create", "Pool", "store"),
    Change("create", "Network", "network"),
    Change("create", "Volume", "image-disk"),
    Change("create", "Volume", "image-kernel"),
    Change("create", "Volume", "image-initrd"),
    *(
        change
        for node in ("worker1", "worker2")
        for change in (
            Change("create", "CloudInitDisk", f"{node}-seed"),
            Change("create", "Volume", f"{node}-disk"),
            Change("create", "Domain", node),
        )
    ),
}


class Quiet:
    """Progress nobody looks at."""

    def phase(self, title: str) -> AbstractContextManager[None]:
        return nullcontext()

    def task(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...


class World:
    """A lab's project folder, the libvirt below it, and what to ask of the engine."""

    def __init__(self, folder: Path, connection: libvirt.virConnect) -> None:
        self.connection = connection
        self.paths = LabPaths("dev", folder)
        self.asked: dict[str, Any] = {"workers": 2, "memory": 300, "image": "a" * 64, "uri": URI, "more": ""}
        self.engine = EmbeddedEngine(self.paths)
        (folder / "__main__.py").write_text(PROGRAM)
        for name in ("disk", "kernel", "initrd"):
            (folder / name).write_text(name)
        self.paths.pool.mkdir(parents=True)

    def ask(self, **changed: Any) -> None:
        self.asked.update(changed)
        (self.paths.project / "asked.json").write_text(json.dumps(self.asked))

    def up(self, **changed: Any) -> Changes:
        self.ask(**changed)
        return self.engine.up(Quiet()).changes

    def preview(self, **changed: Any) -> Changes:
        self.ask(**changed)
        return self.engine.preview(Quiet())

    def domain(self, node: str) -> libvirt.virDomain:
        return self.connection.lookupByName(f"hoplab-{self.paths.id}-{node}")

    def there(self) -> dict[str, list[str]]:
        """Names of all objects of the lab that libvirt has."""
        own = f"hoplab-{self.paths.id}"
        pools = [pool for pool in self.connection.listAllStoragePools() if pool.name() == own]
        return {
            "domains": sorted(
                domain.name().removeprefix(f"{own}-")
                for domain in self.connection.listAllDomains()
                if domain.name().startswith(own)
            ),
            "networks": [network.name() for network in self.connection.listAllNetworks() if network.name() == own],
            "volumes": sorted(volume.name() for pool in pools for volume in pool.listAllVolumes()),
            "pools": [pool.name() for pool in pools],
        }


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    original = xml.domain

    def test_domain(inputs: Any, **options: Any) -> str:
        return original({**inputs, "type": "test"}, **options)

    def filled(_self: object, pool: Any, name: str, source: Path, format: str, _progress: object) -> Any:
        return pool.createXML(xml.volume(name, capacity=source.stat().st_size, format=format))

    def no_iso(folder: Path, _inputs: object) -> Path:
        (folder / "seed.iso").write_text("seed")
        return folder / "seed.iso"

    monkeypatch.setattr(xml, "domain", test_domain)
    monkeypatch.setattr(libvirt_objects.Volumes, "_upload", filled)
    monkeypatch.setattr(libvirt_objects, "make_iso", no_iso)
    monkeypatch.setattr("os.fsync", lambda _: None)
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    connection = libvirt.open(URI)  # the same libvirt for everyone as long as one connection is open
    yield World(tmp_path, connection)
    connection.close()


def brief(changes: Sequence[Change]) -> dict[str, str]:
    """What is not the same: name -> operation."""
    return {change.name: change.op for change in changes if change.op != "same"}


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
    original = Journal.write
    left = writes

    def write(self: Journal) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", write)
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


def test_what_is_not_ours_is_left_alone(world: World) -> None:
    world.up(workers=1)
    for file in world.paths.root.glob("engine.json*"):
        file.unlink()
    before = world.there()
    with pytest.raises(
        EngineError, match=r"libvirt already has a (Pool|Network) 'hoplab-dev-\w+' that this lab's"
    ) as caught:
        world.up()
    assert caught.value.remedy.startswith("if it is a leftover of this lab, `lab destroy` removes it")
    assert world.there() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "import pulumi\npulumi.CustomResource('aws:s3:Bucket', 'b', {})",
            "the embedded engine does not know the resource type aws:s3:Bucket (of 'b')",
        ),
        (
            "import pulumi_libvirt as l\nl.Pool('p', name='p', type='dir', path='/x')",
            "the embedded engine does not know the property path of Pool 'p'",
        ),
        (
            "import pulumi_libvirt as l\nl.Domain('d', name='d', tpm=l.DomainTpmArgs(model='x'))",
            "the embedded engine does not know the property tpm of Domain 'd'",
        ),
        (
            "import pulumi_libvirt as l\nl.Network('n', name='n', mode='bridge')",
            "the embedded engine does not support mode = 'bridge' of Network 'n'",
        ),
        (
            "import pulumi_libvirt as l\nl.Network('n', name='n', mode='nat', bridge='b')",
            "Network 'n' has no explicit libvirt provider",
        ),
        (
            "import pulumi_libvirt as l\nkept = pulumi.ResourceOptions(retain_on_delete=True)\n"
            "l.Pool('p', name='p', type='dir', opts=kept)",
            "the embedded engine does not support the resource option retain_on_delete (libvirt:index/pool:Pool p)",
        ),
        (
            "import pulumi_libvirt as l\nl.get_node_info()",
            "the embedded engine does not support the function libvirt:index/getNodeInfo:getNodeInfo",
        ),
        (
            "import pulumi_libvirt as l\nl.Pool.get('p', 'id')",
            "the embedded engine does not support reading an existing resource (libvirt:index/pool:Pool p)",
        ),
    ],
    ids=["type", "property", "deep", "value", "provider", "option", "function", "read"],
)
def test_what_it_does_not_know_is_refused_by_name(world: World, more: str, message: str) -> None:
    with pytest.raises(EngineError) as caught:
        world.preview(more=more)
    assert caught.value.message == message
    assert caught.value.remedy


def test_two_resources_of_one_name_are_refused(world: World) -> None:
    more = "pulumi.ComponentResource('a:b:C', 'x')\npulumi.ComponentResource('a:b:C', 'x')"
    with pytest.raises(EngineError, match="two resources of type a:b:C named 'x'"):
        world.preview(more=more)


def test_an_error_of_the_program_is_the_error_one_sees(world: World) -> None:
    with pytest.raises(ZeroDivisionError):
        world.up(more="1 / 0")
    assert world.there()["domains"] in ([], ["worker1"], ["worker2"], ["worker1", "worker2"])
    assert brief(world.preview(more="")).get("store") in (None, "create")


def test_a_failed_run_deletes_nothing(world: World) -> None:
    world.up()
    with pytest.raises(EngineError):
        world.up(workers=1, more="pulumi.CustomResource('aws:s3:Bucket', 'b', {})")
    assert world.there()["domains"] == ["worker1", "worker2"]


def test_a_libvirt_that_does_not_answer_is_named(world: World) -> None:
    with pytest.raises(EngineError) as caught:
        world.up(uri="qemu+unix:///system?socket=/nonexistent")
    assert caught.value.message.startswith("libvirt does not answer at qemu+unix:///system?socket=/nonexistent: ")
    assert caught.value.remedy == "`lab doctor` checks the host"


def test_what_libvirt_refuses_is_said_with_its_words(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xml, "network", lambda inputs: "<network/>")
    with pytest.raises(EngineError) as caught:
        world.up()
    assert caught.value.message.startswith("could not create Network network: ")
    assert "`lab up` continues where it stopped" in caught.value.remedy


def test_secrets_do_not_show_in_a_preview(world: World) -> None:
    world.up(workers=1)
    (world.paths.keys / "host" / "worker1").unlink()
    details = {change.name: change.detail for change in world.preview()}
    assert details["worker1-seed"] == "metaData, userData"
    assert "PRIVATE KEY" not in str(details)


def test_a_disk_smaller_than_the_image_is_refused(world: World) -> None:
    pool = libvirt_objects.Pools(world.connection, URI)
    pool.create({"name": "p", "type": "dir", "target": {"path": str(world.paths.pool)}}, Quiet())
    base = world.connection.storagePoolLookupByName("p").createXML(xml.volume("base", capacity=10**9, format="qcow2"))
    inputs = {"name": "small", "pool": "p", "baseVolumeId": base.key(), "size": 10**8, "format": "qcow2"}
    with pytest.raises(EngineError, match="less than the 1000000000 of the image below it"):
        libvirt_objects.Volumes(world.connection, URI).create(inputs, Quiet())
    pool.delete(pool.find({"name": "p"}), {})


def test_describe_names_what_differs_and_shortens_it() -> None:
    assert embedded.changed_properties({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == {"b", "c"}
    assert embedded.changed_properties({"a": [{"b": 1}]}, {"a": [{"b": UNKNOWN}]}) == {"a"}
