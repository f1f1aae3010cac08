"""The thread that stays behind in the host's network."""

from __future__ import annotations

import threading

import pytest

from hoplab.core import host_network


def test_a_process_that_did_not_move_calls_at_once() -> None:
    assert host_network.run(threading.get_ident) == threading.get_ident()


def test_another_thread_stays_and_calls_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_network, "_behind", [])
    host_network.stay()
    there = host_network.run(threading.get_ident)
    assert there != threading.get_ident()
    assert host_network.run(threading.get_ident) == there

    def fails() -> None:
        raise OSError("the port is taken")

    with pytest.raises(OSError, match="the port is taken"):
        host_network.run(fails)
