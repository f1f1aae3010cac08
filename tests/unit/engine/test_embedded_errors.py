"""What the embedded engine refuses and reports: foreign objects, unknown types and properties, libvirt's own errors."""

from __future__ import annotations

import pytest

from hoplab.core.errors import EngineError
from hoplab.engine import libvirt_objects
from hoplab.engine import libvirt_xml as xml
from tests.support.embedded_lab import URI, Quiet, World, brief


def test_what_is_not_ours_is_left_alone(world: World) -> None:
    world.up(workers=1)
    for file in world.paths.root.glob("engine.json*"):
        file.unlink()
    before = world.there()
    with pytest.raises(
        EngineError, match=r"libvirt already has a (Pool|Network) 'hoplab-dev-\w+' that is not in this lab's state"
    ) as caught:
        world.up()
    assert caught.value.remedy.startswith("if it is a leftover of this lab, `lab destroy` removes it")
    assert world.there() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "import pulumi\npulumi.CustomResource('aws:s3:Bucket', 'b', {})",
            "the embedded engine does not support the resource type aws:s3:Bucket (of 'b')",
        ),
        (
            "import pulumi_libvirt as l\nl.Pool('p', name='p', type='dir', path='/x')",
            "the embedded engine does not support the property path of Pool 'p'",
        ),
        (
            "import pulumi_libvirt as l\nl.Domain('d', name='d', tpm=l.DomainTpmArgs(model='x'))",
            "the embedded engine does not support the property tpm of Domain 'd'",
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


def test_a_disk_smaller_than_the_image_is_refused(world: World) -> None:
    pool = libvirt_objects.Pools(world.connection, URI)
    pool.create({"name": "p", "type": "dir", "target": {"path": str(world.paths.pool)}}, Quiet())
    base = world.connection.storagePoolLookupByName("p").createXML(xml.volume("base", capacity=10**9, format="qcow2"))
    inputs = {"name": "small", "pool": "p", "baseVolumeId": base.key(), "size": 10**8, "format": "qcow2"}
    with pytest.raises(EngineError, match="less than the 1000000000 of the image below it"):
        libvirt_objects.Volumes(world.connection, URI).create(inputs, Quiet())
    pool.delete(pool.find({"name": "p"}), {})
