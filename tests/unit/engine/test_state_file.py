from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from hoplab.core.errors import StateError
from hoplab.engine.state_file import Resource, StateFile


def resource(name: str, *dependencies: str, **fields: object) -> Resource:
    return Resource(urn=name, type="t", name=name, custom=True, dependencies=dependencies, **fields)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lab" / "engine.json"


def test_state_file_reads_back_what_was_put(path: Path) -> None:
    state = StateFile.load(path, "dev-1a2b3c")
    made = resource("a", id="1", inputs={"x": [1]}, secrets=("x",), property_dependencies={"x": ("b",)})
    state.put(made)
    state.mark_for_delete(resource("old"))
    state.outputs = {"network": "n"}
    state.write()
    again = StateFile.load(path, "dev-1a2b3c")
    assert again.resources == {"a": made}
    assert [old.name for old in again.pending_delete] == ["old"]
    assert again.outputs == {"network": "n"}


def test_file_holds_host_keys_and_is_its_owners_only(path: Path) -> None:
    StateFile.load(path, "dev-1a2b3c").put(resource("a"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_previous_version_is_kept(path: Path) -> None:
    state = StateFile.load(path, "dev-1a2b3c")
    state.put(resource("a"))
    first = path.read_text()
    state.put(resource("b"))
    assert state.previous.read_text() == first
    assert state.previous.name == "engine.json.previous"


def test_file_is_not_written_when_nothing_changed(path: Path) -> None:
    StateFile.load(path, "dev-1a2b3c").put(resource("a"))
    before = path.stat().st_ino
    StateFile.load(path, "dev-1a2b3c").put(resource("a"))
    assert path.stat().st_ino == before


def test_file_is_whole_at_every_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between any two file operations leaves a whole state file behind."""
    state = StateFile.load(path, "dev-1a2b3c")
    state.put(resource("a"))
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
    state.put(resource("b"))
    assert moments >= 5


def test_ordered_puts_dependencies_first(path: Path) -> None:
    state = StateFile.load(path, "dev-1a2b3c")
    state.put(resource("domain", "volume", "network", provider="provider::id"))
    state.put(resource("volume", "pool", provider="provider::id"))
    for name in ("network", "pool", "provider"):
        state.put(resource(name))
    order = [item.name for item in state.ordered()]
    assert sorted(order) == ["domain", "network", "pool", "provider", "volume"]
    assert order.index("pool") < order.index("volume") < order.index("domain")
    assert order.index("network") < order.index("domain")
    assert order.index("provider") < order.index("volume")


def test_delete_leaves_no_file(path: Path) -> None:
    state = StateFile.load(path, "dev-1a2b3c")
    state.put(resource("a"))
    state.put(resource("b"))
    state.delete()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not an intact state file (JSONDecodeError: "),
        ('{"format": 1, "la', "is not an intact state file (JSONDecodeError: "),
        ("[]", "is not an intact state file (TypeError: "),
        ('{"format": 1, "lab": "dev-1a2b3c", "resources": [{"urn": 1}]}', "is not an intact state file (ValueError: "),
        ('{"format": 99}', "has format 99, this version reads format 1"),
        ('{"format": 1, "lab": "other-1a2b3c"}', "belongs to the lab 'other-1a2b3c', not to 'dev-1a2b3c'"),
    ],
)
def test_corrupt_or_foreign_file_is_refused_with_the_remedy(path: Path, text: str, why: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(StateError) as caught:
        StateFile.load(path, "dev-1a2b3c")
    assert caught.value.message.startswith(f"{path} {why}")
    assert caught.value.remedy == "`lab destroy --lab dev` removes the lab by name"
    previous = path.with_name("engine.json.previous")
    previous.write_text("{}")
    with pytest.raises(StateError) as caught:
        StateFile.load(path, "dev-1a2b3c")
    assert caught.value.message.endswith(f"; the version before it is {previous}")
    assert caught.value.remedy.startswith(f"put the previous version in its place (mv {previous} {path})")
    assert path.read_text() == text


def test_file_that_is_no_text_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(StateError, match="can't be read"):
        StateFile.load(path, "dev-1a2b3c")


# As the version before wrote it: a resource with everything, a component, one that waits to be deleted
OLDER = """{
 "format": 1,
 "lab": "dev-1a2b3c",
 "resources": [
  {
   "urn": "a",
   "type": "libvirt:index/domain:Domain",
   "name": "worker1",
   "custom": true,
   "parent": "lab",
   "provider": "provider::id",
   "id": "7",
   "pending": false,
   "inputs": {
    "memory": 2048,
    "ratio": 1.5,
    "disks": [
     {
      "volumeId": null
     }
    ]
   },
   "outputs": {
    "xml": "<domain/>"
   },
   "secrets": [
    "userData"
   ],
   "dependencies": [
    "lab"
   ],
   "property_dependencies": {
    "disks": [
     "volume"
    ]
   },
   "protect": false
  }
 ],
 "condemned": [
  {
   "urn": "old",
   "type": "t",
   "name": "old",
   "custom": true,
   "parent": "",
   "provider": "",
   "id": "",
   "pending": true,
   "inputs": {},
   "outputs": {},
   "secrets": [],
   "dependencies": [],
   "property_dependencies": {},
   "protect": true
  }
 ],
 "outputs": {
  "nodes": [
   "worker1"
  ]
 }
}
"""


def test_file_of_an_older_version_is_read_and_written_as_it_was(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(OLDER)
    state = StateFile.load(path, "dev-1a2b3c")
    assert state.resources["a"].property_dependencies == {"disks": ("volume",)}
    assert state.pending_delete[0].protect
    state.put(resource("b"))
    state.remove(state.resources["b"])
    assert path.read_text() == OLDER


def test_file_with_an_unknown_field_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(OLDER.replace('"pending": true', '"waiting": true'))
    with pytest.raises(StateError, match=r"\(ValueError: condemned\.0\.waiting: "):
        StateFile.load(path, "dev-1a2b3c")
