from __future__ import annotations

from pathlib import Path

import pytest

from hoplab.core.errors import EngineError
from hoplab.core.paths import LabPaths
from hoplab.engine import choose_engine
from hoplab.spec.model import LabSpec


@pytest.mark.parametrize(
    ("asked", "cli", "made_by_embedded", "expected"),
    [
        ("auto", False, False, "EmbeddedEngine"),
        ("auto", True, False, "PulumiCli"),
        ("auto", True, True, "EmbeddedEngine"),  # or everything would be made twice
        ("embedded", True, False, "EmbeddedEngine"),
        ("pulumi", True, False, "PulumiCli"),
    ],
)
def test_choose_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, cli: bool, made_by_embedded: bool, expected: str
) -> None:
    paths = LabPaths("dev", tmp_path)
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/pulumi" if cli else None)
    if made_by_embedded:
        paths.root.mkdir(parents=True)
        paths.engine_state.touch()
    assert type(choose_engine(LabSpec("dev", engine=asked), paths)).__name__ == expected  # type: ignore[arg-type]


def test_choose_engine_names_a_missing_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(EngineError) as caught:
        choose_engine(LabSpec("dev", engine="pulumi"), LabPaths("dev", tmp_path))
    assert caught.value.message == "there is no `pulumi` on PATH"
    assert caught.value.remedy == "run `./lab pulumi install`, or set lab:engine to embedded, which needs no CLI"
