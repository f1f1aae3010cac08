"""What tests of container images share."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoplab.image import archives


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty local folder of images, which the code under test uses too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return archives.folder()
