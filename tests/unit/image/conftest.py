"""What tests of images share."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoplab import image
from hoplab.image import archives, containers, debian, disk, gobuild
from hoplab.image.store import Store
from hoplab.spec.catalog import components
from tests.support.image_stages import fill


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty local folder of images, which the code under test uses too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return archives.folder()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A cache with every stage of the real table, all of them nearly empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = Store(tmp_path / "hoplab" / "image")
    fill(store, components().shared)
    return store


@pytest.fixture
def no_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be run, and neither root nor programs are there."""

    def never(*args: object, **options: object) -> None:
        raise AssertionError(f"something is built: {args}")

    for module in (image.commands, debian, gobuild, containers, disk):
        monkeypatch.setattr(module, "run" if hasattr(module, "run") else "require", never)
    monkeypatch.setattr(image.commands, "require", never)
