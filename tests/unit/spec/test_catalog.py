"""The component table: complete, and in step with the locks beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hoplab.core.errors import ImageError
from hoplab.image import component_versions
from hoplab.spec.catalog import HERE, Components, GoComponent, components, kubernetes_versions, parse, tables
from hoplab.spec.model import LabSpec

TABLE = components()
TEXT = (HERE / "components.toml").read_text()
DIFFERING = [module for table in tables().values() for module in table.go.values() if module not in TABLE.go.values()]
MODULES = pytest.mark.parametrize(
    "component", [*TABLE.go.values(), *DIFFERING], ids=lambda module: f"{module.name} {module.version}"
)
TABLES = pytest.mark.parametrize("table", tables().values(), ids=tables())


@MODULES
def test_lock_names_the_version_of_the_table(component: GoComponent) -> None:
    module = (component.folder / "go.mod").read_text()
    if component.source.startswith("hoplab.local/"):
        assert f"module {component.source}\n" in module
        assert (component.folder / "go.sum").read_text() == ""  # the standard library only
        return
    required = f"{component.source} v{component.version}"
    assert re.search(rf"^\s*{re.escape(required)}( // indirect)?$", module, re.M)
    assert f"{component.source} v{component.version} h1:" in (component.folder / "go.sum").read_text()


@MODULES
def test_lock_keeps_every_program(component: GoComponent) -> None:
    """`go mod tidy` drops what no `tool` line names. A module of files only is not tidied, nor are more sums."""
    if component.source.startswith("hoplab.local/") or not component.programs:
        return
    if component.more_sums:
        more, locked = component.more_sums.read_text(), (component.folder / "go.sum").read_text()
        assert more and not set(more.splitlines()) & set(locked.splitlines())
        return
    tools = re.search(r"^tool \(\n(.*?)^\)|^tool (.*?)$", (component.folder / "go.mod").read_text(), re.M | re.S)
    assert tools
    named = {line.strip() for line in (tools[1] or tools[2]).splitlines()}
    assert set(component.programs.values()) <= named


@TABLES
def test_kubernetes_modules_are_of_one_release(table: Components) -> None:
    kubernetes = table.go["kubernetes"]
    version = kubernetes.version
    replaced = re.findall(r"=> \S+ v(\S+)$", (kubernetes.folder / "go.mod").read_text(), re.M)
    assert len(replaced) > 20
    assert set(replaced) == {f"0.{version.partition('.')[2]}"}
    major, minor, _ = version.split(".")
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        stamps = {f"{package}.gitMajor={major}", f"{package}.gitMinor={minor}", f"{package}.gitVersion=v{version}"}
        assert stamps <= set(kubernetes.variables)


@TABLES
def test_container_images_are_made_of_components(table: Components) -> None:
    for image in table.images:
        assert image.base in {"", *TABLE.debian}
        assert "{" not in image.name
        for source in image.files.values():
            if source.startswith("here/"):
                assert (HERE / source.removeprefix("here/")).is_file()
                continue
            kind, name = source.partition("/")[0].split(".", 1)
            if kind == "go":
                assert source.partition("/")[2] in table.go[name].programs
            else:
                assert kind == "debian"
                assert name in table.debian


def test_images_of_the_conformance_tests_are_made_of_their_programs_and_files() -> None:
    suite = TABLE.conformance
    assert suite and {image.base for image in suite.images} == {suite.debian.name}
    sources = {source for image in suite.images for source in image.files.values()}
    made = [*suite.go.programs, *(f"share/{name}" for name in suite.go.files)]
    assert sources == {f"go.{suite.go.name}/{name}" for name in made}


def test_older_minors_do_not_change_the_default() -> None:
    """Its Go components, names of images and locks are the keys of the stages of every lab without a version."""
    assert parse(re.sub(r"^\[minor\..*?(?=^\[)", "", TEXT, flags=re.M | re.S), HERE) == TABLE
    locks = {module.folder for module in TABLE.go.values()}
    assert not [module for module in DIFFERING if locks & {module.folder, *module.folder.parents}]


def test_a_minor_has_its_own_kubernetes_etcd_and_coredns_and_shares_the_rest() -> None:
    versions = kubernetes_versions()
    assert versions == {"1.36": "1.36.3", "1.37": "1.37.2"}
    assert LabSpec("dev").kubernetes_version == list(versions.values())[-1]
    older = components("1.36.3")
    assert older is tables()["1.36"] and older.debian == TABLE.debian
    differing = {name: module.version for name, module in older.go.items() if module != TABLE.go[name]}
    assert differing == {"kubernetes": "1.36.3", "etcd": "3.6.8", "coredns": "1.14.2"}
    assert {module.folder for module in DIFFERING} == {HERE / "go" / "1.36" / name for name in differing}
    names = {image.name for image in older.images} - {image.name for image in TABLE.images}
    programs = ("apiserver", "controller-manager", "proxy", "scheduler")
    assert names == {f"registry.k8s.io/kube-{name}:v1.36.3" for name in programs} | {
        "registry.k8s.io/etcd:3.6.8-0",
        "registry.k8s.io/coredns/coredns:v1.14.2",
    }


def test_a_lab_has_the_patch_of_the_table_and_no_minor_that_is_gone() -> None:
    assert components("1.36.0") is components("1.36.3")
    assert components("1.37.2") is components()
    with pytest.raises(ImageError) as caught:
        components("1.35.6")
    assert caught.value.message == "node images with Kubernetes 1.35.6 can't be built any more; 1.36 and 1.37 can"
    assert "lab:kubernetes.version" in caught.value.remedy


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
        variables = ["example.org/one.Version=v{version}", "example.org/one.Minor={minor}"]
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
    assert table.go["one"].variables == ("example.org/one.Version=v1.2.3", "example.org/one.Minor=2")
    assert table.go["one"].folder == tmp_path / "go" / "shared"
    assert table.images[0].name == "hoplab.local/one:v1.2.3"
    assert table.versions() == {"one": "1.2.3", "debian": "trixie"}
