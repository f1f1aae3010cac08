"""The file of a spec, `Pulumi.LAB.yaml`: what is read, and what the errors name."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from hoplab.core.errors import LabError, SpecError
from hoplab.core.paths import LabPaths
from hoplab.lab.spec_file import load_spec
from hoplab.spec.model import LabSpec

DIGITS = "9" * 5000  # more than Python converts


def write(folder: Path, lab: str, text: str) -> LabPaths:
    (folder / f"Pulumi.{lab}.yaml").write_text(textwrap.dedent(text))
    return LabPaths(lab, folder)


def test_load(tmp_path: Path) -> None:
    paths = write(
        tmp_path,
        "dev",
        """\
        encryptionsalt: v1:abc
        config:
          lab:nodes:
            workers: 3
          lab:accel: tcg
        """,
    )
    spec = load_spec(paths)
    assert (spec.workers, spec.accel) == (3, "tcg")


@pytest.mark.parametrize("text", ["", "config: {}\n", "config:\n", "encryptionsalt: x\n"])
def test_load_shortest_files(tmp_path: Path, text: str) -> None:
    assert load_spec(write(tmp_path, "dev", text)) == LabSpec("dev")


@pytest.mark.parametrize(
    ("text", "issue"),
    [
        ("config: [1]\n", "config: is a list ([1]); settings as `lab:name: value` below `config:`"),
        ("- x\n", "the file: is a list (['x']); settings as `lab:name: value` below `config:`"),
        (
            "config:\n  lab:accel: tcg\n  lab:accel: kvm\n",
            "line 3, column 3: lab:accel is there twice; valid YAML is needed (docs/spec.md has examples)",
        ),
        (
            "config:\n  lab:nodes: {workers: 3\n",
            "line 3, column 1: expected ',' or '}', but got '<stream end>'; "
            "valid YAML is needed (docs/spec.md has examples)",
        ),
    ],
)
def test_load_what_is_not_a_stack_file(tmp_path: Path, text: str, issue: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(write(tmp_path, "dev", text))
    assert [str(found) for found in caught.value.issues] == [issue]


def test_load_missing_file_names_the_labs_there_are(tmp_path: Path) -> None:
    with pytest.raises(LabError) as caught:
        load_spec(LabPaths("dev", tmp_path))
    assert caught.value.message == "there is no lab 'dev': Pulumi.dev.yaml does not exist"
    assert caught.value.remedy == (
        "there is no lab here yet; the shortest spec of a new one is the line `config: {}` in Pulumi.dev.yaml"
    )
    write(tmp_path, "demo", "")
    write(tmp_path, "dev", "")
    with pytest.raises(LabError) as caught:
        load_spec(LabPaths("deb", tmp_path))
    assert caught.value.remedy.startswith("did you mean dev? labs here: demo, dev; ")


def test_load_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.dev.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabError, match=r"Pulumi\.dev\.yaml can't be read: .*utf-8"):
        load_spec(LabPaths("dev", tmp_path))


@pytest.mark.parametrize("name", ["", "Dev", "1dev", "dev-", "a.b", "../x", "a" * 21, "dev\n"])
def test_load_invalid_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(LabPaths(name, tmp_path))
    assert [issue.path for issue in caught.value.issues] == ["name"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (DIGITS, "line 2, column 24: a number of 5000 characters is too long"),
        ("!!int two", "line 2, column 24: a value that can't be read"),
        ("2026-02-30", "line 2, column 24: a value that can't be read"),
        ("{[1]: 2}", "line 2, column 25: a name is a list or a mapping"),
        ("\x01", "the file: is not YAML"),
        ("[" * 5000, "line 2, column 74: is nested too deeply"),
    ],
)
def test_load_a_value_that_yaml_cannot_make(tmp_path: Path, value: str, problem: str) -> None:
    paths = write(tmp_path, "dev", f"config:\n  lab:nodes: {{workers: {value}}}\n")
    with pytest.raises(SpecError) as caught:
        load_spec(paths)
    assert [str(issue) for issue in caught.value.issues] == [
        f"{problem}; valid YAML is needed (docs/spec.md has examples)"
    ]
