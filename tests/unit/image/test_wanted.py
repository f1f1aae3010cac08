"""What is in no node image: built when it is asked for, kept by `prune`, and no reason for another node image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hoplab import image
from hoplab.core.errors import HostError
from hoplab.image import commands, containers, gobuild, wanted
from hoplab.image.store import Stage, Store
from hoplab.spec.catalog import GoComponent, components
from tests.support.labs import IMAGE
from tests.support.progress import RecordingProgress
from tests.support.roles import defaults

ROLE = "policy_kube_network_policies"
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
            return {}

        return store.make(f"go-{component.name}", gobuild.key(component), write, space_gib=0)

    monkeypatch.setattr(gobuild, "build", compiled)
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
    assert set(TABLE.go) - set(shared.go) == {"helm", "kube-network-policies"}
    assert not {source for made in shared.images for source in made.files.values() if "network-policies" in source}
    assert set(TABLE.wanted) == {ROLE}


def test_what_is_asked_for_is_beside_the_image(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = replace(IMAGE, digest="0123")
    monkeypatch.setattr(image, "_ensure_disk", lambda *_: made)
    assert image.ensure_image("tcg", RecordingProgress(), needs=["cni_flannel"]) == made
    found = image.ensure_image("tcg", RecordingProgress(), needs=["cni_flannel", ROLE])
    assert found.digest == made.digest and found.beside[ROLE].exists()
