"""Each chapter has a figure that is what is drawn of its recording; `./lab pages --figures` draws them anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoplab.core.paths import PROJECT
from hoplab.devtools import figures

PAGES = PROJECT / "docs" / "lessons"


@pytest.mark.docs
def test_the_figures_are_those_of_the_recordings() -> None:
    assert figures.outdated() == {}, "./lab pages --figures draws them anew"


@pytest.mark.docs
def test_every_chapter_shows_its_figure() -> None:
    chapters = {page.stem for page in PAGES.glob("0*.md")}
    assert chapters == set(figures.FIGURES)
    for name in chapters:
        assert f"](figures/{name}.svg)" in (PAGES / f"{name}.md").read_text()


def test_what_differs_is_written_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(figures, "FOLDER", tmp_path / "figures")
    monkeypatch.setattr(figures, "FIGURES", {"03-routes": figures.FIGURES["03-routes"]})
    said: list[str] = []
    assert figures.write(said.append) == ["03-routes.svg"] and said == ["figure 03-routes"]
    text = figures.file_of("03-routes").read_text()
    assert text.startswith("<svg ") and "10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink" in text
    assert figures.write() == []
