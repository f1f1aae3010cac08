"""What `up` does when the cluster is usable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hoplab.cluster import pod_routes
from hoplab.core.paths import LabPaths
from hoplab.lab import lifecycle
from tests.support.labs import MADE


@pytest.mark.parametrize(
    ("placement", "namespace", "learns"),
    [("hosted", "hoplab-dev", True), ("hosted", "", False), ("vm", "hoplab-dev", False)],
    ids=["in a namespace", "on the workstation's own network", "in a machine"],
)
def test_a_hosted_control_plane_learns_where_pods_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, placement: str, namespace: str, learns: bool
) -> None:
    paths = LabPaths("dev", tmp_path)
    asked: list[object] = []

    @contextmanager
    def connect(_paths: LabPaths, netns: str) -> Iterator[str]:
        yield f"API in {netns}"

    monkeypatch.setattr(lifecycle, "connect", connect)
    monkeypatch.setattr(lifecycle, "ways_to_pods", lambda api: f"ways that the {api} has")
    monkeypatch.setattr(pod_routes, "set_to", lambda *given: asked.append(given))
    lifecycle._lead_to_pods(replace(MADE, placement=placement, netns=namespace), paths)  # type: ignore[arg-type]
    expected = (f"ways that the API in {namespace} has", paths.control_plane / "routes", namespace)
    assert asked == ([expected] if learns else [])
