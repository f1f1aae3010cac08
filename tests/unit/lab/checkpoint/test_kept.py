"""What `up` keeps of a new lab, when it starts from that, and when not."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from hoplab.cluster.converge import ConvergeResult
from hoplab.core.errors import EngineError, LabError
from hoplab.core.progress import Progress
from hoplab.engine import Applied
from hoplab.infra.context import LabContext
from hoplab.lab import doctor, lifecycle, state
from hoplab.lab.checkpoint import create, journal, kept, manifest, store
from hoplab.lab.checkpoint.manifest import CheckpointError
from hoplab.lab.checkpoint.store import Store
from hoplab.lab.lifecycle import UpResult
from hoplab.lab.spec_file import plan_lab
from hoplab.lab.state import LabState
from hoplab.spec.model import LabSpec
from hoplab.spec.plan import LabPlan
from tests.support.checkpoint_lab import CheckpointLab
from tests.support.labs import lab_context


class Machines:
    """An engine that has nothing to do: the files of the lab are made with its cluster."""

    makes_clusters = False
    state_in_lab = True

    def up(self, _progress: Progress) -> Applied:
        return Applied({}, ())

    def converged(self) -> None: ...


class Ups:
    """`up` of a lab whose machines are files; there is no lab yet."""

    def __init__(self, lab: CheckpointLab, patch: pytest.MonkeyPatch) -> None:
        self.lab = lab
        self.engine = Machines()
        self.made = 0  # labs that were made anew
        self.fails = False  # at the end of the cluster
        lab.destroy()
        self.spec("{}")
        for name, fake in (
            ("libvirt_host", SimpleNamespace(host_for=lambda _paths: None)),
            ("choose_engine", lambda *_: self.engine),
            ("node_image", lambda spec, *_: (self._plan(spec), lab.image)),
            ("resolve", lambda spec, *_: self._context(spec)),
            ("drain_removed", lambda *_: None),
            ("make_cluster", self._make),
        ):
            patch.setattr(lifecycle, name, fake)
        patch.setattr(doctor, "preflight", lambda *_: None)

    def spec(self, config: str) -> None:
        self.lab.paths.spec.write_text(f"config: {config}\n")

    def _plan(self, spec: LabSpec) -> LabPlan:
        return plan_lab(spec, lab_id=self.lab.paths.id, accel="tcg")

    def _context(self, spec: LabSpec) -> LabContext:
        return replace(lab_context("tcg", self.lab.paths), plan=self._plan(spec), image=self.lab.image, spec=spec)

    def _make(self, context: LabContext, *_: object, **__: object) -> tuple[LabState, ConvergeResult]:
        self.lab.make()
        if self.fails:
            raise EngineError("a machine does not boot", remedy="look at its console")
        self.made += 1
        lab = replace(state.load(self.lab.paths), spec=context.spec, phases=(("cluster", 1.0),))
        state.save(lab, self.lab.paths)
        return lab, ConvergeResult(changed=3, tasks=9, seconds=1.0)

    def __call__(self, *, fresh: bool = False) -> UpResult:
        return lifecycle.up(self.lab.paths, self.lab.progress, fresh=fresh)

    def again(self, *, fresh: bool = False) -> UpResult:
        """`up` of a lab that was changed and destroyed."""
        self.lab.change("changed")
        self.lab.destroy()
        return self(fresh=fresh)

    @property
    def kept(self) -> list[str]:
        return Store(self.lab.paths).names()

    @property
    def said(self) -> str:
        return " ".join(self.lab.screen.getvalue().split())


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ups:
    return Ups(CheckpointLab(tmp_path, monkeypatch), monkeypatch)


def test_a_new_lab_is_kept_and_made_again_from_that(up: Ups) -> None:
    assert up().checkpoint is None
    (name,) = up.kept
    assert f"kept as checkpoint {name} (" in up.said
    result = up.again()
    assert (up.made, up.kept) == (1, [name])
    assert result.checkpoint == manifest.read(Store(up.lab.paths).find(name))
    assert (result.changes, result.converged.tasks) == ((), 0)
    assert up.lab.content() == ("disk 1", "etcd")
    assert up.lab.machines() == {("running", "first")}
    assert next(title for title, _ in result.state.phases) == "node image"
    assert state.load(up.lab.paths) == result.state
    assert state.spec_notice(result.state, up.lab.paths) == ""


def test_a_lab_is_kept_once(up: Ups) -> None:
    up()
    (name,) = up.kept
    before = manifest.read(Store(up.lab.paths).find(name))
    up.lab.change("in use")
    assert up().checkpoint is None
    assert manifest.read(Store(up.lab.paths).find(name)) == before


def test_a_lab_is_kept_by_the_up_that_completes_it(up: Ups) -> None:
    up.fails = True
    with pytest.raises(EngineError):
        up()
    assert up.kept == []
    up.fails = False
    assert up().checkpoint is None
    assert len(up.kept) == 1


def other_spec(up: Ups, _patch: pytest.MonkeyPatch) -> None:
    up.spec("{lab:proxy: {mode: nftables}}")


def other_image(up: Ups, _patch: pytest.MonkeyPatch) -> None:
    up.lab.image = replace(up.lab.image, digest="1b1b1b1b1b1b")


def other_hypervisor(up: Ups, _patch: pytest.MonkeyPatch) -> None:
    up.lab.hypervisor = replace(up.lab.hypervisor, qemu="10.0.2")


def other_role(up: Ups, _patch: pytest.MonkeyPatch) -> None:
    role = up.lab.paths.project / "roles/base/tasks/main.yml"
    role.parent.mkdir(parents=True)
    role.write_text("[]")


def other_code(up: Ups, _patch: pytest.MonkeyPatch) -> None:
    file = up.lab.paths.project / "hoplab/infra/cloudinit.py"
    file.parent.mkdir(parents=True)
    file.write_text("pass")


def other_engine(up: Ups, _patch: pytest.MonkeyPatch) -> None:
    class Others(Machines):
        pass

    up.engine = Others()


def other_format(_up: Ups, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(manifest, "FORMAT", manifest.FORMAT + 1)


OTHERS = (other_spec, other_image, other_hypervisor, other_role, other_code, other_engine, other_format)


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: other.__name__)
def test_another_lab_is_made_anew_and_kept_instead(
    up: Ups, other: Callable[[Ups, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    up()
    before = up.kept
    other(up, monkeypatch)
    assert up.again().checkpoint is None
    assert up.made == 2
    assert len(up.kept) == 1 and up.kept != before


@pytest.mark.parametrize("word", ["off", '"off"', "false"])
def test_off_neither_keeps_nor_takes(up: Ups, word: str) -> None:
    up.spec(f"{{lab:checkpoint: {word}}}")
    up()
    assert up.kept == []
    up.spec("{}")
    up.again()
    (name,) = up.kept
    up.spec(f"{{lab:checkpoint: {word}}}")
    assert up.again().checkpoint is None
    assert (up.made, up.kept) == (3, [name])


def test_a_checkpoint_is_of_a_lab_with_everything_in_its_folder(up: Ups) -> None:
    spec = LabSpec("dev")
    assert kept.keeps(spec, up.engine)  # type: ignore[arg-type]
    assert not kept.keeps(replace(spec, libvirt="system"), up.engine)  # type: ignore[arg-type]
    up.engine.state_in_lab = False
    assert not kept.keeps(spec, up.engine)  # type: ignore[arg-type]


def test_fresh_makes_the_lab_anew(up: Ups) -> None:
    up()
    (name,) = up.kept
    before = manifest.read(Store(up.lab.paths).find(name))
    assert up.again(fresh=True).checkpoint is None
    assert (up.made, up.kept) == (2, [name])
    assert manifest.read(Store(up.lab.paths).find(name)).made > before.made


def test_fresh_is_for_no_lab_that_exists(up: Ups) -> None:
    up()
    with pytest.raises(LabError, match="--fresh makes a new lab, and lab 'dev' exists") as caught:
        up(fresh=True)
    assert "./lab destroy --lab dev" in caught.value.remedy
    assert up.made == 1


def test_fresh_continues_what_it_began(up: Ups) -> None:
    up.fails = True
    with pytest.raises(EngineError):
        up(fresh=True)
    up.fails = False
    assert up(fresh=True).checkpoint is None


@pytest.mark.parametrize("what", ["damaged", "expired"])
def test_a_kept_checkpoint_that_is_no_good(up: Ups, what: str) -> None:
    up()
    (name,) = up.kept
    folder = Store(up.lab.paths).find(name)
    if what == "damaged":
        next((folder / "memory").iterdir()).write_text("other")
    else:
        found = manifest.read(folder)
        late = tuple(replace(expiry, when=up.lab.now - timedelta(days=1)) for expiry in found.expiries)
        (folder / manifest.FILE).write_text(replace(found, expiries=late).sealed().text())
    assert up.again().checkpoint is None
    assert f"the lab is made anew: {'' if what == 'damaged' else 'certificates in '}checkpoint {name}" in up.said
    assert up.made == 2
    assert not journal.folder(up.lab.paths).exists()
    manifest.refuse_damaged(folder, manifest.read(folder))  # the new one


def test_a_lab_that_can_not_be_kept_is_made(up: Ups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MARGIN", 2**60)
    assert up().state.phases
    assert up.kept == []
    assert "no checkpoint of it is kept: up-" in up.said and "are free there" in up.said


def test_the_oldest_of_other_labs_go_first(up: Ups, monkeypatch: pytest.MonkeyPatch) -> None:
    up()
    (name,) = up.kept
    mine = Store(up.lab.paths).find(name)
    others = []
    for age, lab in enumerate(("new-1", "old-2", "older-3")):
        folder = mine.parent.parent / lab / "up-0123456789ab"
        folder.mkdir(parents=True)
        (folder / manifest.FILE).write_text("{}")
        (folder / "disk").write_bytes(bytes(100))
        os.utime(folder, (1e9 - age, 1e9 - age))
        others.append(folder)
    by_hand = others[0].parent / "by-hand"
    others[0].rename(by_hand)  # the user's own stay
    size = sum(path.lstat().st_size for path in manifest.files_below(mine))
    monkeypatch.setattr(kept, "MOST", size + 150)
    assert up.again(fresh=True).checkpoint is None
    assert [folder.exists() for folder in (mine, by_hand, *others[1:])] == [True, True, True, False]
    assert "removed the kept checkpoint up-0123456789ab of older-3" in up.said


def test_the_names_are_for_up_alone(up: Ups) -> None:
    up()
    with pytest.raises(CheckpointError, match="up-0123456789ab is the name of a checkpoint that `up` keeps") as caught:
        create.create(up.lab.paths, "up-0123456789ab", up.lab.progress)
    assert caught.value.remedy == "take another name"
