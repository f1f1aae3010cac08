"""What is in no node image: built when it is asked for, kept by `prune`, and no reason for another node image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hoplab import image
from hoplab.core.errors import HostError
from hoplab.image import commands, containers, debian, disk, gobuild, wanted
from hoplab.image.store import Stage, Store
from hoplab.spec.catalog import DebianSystem, GoComponent, components
from tests.support.image_stages import fill
from tests.support.labs import IMAGE
from tests.support.progress import RecordingProgress
from tests.support.roles import defaults

ROLE = "policy_kube_network_policies"
CILIUM = "cni_cilium"
TOOLS = "node_tools"
TABLE = components()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty cache, and a compiler that writes the program's name."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def compiled(component: GoComponent, store: Store, progress: RecordingProgress) -> Stage:
        def write(output: Path) -> dict[str, Any]:
            for program in component.programs:
                progress.task(f"building {program}")
                (output / program).write_text(program)
            for name in component.files:
                (output / gobuild.SHARE / name).mkdir(parents=True)
                (output / gobuild.SHARE / name / "lib.h").write_text(name)
            return {}

        return store.make(f"go-{component.name}", gobuild.key(component), write, space_gib=0)

    def bootstrapped(system: DebianSystem, store: Store, progress: RecordingProgress, mirror: str) -> Stage:
        base = bootstrapped(system.onto, store, progress, mirror) if system.onto else None

        def write(output: Path) -> dict[str, Any]:
            (output / debian.ROOT_TAR).write_text(system.name)
            return {}

        return store.make(f"debian-{system.name}", debian.key(system, base), write, space_gib=0)

    monkeypatch.setattr(gobuild, "build", compiled)
    monkeypatch.setattr(debian, "build", bootstrapped)
    monkeypatch.setattr(commands, "require", lambda _programs: None)
    monkeypatch.setattr(containers, "SPACE_GIB", 0.0)
    return Store(tmp_path / "hoplab" / "image")


def test_a_program_is_built_once(store: Store) -> None:
    progress = RecordingProgress()
    for _ in range(2):
        assert image.ensure_program("helm", progress).read_text() == "helm"
    assert progress.tasks == ["building helm"]


def test_an_archive_is_made_once_and_has_the_image_that_the_role_names(store: Store) -> None:
    progress = RecordingProgress()
    first, second = (wanted.archive(ROLE, TABLE, store, progress, "") for _ in range(2))
    assert first == second and first.name == containers.ARCHIVE
    assert progress.tasks == ["building kube-network-policies", "writing container images"]
    (name,) = store.manifest(first.parent)["images"]
    assert name == defaults(ROLE)["policy_kube_network_policies_image"]
    assert name in first.read_text(errors="replace")


def test_what_is_missing_on_the_host_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(programs: tuple[str, ...]) -> None:
        raise HostError(f"needs {', '.join(programs)}", remedy="install")

    monkeypatch.setattr(commands, "require", refuse)
    with pytest.raises(HostError, match="needs go, setpriv"):
        image.ensure_program("helm", RecordingProgress())


def test_prune_keeps_what_would_be_used_again(store: Store) -> None:
    progress = RecordingProgress()
    wanted.archive(ROLE, TABLE, store, progress, "")
    image.ensure_program("helm", progress)
    kept = {path.name for path in store.stages.iterdir()}
    assert len(kept) == 3
    store.make("go-helm", "0123", lambda _output: {}, space_gib=0)
    assert image.prune_images(set()) == ["go-helm-0123 (0 MiB)"]
    assert {path.name for path in store.stages.iterdir()} == kept


def test_a_node_image_has_nothing_of_it() -> None:
    shared = TABLE.shared
    assert set(TABLE.go) - set(shared.go) == {
        "helm",
        "kube-network-policies",
        "cilium",
        "cilium-cni",
        "hubble",
        "cri-tools",
        "gateway-api-grpc",
    }
    assert set(TABLE.debian) - set(shared.debian) == {"cilium", "node-tools"}
    of_others = [source for made in shared.images for source in made.files.values()]
    assert not {source for source in of_others if "network-policies" in source or "cilium" in source}
    assert set(TABLE.wanted) == {ROLE, CILIUM}


def test_what_is_asked_for_is_beside_the_image(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = replace(IMAGE, digest="0123")
    monkeypatch.setattr(image, "_ensure_disk", lambda *_: made)
    assert image.ensure_image("tcg", RecordingProgress(), needs=["cni_flannel"]) == made
    found = image.ensure_image("tcg", RecordingProgress(), needs=["cni_flannel", ROLE])
    assert found.digest == made.digest and found.beside[ROLE].exists()


@pytest.fixture
def orders(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[disk.Order]:
    """The disks that are built, from the stages of every node image, which are there."""
    fill(store, TABLE.shared)
    made: list[disk.Order] = []

    def build(order: disk.Order, store: Store, _progress: RecordingProgress) -> Stage:
        made.append(order)
        names = [stage.name for stage in order.stages.values()]
        facts = {"size_gib": 20, "versions": order.versions, "stages": names}
        return store.make("node", order.key, lambda _output: facts, space_gib=0)

    monkeypatch.setattr(disk, "build", build)
    monkeypatch.setattr(commands, "require_short", lambda _path: None)
    return made


def test_what_the_table_names_is_in_the_node_image_and_in_no_other_one(orders: list[disk.Order]) -> None:
    usual = image.ensure_image("tcg", RecordingProgress())
    found, again = (image.ensure_image("tcg", RecordingProgress(), needs=[CILIUM]) for _ in range(2))
    assert found == again and len(orders) == 1 and not found.beside
    assert found.digest != usual.digest and image.ensure_image("tcg", RecordingProgress()) == usual
    assert found.versions["cilium"] == TABLE.go["cilium"].version and "cilium" not in usual.versions
    assert {"go.cilium", "go.cilium-cni", "containers-cni_cilium", "containers"} <= set(orders[0].stages)
    archive = orders[0].stages["containers-cni_cilium"].directory / containers.ARCHIVE
    assert "var/lib/cilium/bpf/lib/lib.h" in archive.read_text(errors="replace")


def test_tools_are_in_the_node_image_of_who_asks_for_them(store: Store, orders: list[disk.Order]) -> None:
    usual = image.ensure_image("tcg", RecordingProgress())
    found, again = (image.ensure_image("tcg", RecordingProgress(), needs=[TOOLS]) for _ in range(2))
    assert found == again and found.digest != usual.digest and not found.beside
    (order,) = orders
    assert set(order.stages) - set(image._find_stages(TABLE.shared, store)) == {"go.cri-tools", "debian.node-tools"}
    assert found.versions["cri-tools"] == TABLE.go["cri-tools"].version and "cri-tools" not in usual.versions
    assert disk.system(order.stages) == order.stages["debian.node-tools"]
    assert disk.system({"debian.node": order.stages["debian.node"]}) == order.stages["debian.node"]
    image.prune_images({found.digest})
    assert image.ensure_image("tcg", RecordingProgress(), needs=[TOOLS]) == found


def test_packages_are_added_to_the_system_that_there_is(store: Store) -> None:
    """A node with tools is the node without them: another base is another system, and without one there is none."""
    tools = TABLE.debian["node-tools"]
    assert tools.onto == TABLE.debian["node"] and debian.find(tools, store) is None
    base = debian.build(tools.onto, store, RecordingProgress(), "")
    made = debian.build(tools, store, RecordingProgress(), "")
    assert debian.find(tools, store) == made
    argv = debian.command(tools, Path("root.tar"), "", Path("/a b/root.tar"))
    assert argv[1:3] == ["--variant=custom", "--include=bpftool,bpftrace,pwru"]
    (hook,) = [word for word in argv if word.startswith("--setup-hook=")]
    assert "--file='/a b/root.tar' --directory=\"$1\"" in hook
    assert debian.key(tools, base) != debian.key(tools, replace(base, content="another"))


def test_the_role_names_the_images_that_are_made() -> None:
    asked = {value for name, value in defaults(CILIUM).items() if name.endswith("_image")}
    assert asked == {made.name for made in TABLE.wanted[CILIUM]}
