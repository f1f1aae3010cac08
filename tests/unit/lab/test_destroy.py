"""What `lab destroy` does after an engine has destroyed what it knows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from hoplab.core.console import PlainProgress
from hoplab.core.paths import LabPaths
from hoplab.host import machines
from hoplab.lab import lifecycle


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
