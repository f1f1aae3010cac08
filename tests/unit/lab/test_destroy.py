"""What `lab destroy` does after an engine has destroyed what it knows; that `lab preview` leaves nothing behind."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from hoplab.core.console import PlainProgress
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.host import machines, netns
from hoplab.host.libvirtd import PrivateLibvirt
from hoplab.lab import doctor, lifecycle
from hoplab.spec.model import LabSpec


@pytest.mark.parametrize(("goes", "swept"), [(True, []), (False, ["dev"])])
def test_destroy_does_not_sweep_a_libvirt_that_went_with_the_resources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes: bool, swept: list[str]
) -> None:
    """The Pulumi CLI's Host resource ends the private libvirt; the embedded engine leaves that to `lab destroy`."""
    paths = LabPaths("dev", tmp_path)
    asked: list[str] = []
    paths.libvirt.mkdir(parents=True)

    def destroyed(_progress: PlainProgress) -> tuple[()]:
        if goes:
            paths.libvirt.rmdir()
        return ()

    monkeypatch.setattr(lifecycle, "load_spec", lambda *_: None)
    monkeypatch.setattr(lifecycle, "choose_engine", lambda *_: SimpleNamespace(destroy=destroyed))

    def sweep(_uri: str, lab_id: str) -> list[str]:
        asked.append(lab_id.split("-", maxsplit=1)[0])
        return []

    monkeypatch.setattr(machines, "sweep", sweep)
    assert lifecycle._destroy_resources(paths, "qemu:///x", PlainProgress()) == []
    assert asked == swept


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("files", "namespace"), [(False, False), (True, False), (True, True)])
def test_preview_ends_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: bool, namespace: bool, fails: bool
) -> None:
    """A private libvirt that ran before runs on, with the machines in it."""
    paths = LabPaths("dev", tmp_path)
    if files:
        paths.keys.mkdir(parents=True)
    stopped: list[str] = []

    def preview(_progress: PlainProgress) -> tuple[()]:
        paths.libvirt.mkdir(parents=True)
        if fails:
            raise LabError("no")
        return ()

    monkeypatch.setattr(lifecycle, "load_spec", lambda *_: LabSpec("dev"))
    monkeypatch.setattr(doctor, "preflight", lambda *_: None)
    monkeypatch.setattr(netns, "exists", lambda _name: namespace)
    monkeypatch.setattr(lifecycle, "choose_engine", lambda *_: SimpleNamespace(preview=preview))
    monkeypatch.setattr(PrivateLibvirt, "stop", lambda private: stopped.append(private.paths.lab))
    with pytest.raises(LabError) if fails else nullcontext():
        lifecycle.preview(paths, PlainProgress())
    assert stopped == ([] if namespace else ["dev"])
    assert paths.root.exists() == files
