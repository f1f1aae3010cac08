"""Machines frozen to files and woken again: real ones without a system, where this host has what they need."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import libvirt
import pytest

from hoplab.core.errors import EngineError
from hoplab.core.paths import LabPaths
from hoplab.core.wait import Timing
from hoplab.host import freeze, libvirtd, machines
from hoplab.host.libvirtd import PrivateLibvirt

missing = [tool for tool in libvirtd.TOOLS if shutil.which(tool, path=libvirtd.SEARCH) is None]
needs_libvirt = pytest.mark.skipif(
    os.geteuid() != 0 or bool(missing), reason=f"needs root and {', '.join(missing) or 'nothing else'}"
)
DOMAIN = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><os><type machine='q35'>hvm</type></os>
<devices><serial type='file'><source path='{console}'/></serial></devices></domain>"""


class Notes:
    """A progress that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def phase(self, title: str) -> Any:
        raise AssertionError(title)

    def task(self, text: str) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[PrivateLibvirt]:
    lab = PrivateLibvirt(LabPaths("freeze", tmp_path))
    yield lab
    lab.stop()


def link_where_libvirt_finds(lab: PrivateLibvirt, kept: dict[str, Path]) -> list[Path]:
    """Do what a restore does with the memory of a checkpoint."""
    files = [freeze.saved_memory(lab.paths.libvirt, name) for name in kept]
    files[0].parent.mkdir(parents=True, exist_ok=True)
    for source, file in zip(kept.values(), files, strict=True):
        os.link(source, file)
    return files


@needs_libvirt
def test_saved_machines_resume_at_any_later_start(lab: PrivateLibvirt) -> None:
    """Saved in one libvirtd, resumed in the next from the same folder: what a killed command and a restore rely on."""
    uri = lab.start()
    lab.paths.console.mkdir(parents=True)
    names = ["one", "two"]
    with machines.connected(uri) as connection:
        for name in names:
            connection.defineXML(DOMAIN.format(name=name, console=lab.paths.console / name))
    assert freeze.memory_mib(uri, names) == 64
    assert freeze.run(uri, names) == {"one": "booted", "two": "booted"}
    assert not freeze.interrupted(uri, names)

    freeze.suspend(uri, names)
    assert freeze.interrupted(uri, names)
    assert machines.domain_states(uri) == {"one": "paused", "two": "paused"}
    kept = {name: lab.paths.root / f"{name}.kept" for name in names}
    freeze.save(uri, kept)
    assert machines.domain_states(uri) == {"one": "paused", "two": "paused"}
    assert all(file.stat().st_size > 100_000 for file in kept.values())
    assert freeze.run(uri, names) == {"one": "resumed", "two": "resumed"}  # the machines go on
    with machines.connected(uri) as connection:
        assert [connection.lookupByName(name).snapshotNum() for name in names] == [0, 0]

    lab.stop()
    files = link_where_libvirt_finds(lab, kept)
    content = kept["one"].read_bytes()
    lab.start()
    assert freeze.interrupted(uri, names)
    notes = Notes()
    assert freeze.load_saved(uri, names, notes) == {"one", "two"}
    assert machines.domain_states(uri) == {"one": "paused", "two": "paused"}
    assert freeze.load_saved(uri, names, notes) == set()  # once
    assert freeze.run(uri, names) == {"one": "resumed", "two": "resumed"}
    assert machines.domain_states(uri) == {"one": "running", "two": "running"}
    assert not any(file.exists() for file in files)
    assert kept["one"].read_bytes() == content  # a second name of the file outlives the resume
    assert freeze.run(uri, names) == {"one": "ran", "two": "ran"}
    assert notes.notes == []


@needs_libvirt
def test_a_machine_that_does_not_resume_boots(lab: PrivateLibvirt) -> None:
    uri = lab.start()
    lab.paths.console.mkdir(parents=True)
    with machines.connected(uri) as connection:
        connection.defineXML(DOMAIN.format(name="one", console=lab.paths.console / "one"))
    freeze.run(uri, ["one"])
    freeze.suspend(uri, ["one"])
    kept = lab.paths.root / "one.kept"
    freeze.save(uri, {"one": kept})
    content = bytearray(kept.read_bytes())
    content[len(content) // 2 :] = b"\0" * (len(content) - len(content) // 2)
    kept.write_bytes(content)
    lab.stop()
    (file,) = link_where_libvirt_finds(lab, {"one": kept})
    lab.start()
    notes = Notes()
    assert freeze.load_saved(uri, ["one"], notes) == set()
    assert [note for note in notes.notes if note.startswith("one does not resume, so it boots from its disk: ")]
    assert not file.exists()
    assert freeze.run(uri, ["one"]) == {"one": "booted"}


def test_this_hypervisor() -> None:
    found = freeze.hypervisor("tcg")
    assert found.cpu == "emulated"
    assert found.libvirt.count(".") == 2
    assert freeze.hypervisor("kvm").cpu == freeze.cpu_model(Path("/proc/cpuinfo").read_text())


def test_features_in_another_order_are_the_same_cpu() -> None:
    first = freeze.cpu_model("processor : 0\nmodel name : X\nflags : a b\n\nprocessor : 1\nmodel name : Y\n")
    assert first == freeze.cpu_model("model name\t: X\nflags\t\t: b a\n")
    assert first != freeze.cpu_model("model name : X\nflags : a\n")


class Refusing:
    """A domain whose every action fails, and whose job never ends."""

    def __init__(self, why: str) -> None:
        self.why = why

    def name(self) -> str:
        return "one"

    def _fail(self, *_: object) -> None:
        error = libvirt.libvirtError("")
        error.args = (self.why,)
        raise error

    suspend = snapshotCreateXML = _fail

    def XMLDesc(self) -> str:
        return DOMAIN.format(name="one", console="/console")

    def isActive(self) -> bool:
        return True

    def jobInfo(self) -> list[int]:
        return [libvirt.VIR_DOMAIN_JOB_UNBOUNDED]


@pytest.mark.parametrize(
    ("why", "remedy"), [("No space left on device", "free some space"), ("no such luck", "./lab start lets all")]
)
def test_what_libvirt_refuses_has_a_remedy(monkeypatch: pytest.MonkeyPatch, why: str, remedy: str) -> None:
    @contextmanager
    def connected(_uri: str) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace()

    monkeypatch.setattr(freeze, "connected", connected)
    monkeypatch.setattr(freeze, "lookup", lambda _connection, _name: Refusing(why))
    with pytest.raises(EngineError, match=f"one could not be suspended: .*{why}"):
        freeze.suspend("", ["one"])
    with pytest.raises(EngineError, match=f"one could not be saved: .*{why}") as caught:
        freeze.save("", {"one": Path("/one.save")})
    assert caught.value.remedy.startswith(remedy)


def test_a_save_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 10_000, 50))
    timing = Timing(clock=lambda: next(now), sleep=lambda _s: None, slowness=lambda: 1.0)
    with pytest.raises(EngineError, match="one: libvirtd still saves its memory, after 120 s") as caught:
        freeze._wait_for_job(Refusing(""), timing)
    assert "./lab stop" in caught.value.remedy
