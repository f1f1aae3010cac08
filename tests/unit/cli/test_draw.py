"""`lab graph` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hoplab import cli
from hoplab.verify import drawing
from tests.support.files import RECORDINGS

VXLAN = str(RECORDINGS / "flannel-vxlan.json")


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.cli, ["graph", *words], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_a_drawing_goes_to_standard_output_alone() -> None:
    code, out, err = run("--recording", VXLAN, "--no-claims")
    assert code == 0
    assert out.startswith("<svg ") and out.endswith("</svg>\n")
    assert "drawing the lab" in err


def test_a_drawing_goes_to_a_file_whose_name_says_the_format(tmp_path: Path) -> None:
    file = tmp_path / "lab.mmd"
    code, out, _ = run("--recording", VXLAN, "--no-claims", "--of", "path", "echo-w8kjg", "worker2", "-o", str(file))
    assert (code, out) == (0, f"drew {file}\n")
    assert file.read_text().startswith("flowchart LR\n")


def test_options_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def draw(paths: Any, **options: Any) -> str:
        given.update(options, lab=paths.lab)
        return "drawing\n"

    monkeypatch.setattr(drawing, "draw", draw)
    assert run("--lab", "blue", "--of", "path", "a", "b", "--format", "dot")[1] == "drawing\n"
    del given["say"]
    wanted = {"recording": None, "format": "dot", "of": "path", "ends": ("a", "b"), "claims": True, "lab": "blue"}
    assert given == wanted


@pytest.mark.parametrize(
    "words", [("--of", "path"), ("--of", "path", "a"), ("a", "b"), ("--of", "path", "a", "b", "c")]
)
def test_two_places_go_with_a_path_alone(words: tuple[str, ...]) -> None:
    code, _, err = run("--recording", VXLAN, *words)
    assert code == 2
    assert "--of path goes with the names of two places, and only with them: --of path A B" in err


def test_a_recording_is_of_one_lab() -> None:
    code, _, err = run("--recording", VXLAN, "--lab", "dev")
    assert code == 2
    assert "--lab and --recording exclude each other: a recording is of one lab" in err
