"""Two nodes made of network namespaces, for tests that send real packets."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hoplab.trace.live import run
from tests.support import traced_network
from tests.support.traced_network import TracedNetwork


@pytest.fixture(scope="package")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TracedNetwork]:
    with traced_network.made(tmp_path_factory.mktemp("network")) as network:
        yield network


@pytest.fixture
def network(made: TracedNetwork, monkeypatch: pytest.MonkeyPatch) -> Iterator[TracedNetwork]:
    """Let one test at a time use tracefs, which the kernel has once: one would see the instances of another."""
    made.network.accept()
    monkeypatch.setattr(run, "ANSWER_S", 0.8)
    monkeypatch.setenv("PATH", f"{made.network.folder}:{os.environ['PATH']}:/usr/sbin:/sbin")
    with Path(tempfile.gettempdir(), "hoplab-tracefs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield made
