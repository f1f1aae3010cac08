"""The pictures of docs/graph.md are what `./lab graph` draws; UPDATE_GOLDEN=1 draws them anew."""

from __future__ import annotations

import os

import pytest

from hoplab.core.paths import PROJECT, LabPaths
from hoplab.verify import drawing
from tests.support.files import RECORDINGS

PAGE = PROJECT / "docs" / "graph.md"
FIGURES = {
    "lab": ("flannel-vxlan", "all", (), False),
    "broken": ("broken/the-route-to-the-other-nodes-pods-is-gone", "nodes", (), True),
    "path": ("calico-ipip", "path", ("echo-t5rr2", "echo-m2wcm"), False),
}


@pytest.mark.docs
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_what_is_drawn_of_its_recording(name: str) -> None:
    recording, of, ends, claims = FIGURES[name]
    file = RECORDINGS / f"{recording}.json"
    text = drawing.draw(LabPaths("dev"), recording=file, of=of, ends=ends, claims=claims)
    figure = PROJECT / "docs" / "graph" / f"{name}.svg"
    if os.environ.get("UPDATE_GOLDEN"):
        figure.write_text(text)
    assert figure.read_text() == text, "if that is intended: UPDATE_GOLDEN=1 ./lab test --fast"
    assert f"](graph/{name}.svg)" in PAGE.read_text()
    if claims:
        assert "worker2 has no route 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink" in text
        assert "1 claim fails, and 2 because of it" in text
