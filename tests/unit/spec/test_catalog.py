"""The component table: complete, and in step with the locks beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hoplab.image import component_versions
from hoplab.spec.catalog import HERE, GoComponent, components, parse

TABLE = components()


@pytest.mark.parametrize("component", TABLE.go.values(), ids=lambda component: component.name)
def test_lock_names_the_version_of_the_table(component: GoComponent) -> None:
    module = (component.folder / "go.mod").read_text()
    if component.source.startswith("hoplab.local/"):
        assert f"module {component.source}\n" in module
        assert (component.folder / "go.sum").read_text() == ""  # the standard library only
        return
    required = f"{component.source} v{component.version}"
    assert re.search(rf"^\s*{re.escape(required)}( // indirect)?$", module, re.M)
    assert f"{component.source} v{component.version} h1:" in (component.folder / "go.sum").read_text()


@pytest.mark.parametrize("component", TABLE.go.values(), ids=lambda component: component.name)
def test_lock_keeps_every_program(component: GoComponent) -> None:
    """`go mod tidy` drops what no `tool` line names. A module of files only is not tidied."""
    if component.source.startswith("hoplab.local/") or not component.programs:
        return
    tools = re.search(r"^tool \(\n(.*?)^\)|^tool (.*?)$", (component.folder / "go.mod").read_text(), re.M | re.S)
    assert tools
    named = {line.strip() for line in (tools[1] or tools[2]).splitlines()}
    assert set(component.programs.values()) <= named


def test_kubernetes_modules_are_of_one_release() -> None:
    version = TABLE.go["kubernetes"].version
    replaced = re.findall(r"=> \S+ v(\S+)$", (TABLE.go["kubernetes"].folder / "go.mod").read_text(), re.M)
    assert len(replaced) > 20
    assert set(replaced) == {f"0.{version.partition('.')[2]}"}
    major, minor, _ = version.split(".")
    assert f"k8s.io/component-base/version.gitMajor={major}" in TABLE.go["kubernetes"].variables
    assert f"k8s.io/component-base/version.gitMinor={minor}" in TABLE.go["kubernetes"].variables


def test_container_images_are_made_of_components() -> None:
    for image in TABLE.images:
        assert image.base in {"", *TABLE.debian}
        assert "{" not in image.name
        for source in image.files.values():
            if source.startswith("here/"):
                assert (HERE / source.removeprefix("here/")).is_file()
                continue
            kind, name = source.partition("/")[0].split(".", 1)
            if kind == "go":
                assert source.partition("/")[2] in TABLE.go[name].programs
            else:
                assert kind == "debian"
                assert name in TABLE.debian


def test_images_of_the_conformance_tests_are_made_of_their_programs() -> None:
    suite = TABLE.conformance
    assert suite and {image.base for image in suite.images} == {suite.debian.name}
    sources = {source for image in suite.images for source in image.files.values()}
    assert sources == {f"go.{suite.go.name}/{program}" for program in suite.go.programs}


def test_versions_need_no_build() -> None:
    versions = component_versions()
    assert versions["kubernetes"] == "1.37.2"
    assert versions["containerd"] == versions["containerd-shim"]
    assert versions["debian"] == "trixie"


def test_parse_expands_versions_and_finds_locks(tmp_path: Path) -> None:
    table = parse(
        """
        format = 1
        [go.one]
        version = "1.2.3"
        source = "example.org/one"
        lock = "shared"
        variables = ["example.org/one.Version=v{version}"]
        programs = { one = "example.org/one/cmd/one" }
        [debian.node]
        suite = "trixie"
        variant = "minbase"
        packages = ["sudo"]
        [[image]]
        name = "hoplab.local/one:v{go.one}"
        files = { "one" = "go.one/one" }
        entrypoint = ["/one"]
        """,
        tmp_path,
    )
    assert table.go["one"].variables == ("example.org/one.Version=v1.2.3",)
    assert table.go["one"].folder == tmp_path / "go" / "shared"
    assert table.images[0].name == "hoplab.local/one:v1.2.3"
    assert table.versions() == {"one": "1.2.3", "debian": "trixie"}
