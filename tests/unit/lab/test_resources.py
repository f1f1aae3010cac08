"""The providers that Pulumi runs for the host's part and for the cluster, without Pulumi and without a lab."""

from __future__ import annotations

import base64
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pulumi import Input, ResourceOptions
from pulumi.dynamic.dynamic import serialize_provider

from hoplab.core.console import PlainProgress
from hoplab.core.errors import ConvergeError, SpecError, SpecIssue
from hoplab.core.lock import LOCK_INHERITED, locked
from hoplab.core.paths import LabPaths
from hoplab.engine import embedded
from hoplab.engine.monitor import run_program
from hoplab.host.machines import connected
from hoplab.infra.components import Lab, LabArgs
from hoplab.lab import lifecycle, resources, state
from hoplab.lab.resources import (
    Cluster,
    ClusterArgs,
    ClusterProvider,
    Failed,
    Host,
    HostProvider,
    Member,
    MemberProvider,
)
from hoplab.spec.model import Ipv6Spec, LabSpec
from tests.support.labs import MADE, lab_context
from tests.support.monitor import Recorder

PROPS: dict[str, Any] = {
    "lab": "dev",
    "settings": {"cni": {"name": "flannel"}},
    "roles": "1234",
    "image": "abcd",
    "nodes": {"worker1": "id-1", "worker2": "id-2"},
}


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabPaths:
    paths = LabPaths("dev", tmp_path)
    paths.root.mkdir(parents=True)
    paths.kubeconfig.write_text("the administrator's")
    monkeypatch.setattr(resources, "LabPaths", lambda lab: LabPaths(lab, tmp_path))
    return paths


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of `hoplab.lab.lifecycle`, which does nothing here."""
    asked: list[str] = []

    def noted(name: str) -> Callable[..., None]:
        return lambda *_args, **_options: asked.append(name)

    for name in ("drain_removed", "make_cluster", "remove_cluster", "leave_host", "drain_node", "admit_node"):
        monkeypatch.setattr(f"hoplab.lab.lifecycle.{name}", noted(name))
    monkeypatch.setattr("hoplab.lab.spec_file.load_spec", lambda *_: None)
    monkeypatch.setattr("hoplab.lab.context.resolve", lambda *_: None)
    return asked


def registered(folder: Path, *, rolling: bool = False) -> Recorder:
    """What the program registers beside the libvirt objects."""
    recorder, paths = Recorder(), LabPaths("dev", folder)
    context = lab_context("tcg", paths)

    def program() -> None:
        host = Host("dev", "dev")

        def member(node: str, machine: Input[str], opts: ResourceOptions) -> Member:
            return Member(node, "dev", machine, host=host, opts=opts)

        lab = Lab("dev", LabArgs.of(context, paths, host, member, rolling=rolling))
        Cluster("dev", ClusterArgs.of(context, paths, lab.machines), host=host, members=lab.members)

    run_program(program, "dev", recorder, recorder, dry_run=False)
    return recorder


def test_cluster_dependencies(tmp_path: Path) -> None:
    seen = {wanted.type.rpartition(":")[2]: wanted for wanted in registered(tmp_path).seen.values()}
    cluster = seen["Cluster"]
    assert cluster.inputs["nodes"] == {"worker1": "id-of-worker1", "worker2": "id-of-worker2"}
    assert cluster.inputs["image"] == "c" * 64
    cni = {"name": "flannel", "backend": "vxlan", "nftables": False, "block_size": 26}
    assert cluster.inputs["settings"]["cni"] == cni
    assert not {"kubeconfig", "python", "project"} & cluster.inputs["settings"].keys(), "another clone is no change"
    assert {urn.rpartition("::")[2] for urn in cluster.property_dependencies["nodes"]} == {"worker1", "worker2"}
    assert {"worker1-member", "worker2-member"} <= {urn.rpartition("::")[2] for urn in cluster.dependencies}


def test_host_is_made_first_and_deleted_last(tmp_path: Path) -> None:
    seen = registered(tmp_path).seen
    provider = next(wanted for wanted in seen.values() if wanted.type == "pulumi:providers:libvirt")
    assert [seen[urn].type for urn in provider.dependencies] == ["pulumi-python:dynamic/hoplab:Host"]


@pytest.mark.parametrize("provider", [HostProvider(), ClusterProvider()])
def test_provider_is_pickled_by_its_name(provider: Any) -> None:
    """Or a change of its code would be a change of the resource, and its state would grow with the code."""
    kept = base64.b64decode(serialize_provider(provider))
    assert type(pickle.loads(kept)) is type(provider)
    assert len(kept) < 200


@pytest.mark.parametrize("name", ["settings", "roles", "image", "nodes"])
def test_cluster_diff_names_reasons_to_converge(name: str) -> None:
    assert ClusterProvider().diff("id", PROPS, PROPS).changes is False
    changed = ClusterProvider().diff("id", PROPS, {**PROPS, name: "another"})
    assert (changed.changes, changed.replaces) == (True, [])


def test_cluster_diff_ignores_other_changes() -> None:
    olds = {**PROPS, "kubeconfig": "the administrator's", "__provider": "as it was"}
    assert ClusterProvider().diff("id", olds, {**PROPS, "__provider": "as it is"}).changes is False


def test_check_shows_every_issue_of_the_spec(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> None:
        raise SpecError(
            "x", [SpecIssue("nodes.workers", "is 0", "at least 1"), SpecIssue("accel", "is 7", "one of kvm")]
        )

    failures = ClusterProvider().check({}, PROPS).failures
    assert [failure.reason.splitlines()[0] for failure in failures] == [
        "there is no lab 'dev': Pulumi.dev.yaml does not exist"
    ]
    paths.spec.write_text("config: {}")
    assert ClusterProvider().check({}, PROPS).failures == []
    monkeypatch.setattr("hoplab.lab.spec_file.load_spec", wrong)
    failures = ClusterProvider().check({}, PROPS).failures
    assert [(failure.property, failure.reason) for failure in failures] == [
        ("nodes.workers", "is 0; at least 1"),
        ("accel", "is 7; one of kvm"),
    ]


def test_check_refuses_another_dataplane(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.lab.spec_file.load_spec", lambda *_: LabSpec("dev", proxy_mode="nftables"))
    assert ClusterProvider().check({}, PROPS).failures == []
    state.save(MADE, paths)
    assert [failure.reason.splitlines() for failure in ClusterProvider().check({}, PROPS).failures] == [
        [
            "lab 'dev' was made with flannel vxlan, kube-proxy iptables, and its spec now asks for "
            "flannel vxlan, kube-proxy nftables",
            "  -> make its cluster anew on the same machines, all pods are lost: ./lab up --recreate --lab dev",
        ]
    ]


def test_check_refuses_another_family(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.lab.spec_file.load_spec", lambda *_: LabSpec("dev", ipv6=Ipv6Spec()))
    state.save(MADE, paths)
    (failure,) = ClusterProvider().check({}, PROPS).failures
    assert failure.reason.startswith("lab 'dev' was made with no IPv6, and its spec now asks for the IPv6 network")


@pytest.mark.parametrize("verb", ["create", "update"])
def test_cluster_create_drains_and_converges(paths: LabPaths, done: list[str], verb: str) -> None:
    provider = ClusterProvider()
    outs = provider.create(PROPS).outs if verb == "create" else provider.update("id", PROPS, PROPS).outs
    assert done == ["drain_removed", "make_cluster"]
    assert outs == {**PROPS, "kubeconfig": "the administrator's"}


def test_cluster_delete_keeps_the_machines(paths: LabPaths, done: list[str]) -> None:
    ClusterProvider().delete("id", PROPS)
    assert done == []  # of a lab that was never made there is nothing to remove
    state.save(MADE, paths)
    ClusterProvider().delete("id", PROPS)
    assert done == ["remove_cluster"]


def test_host_delete_leaves_the_host(paths: LabPaths, done: list[str]) -> None:
    HostProvider().delete("id", {"lab": "dev"})
    assert done == ["leave_host"]


@pytest.mark.parametrize(("member", "expected"), [(True, ["drain_node", "admit_node"]), (False, [])])
def test_member_alone_is_drained_and_admitted(
    paths: LabPaths, done: list[str], monkeypatch: pytest.MonkeyPatch, member: bool, expected: list[str]
) -> None:
    monkeypatch.setattr("hoplab.lab.lifecycle.is_member", lambda *_: member)
    props = {"lab": "dev", "node": "worker1", "machine": "id-1"}
    MemberProvider().delete("id", props)
    assert MemberProvider().create(props).outs == props
    assert done == expected


def test_drain_node_skips_a_machine_that_is_gone(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[list[str]] = []
    monkeypatch.setattr("hoplab.lab.lifecycle.leave", lambda nodes, *_, **__: left.append(nodes))
    state.save(replace(MADE, libvirt_uri="test:///default"), paths)
    with connected("test:///default") as connection:
        there = connection.lookupByName("test").UUIDString()
    lifecycle.drain_node(paths, "worker1", "id-of-one-that-is-gone", PlainProgress())
    assert left == []
    lifecycle.drain_node(paths, "worker1", there, PlainProgress())
    assert left == [["worker1"]]


def test_member_is_replaced_with_its_machine() -> None:
    same, other = {"machine": "id-1"}, {"machine": "id-2"}
    assert MemberProvider().diff("id", same, same).changes is False
    changed = MemberProvider().diff("id", same, other)
    assert (changed.replaces, changed.delete_before_replace) == (["machine"], True)


def test_members_are_replaced_one_after_the_other(tmp_path: Path) -> None:
    def waits(rolling: bool) -> dict[str, set[str]]:
        seen = registered(tmp_path, rolling=rolling).seen
        disks = [wanted for wanted in seen.values() if wanted.name.endswith("-disk") and wanted.name != "image-disk"]
        on = {disk.name: {seen[urn].name for urn in disk.dependencies} for disk in disks}
        return {name: {other for other in names if other.endswith("-member")} for name, names in on.items()}

    assert waits(rolling=False) == {"worker1-disk": set(), "worker2-disk": set()}
    assert waits(rolling=True) == {"worker1-disk": set(), "worker2-disk": {"worker1-member"}}


def test_cluster_read_keeps_the_members(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.lab.lifecycle.members", lambda _: {"worker1", "a stranger"})
    read = ClusterProvider().read("id", PROPS)
    assert read.outs is not None
    assert (read.id, read.outs["nodes"]) == ("id", {"worker1": "id-1"})
    assert ClusterProvider().diff("id", read.outs, PROPS).changes is True


def test_cluster_read_finds_no_cluster(paths: LabPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoplab.lab.lifecycle.members", lambda _: None)
    assert ClusterProvider().read("id", PROPS).id == ""


def test_lab_error_becomes_text_with_its_remedy(
    paths: LabPaths, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ConvergeError("worker1: Join: no route", remedy="ask", log="the log")

    monkeypatch.setattr("hoplab.lab.lifecycle.make_cluster", fails)
    with pytest.raises(Failed) as caught:
        ClusterProvider().create(PROPS)
    assert str(caught.value) == "hoplab: worker1: Join: no route\n  -> ask\n  log: the log"


def test_working_takes_the_labs_lock(paths: LabPaths, done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(paths.lock, "lab up"):
        with pytest.raises(Failed, match="dev is being worked on by `lab up`"):
            ClusterProvider().create(PROPS)
        monkeypatch.setenv(LOCK_INHERITED, "1")  # it is `lab up` that runs Pulumi
        ClusterProvider().create(PROPS)
    assert done == ["drain_removed", "make_cluster"]


@pytest.mark.parametrize("name", ["HostProvider", "MemberProvider", "ClusterProvider"])
def test_provider_pickled_under_the_old_module_name_is_loaded(name: str) -> None:
    """The state of older stacks names ``hoplab.resources``; a delete loads the provider from there."""
    pickled = b"\x80\x04" + f"choplab.resources\n{name}\n".encode() + b")\x81}b."
    provider = embedded._provider_of({"__provider": base64.b64encode(pickled).decode()})
    assert (type(provider).__module__, type(provider).__name__) == ("hoplab.lab.resources", name)
