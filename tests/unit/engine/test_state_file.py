from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from hoplab.core.errors import StateError
from hoplab.engine.state_file import Journal, Resource


def resource(name: str, *dependencies: str, **fields: object) -> Resource:
    return Resource(urn=name, type="t", name=name, custom=True, dependencies=dependencies, **fields)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lab" / "engine.json"


def test_what_was_put_is_read_back(path: Path) -> None:
    journal = Journal.load(path, "dev-1a2b3c")
    made = resource("a", id="1", inputs={"x": [1]}, secrets=("x",), property_dependencies={"x": ("b",)})
    journal.put(made)
    journal.condemn(resource("old"))
    journal.outputs = {"network": "n"}
    journal.write()
    again = Journal.load(path, "dev-1a2b3c")
    assert again.resources == {"a": made}
    assert [old.name for old in again.condemned] == ["old"]
    assert again.outputs == {"network": "n"}


def test_it_holds_host_keys_so_it_is_its_owners_only(path: Path) -> None:
    Journal.load(path, "dev-1a2b3c").put(resource("a"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_version_before_is_kept(path: Path) -> None:
    journal = Journal.load(path, "dev-1a2b3c")
    journal.put(resource("a"))
    first = path.read_text()
    journal.put(resource("b"))
    assert journal.previous.read_text() == first
    assert journal.previous.name == "engine.json.previous"


def test_nothing_is_written_when_nothing_changed(path: Path) -> None:
    Journal.load(path, "dev-1a2b3c").put(resource("a"))
    before = path.stat().st_ino
    Journal.load(path, "dev-1a2b3c").put(resource("a"))
    assert path.stat().st_ino == before


def test_there_is_a_state_file_at_every_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between any two file operations leaves a whole state file behind."""
    journal = Journal.load(path, "dev-1a2b3c")
    journal.put(resource("a"))
    moments = 0

    def watch(operation: str) -> None:
        original = getattr(os, operation)

        def watched(*args: object, **options: object) -> object:
            nonlocal moments
            moments += 1
            assert json.loads(path.read_text())["format"] == 1
            return original(*args, **options)

        monkeypatch.setattr(os, operation, watched)

    for operation in ("fsync", "link", "replace", "unlink"):
        watch(operation)
    journal.put(resource("b"))
    assert moments >= 5


def test_order_is_by_dependency(path: Path) -> None:
    journal = Journal.load(path, "dev-1a2b3c")
    journal.put(resource("domain", "volume", "network", provider="provider::id"))
    journal.put(resource("volume", "pool", provider="provider::id"))
    for name in ("network", "pool", "provider"):
        journal.put(resource(name))
    order = [item.name for item in journal.ordered()]
    assert sorted(order) == ["domain", "network", "pool", "provider", "volume"]
    assert order.index("pool") < order.index("volume") < order.index("domain")
    assert order.index("network") < order.index("domain")
    assert order.index("provider") < order.index("volume")


def test_delete_leaves_no_file(path: Path) -> None:
    journal = Journal.load(path, "dev-1a2b3c")
    journal.put(resource("a"))
    journal.put(resource("b"))
    journal.delete()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not an intact state file (JSONDecodeError: "),
        ('{"format": 1, "la', "is not an intact state file (JSONDecodeError: "),
        ("[]", "is not an intact state file (TypeError: "),
        ('{"format": 1, "lab": "dev-1a2b3c", "resources": [{"urn": 1}]}', "is not an intact state file (KeyError: "),
        ('{"format": 99}', "has format 99, this version reads format 1"),
        ('{"format": 1, "lab": "other-1a2b3c"}', "belongs to the lab 'other-1a2b3c', not to 'dev-1a2b3c'"),
    ],
)
def test_a_corrupt_or_foreign_file_is_refused_with_the_remedy(path: Path, text: str, why: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(StateError) as caught:
        Journal.load(path, "dev-1a2b3c")
    assert caught.value.message.startswith(f"{path} {why}")
    assert caught.value.remedy == "`lab destroy --lab dev` removes the lab by name"
    previous = path.with_name("engine.json.previous")
    previous.write_text("{}")
    with pytest.raises(StateError) as caught:
        Journal.load(path, "dev-1a2b3c")
    assert caught.value.message.endswith(f"; the version before it is {previous}")
    assert caught.value.remedy.startswith(f"put the previous version in its place (mv {previous} {path})")
    assert path.read_text() == text


def test_a_file_that_is_no_text_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(StateError, match="can't be read"):
        Journal.load(path, "dev-1a2b3c")
