"""Logins to a lab that has another's keys, refused and allowed in a real namespace."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hoplab.core.errors import HostError
from hoplab.host import door, netns

SEARCH = "/usr/sbin:/sbin:/usr/bin:/bin"
needs_tools = pytest.mark.skipif(
    os.geteuid() != 0 or not all(shutil.which(tool, path=SEARCH) for tool in ("ip", "iptables")),
    reason="needs root, ip and iptables",
)


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[str]:
    name = f"hoplab-door-{os.getpid()}"
    netns.create(name)
    yield name
    netns.delete(name)


def reached(namespace: str, port: int) -> bool:
    """Whether a connection to a server in the namespace is accepted."""
    with netns.entered(namespace), socket.create_server(("127.0.0.1", port)) as server:
        accepting = threading.Thread(target=_accept, args=(server,))
        accepting.start()
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return True
        except ConnectionRefusedError:
            server.shutdown(socket.SHUT_RDWR)
            return False
        finally:
            accepting.join(5)


def _accept(server: socket.socket) -> None:
    try:
        server.accept()[0].close()
    except OSError:
        return


@needs_tools
def test_the_door_is_for_logins_alone(namespace: str) -> None:
    assert reached(namespace, 22)
    door.close(namespace)
    door.close(namespace)  # a second time after a kill
    assert not reached(namespace, 22)
    assert reached(namespace, 6443)
    door.open(namespace)
    assert reached(namespace, 22)
    door.open(namespace)


@needs_tools
def test_a_door_that_can_not_be_closed(namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "iptables"
    tool.write_text("#!/bin/sh\necho 'Permission denied (you must be root)' >&2; exit 4\n")
    tool.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: str(tool))
    with pytest.raises(HostError, match="new keys can't be refused: Permission denied") as refused:
        door.close(namespace)
    assert "./lab doctor" in refused.value.remedy


def test_no_iptables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(HostError, match="the command `iptables` is missing"):
        door.close("")
