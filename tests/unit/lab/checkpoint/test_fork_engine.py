"""The next `up` of a fork finds everything in place: its state is what the program registers under its own name."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.engine import embedded, libvirt_objects, schema
from hoplab.engine.embedded import EmbeddedEngine
from hoplab.engine.libvirt_objects import Made
from hoplab.lab import state
from hoplab.lab.checkpoint import fork, manifest
from hoplab.lab.checkpoint.manifest import Manifest
from hoplab.lab.spec_file import plan_lab
from hoplab.pki.keys import ensure_keys
from hoplab.spec.model import LabSpec
from tests.support.checkpoint_lab import HERE
from tests.support.embedded_lab import Quiet, brief

# As the project's own program, with an image that nobody has to build
PROGRAM = """
from pathlib import Path
import pulumi
from hoplab.core.paths import LabPaths
from hoplab.expectations.parts import known_parts
from hoplab.cluster.inventory import write_inventory
from hoplab.image import NodeImage
from hoplab.infra.components import Lab, LabArgs
from hoplab.infra.context import LabContext
from hoplab.lab.resources import Cluster, ClusterArgs, Host, Member
from hoplab.lab.spec_file import plan_lab
from hoplab.pki.keys import ensure_keys
from hoplab.spec.model import LabSpec

here = Path(__file__).parent
paths = LabPaths(pulumi.get_stack(), here)
spec = LabSpec(paths.lab, workers=2, family="course")
plan = plan_lab(spec, lab_id=paths.id, accel="tcg")
image = NodeImage("a" * 64, here, here / "disk", here / "kernel", here / "initrd", here, 2, {})
keys = ensure_keys(paths, [node.name for node in plan.nodes])
uri = f"qemu+unix:///system?socket={paths.run}/libvirt-sock"
context = LabContext(plan, image, uri, paths.netns, keys, "root=/dev/vda rw", spec)
host = Host(paths.lab, paths.lab)


def member(node, machine, opts):
    return Member(node, paths.lab, machine, host=host, opts=opts)


lab = Lab(paths.lab, LabArgs.of(context, paths, host, member, rolling=False))
args = ClusterArgs.of(context, paths, lab.machines)
Cluster(paths.lab, args, host=host, members=lab.members, opts=pulumi.ResourceOptions(parent=lab))
parts = known_parts()
write_inventory(plan, paths, netns=paths.netns, image_bin=here, image_digest=image.digest, keys=keys, parts=parts)
"""


class Objects:
    """libvirt's objects, as far as their ids go: volumes have their path, others a UUID."""

    def __init__(self, _connection: object, _uri: str) -> None: ...

    def must_replace(self, *_: object) -> bool:
        return True

    def find(self, _inputs: dict[str, Any]) -> str:
        return ""

    def drift(self, _id: str, _inputs: dict[str, Any]) -> str:
        return ""

    def create(self, inputs: dict[str, Any], _progress: Progress) -> Made:
        if "pool" in inputs:
            return Made(f"{POOLS[inputs['pool']]}/{inputs['name']}", {})
        if "target" in inputs:
            POOLS[inputs["name"]] = inputs["target"]["path"]
        return Made(str(uuid4()), {})


POOLS: dict[str, str] = {}


class Connection:
    def close(self) -> None: ...


@pytest.mark.skipif(shutil.which("mkisofs") is None, reason="needs mkisofs")
def test_a_fork_is_what_the_program_registers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(embedded, "DRIVERS", dict.fromkeys(libvirt_objects.DRIVERS, Objects))
    monkeypatch.setattr("hoplab.engine.embedded.libvirt.open", lambda _uri: Connection())
    project = tmp_path / "course-s1"  # a path with the origin's name in it
    project.mkdir()
    (project / "__main__.py").write_text(PROGRAM)
    for part in ("disk", "kernel", "initrd"):
        (project / part).write_text(part)
    origin, other = LabPaths("course-s1", project), LabPaths("course-s2", project)
    for paths in (origin, other):  # an inventory is written with the folder of SSH's sockets
        request.addfinalizer(partial(shutil.rmtree, paths.run, ignore_errors=True))
    engine = EmbeddedEngine(origin)
    engine.up(Quiet())
    engine.converged()
    assert brief(EmbeddedEngine(origin).preview(Quiet())) == {}

    plan = plan_lab(LabSpec("course-s1", workers=2, family="course"), lab_id=origin.id, accel="tcg")
    state.save(state.lab_state(plan, libvirt_uri="", netns=origin.netns, image="a", image_bin=project), origin)
    place = tmp_path / "place"
    shutil.copytree(origin.root, place / "lab")
    (place / "lab/pool").mkdir(exist_ok=True)
    (place / "inventory").mkdir()
    shutil.copy(origin.inventory, place / "inventory/inventory.yml")
    domains = {node.name: f"hoplab-{origin.id}-{node.name}" for node in plan.nodes}
    found = Manifest(
        format=manifest.FORMAT, name="up", made=manifest.utc_now(), lab=origin.lab, id=origin.id, image="a", spec="",
        roles="", hypervisor=HERE, machines=domains, memory_mib=1, files=(),
    )  # fmt: skip
    fork.adapt(place, found, other)
    (place / "lab").rename(other.root)

    before = (place / "inventory/inventory.yml").read_text()
    forked = EmbeddedEngine(other)
    assert brief(forked.preview(Quiet())) == {}, "the next `up` would change it"
    changes = forked.up(Quiet()).changes
    assert brief(changes) == {} and {change.type for change in changes} >= {"Domain", "CloudInitDisk", "Cluster"}
    assert other.inventory.read_text() == before, "the next `up` would converge it"
    assert ensure_keys(other, list(domains)).user_public != ensure_keys(origin, list(domains)).user_public
    assert schema.SEED in {resource.type for resource in forked._load_state().resources.values()}
