"""What unit tests share: golden files, and a time limit that keeps hypothesis from failing on a busy machine."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.files import GOLDEN

settings.register_profile("unit", deadline=None, database=None, derandomize=True)
settings.load_profile("unit")


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """``golden("name.txt", text)`` compares with tests/support/golden/name.txt; UPDATE_GOLDEN=1 writes it instead."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.write_text(text)
        assert text == path.read_text(), f"{path} differs; if that is intended: UPDATE_GOLDEN=1 ./lab test --fast"

    return compare


@pytest.fixture(autouse=True, scope="session")
def debian() -> Iterator[None]:
    """Remedies are those of Debian, on every distribution that the tests run on."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "debian"})
        yield


@pytest.fixture(autouse=True, scope="session")
def users_kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test changes the kubeconfig of whoever runs the tests."""
    file = tmp_path_factory.mktemp("home") / "kubeconfig"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("KUBECONFIG", str(file))
        yield file


@pytest.fixture(autouse=True, scope="session")
def ctrl_c() -> Iterator[None]:
    """SIGINT interrupts, also where the tests were started in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
