"""What tests of the engine share: the test driver of libvirt in place of a hypervisor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from hoplab.engine import libvirt_objects
from hoplab.engine import libvirt_xml as xml
from tests.support.embedded_lab import URI, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    original = xml.domain

    def test_domain(inputs: Any, **options: Any) -> str:
        return original({**inputs, "type": "test"}, **options)

    def filled(_self: object, pool: Any, name: str, source: Path, format: str, _progress: object) -> Any:
        return pool.createXML(xml.volume(name, capacity=source.stat().st_size, format=format))

    def no_iso(folder: Path, _inputs: object) -> Path:
        (folder / "seed.iso").write_text("seed")
        return folder / "seed.iso"

    monkeypatch.setattr(xml, "domain", test_domain)
    monkeypatch.setattr(libvirt_objects.Volumes, "_upload", filled)
    monkeypatch.setattr(libvirt_objects, "make_iso", no_iso)
    monkeypatch.setattr("os.fsync", lambda _: None)
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    connection = libvirt.open(URI)  # the same libvirt for everyone as long as one connection is open
    yield World(tmp_path, connection)
    connection.close()
