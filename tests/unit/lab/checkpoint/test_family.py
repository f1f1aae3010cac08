"""Which checkpoint a lab starts from: its own, or that of another lab of its family."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hoplab.core.paths import LabPaths
from hoplab.engine import Engine
from hoplab.host import agent, freeze
from hoplab.host.agent import AgentError, Done
from hoplab.lab.checkpoint import create, kept, manifest, restore, store
from hoplab.lab.checkpoint.kept import Recipe
from hoplab.lab.checkpoint.manifest import CheckpointError, Manifest
from hoplab.lab.checkpoint.store import Store
from hoplab.lab.spec_file import plan_lab
from hoplab.spec.model import LabSpec
from tests.support.checkpoint_lab import HERE, CheckpointLab, Nodes, certificate


class Machines:
    """The embedded engine, as far as recipes look at it."""

    makes_clusters = False
    state_in_lab = True


class Family:
    """Labs of one checkout with their recipes, and checkpoints that are manifests alone."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.engine = Machines()

    def paths(self, lab: str) -> LabPaths:
        return LabPaths(lab, self.project)

    def recipe(self, lab: str, family: str = "course", workers: int = 1) -> Recipe:
        spec = LabSpec(lab, workers=workers, family=family)
        plan = plan_lab(spec, lab_id=self.paths(lab).id, accel="tcg")
        return Recipe(plan, "image", self.engine, family)  # type: ignore[arg-type]

    def keep(self, lab: str, *, name: str = "", project: Path | None = None) -> Path:
        paths = LabPaths(lab, project or self.project)
        name = name or kept.name_of(self.recipe(lab), self.project)
        folder = Store(paths).folder / name
        folder.mkdir(parents=True)
        made = Manifest(
            format=manifest.FORMAT, name=name, made=manifest.utc_now(), lab=lab, id=paths.id, image="image", spec="",
            roles="", hypervisor=HERE, machines={}, memory_mib=1, files=(),
        )  # fmt: skip
        (folder / manifest.FILE).write_text(made.sealed().text())
        return folder

    def origin(self, lab: str, **options: object) -> Path | None:
        found = kept.origin_of(self.recipe(lab, **options), self.paths(lab))  # type: ignore[arg-type]
        return found.folder if found else None


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Family:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(freeze, "hypervisor", lambda _accel: HERE)
    return Family(tmp_path)


def test_labs_of_a_family_have_one_name(family: Family) -> None:
    one, two = (kept.name_of(family.recipe(lab), family.project) for lab in ("course-s1", "course-s2"))
    assert one == two
    assert kept.name_of(family.recipe("course-s2", workers=2), family.project) != one
    assert kept.name_of(family.recipe("course-s2", family="other"), family.project) != one
    alone = {kept.name_of(family.recipe(lab, family=""), family.project) for lab in ("course-s1", "course-s2")}
    assert len(alone) == 2 and one not in alone


def test_a_fork_has_the_origins_checkpoint(family: Family) -> None:
    assert family.origin("course-s2") is None
    folder = family.keep("course-s1")
    assert family.origin("course-s2") == folder.parent
    assert family.origin("course-s2", workers=2) is None, "it would become another lab"


def test_a_labs_own_comes_first(family: Family) -> None:
    family.keep("course-s1")
    own = family.keep("course-s2")
    assert family.origin("course-s2") == own.parent


def test_another_checkout_has_other_paths(family: Family, tmp_path: Path) -> None:
    name = kept.name_of(family.recipe("course-s1"), family.project)
    family.keep("course-s1", name=name, project=tmp_path / "other")
    assert family.origin("course-s2") is None


def test_a_damaged_one_is_none(family: Family) -> None:
    folder = family.keep("course-s1")
    (folder / manifest.FILE).write_text("{")
    assert family.origin("course-s2") is None


def test_a_lab_of_the_cli_is_no_fork(family: Family) -> None:
    family.keep("course-s1")
    family.engine.makes_clusters = True
    assert family.origin("course-s2") is None


@pytest.mark.parametrize(
    ("word", "keeps", "takes"), [("auto", True, True), ("take", False, True), ("off", False, False)]
)
def test_what_a_spec_says(word: str, keeps: bool, takes: bool) -> None:
    spec = replace(LabSpec("dev"), checkpoint=word)  # type: ignore[arg-type]
    engine: Engine = Machines()  # type: ignore[assignment]
    assert (kept.keeps(spec, engine), kept.takes(spec, engine)) == (keeps, takes)
    assert not kept.takes(replace(spec, libvirt="system"), engine)


# What guests do before the cut, by their agents


@contextmanager
def answering(done: Done | None) -> Iterator[object]:
    """An agent with one answer for every script."""

    class Agent:
        def run(self, script: str, given: str = "", limit_s: float = 60.0) -> Done:
            assert "drop_caches" in script and "kubelet-client-current.pem" in script
            assert done
            return done

    if done is None:
        raise AgentError("the guest agent does not answer")
    yield Agent()


def test_agents_write_caches_out_and_name_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = CheckpointLab(tmp_path, monkeypatch)
    ends = lab.now.replace(microsecond=0)
    done = Done(0, f"{create.MARK}{certificate(ends)}{create.MARK}", "")
    monkeypatch.setattr(agent, "opened", lambda *_: answering(done))
    monkeypatch.setattr(create, "Hosts", None)  # nobody logs in
    made = create.create(lab.paths, "one", lab.progress)
    found = [expiry for expiry in made.expiries if expiry.what.startswith("worker")]
    assert [(expiry.what, expiry.when) for expiry in found] == [
        ("worker1: kubelet-client-current.pem", ends),
        ("worker2: kubelet-client-current.pem", ends),
    ]


@pytest.mark.parametrize("answer", [None, Done(1, "", "no")])
def test_without_an_agent_ssh_does_it(answer: Done | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = CheckpointLab(tmp_path, monkeypatch)
    monkeypatch.setattr(Nodes, "ends", lab.now)
    monkeypatch.setattr(agent, "opened", lambda *_: answering(answer))
    made = create.create(lab.paths, "one", lab.progress)
    assert sum(expiry.what.startswith("worker") for expiry in made.expiries) == 2


# Errors of a fork come before anything is lost


def test_a_checkpoint_of_another_lab_is_not_restored_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = CheckpointLab(tmp_path, monkeypatch)
    create.create(lab.paths, "one", lab.progress)
    other = LabPaths("other", lab.paths.project)
    (store.root() / lab.paths.id).rename(store.root() / other.id)
    with pytest.raises(CheckpointError, match=f"is of the lab {lab.paths.id}, not of {other.id}"):
        restore.restore(other, "one", lab.progress)


def test_a_fork_that_can_not_be_made_is_made_anew(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = CheckpointLab(tmp_path, monkeypatch)
    family.project = lab.paths.project
    family.keep("course-s1")
    progress = lab.progress
    assert kept.take(family.recipe("course-s2"), family.paths("course-s2"), progress) is None
    said = " ".join(lab.screen.getvalue().split())
    assert "the lab is made anew: checkpoint up-" in said and "is of a lab of the Pulumi CLI" in said
    assert not family.paths("course-s2").root.exists()
