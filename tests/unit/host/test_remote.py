"""Connections through SSH to another host, by an ssh that connects here."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hoplab.core.errors import HostError
from hoplab.host import remote
from hoplab.host.boot import SshBanner
from hoplab.spec.libvirt_uri import RemoteHost

RACK = RemoteHost("rack7", "ann")


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ssh whose -W connects on this host, and that else runs sh."""
    (tmp_path / "ssh").write_text(
        '#!/bin/sh\nwhile [ "$1" ]; do case $1 in -W) exec socat - "TCP:$2";; -T) exec sh;; *) shift;; esac; done\n'
    )
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")


@pytest.mark.usefixtures("ssh")
def test_a_connection_through_the_other_host() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with remote.connection("127.0.0.1", port, 10.0, RACK) as ours:
            there, _ = server.accept()
            with there:
                ours.sendall(b"ping")
                assert there.recv(4) == b"ping"
                there.sendall(b"pong")
                assert ours.recv(4) == b"pong"


@pytest.mark.usefixtures("ssh")
def test_a_banner_through_the_other_host() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        banner = SshBanner("127.0.0.1", server.getsockname()[1], remote=RACK)
        assert not banner.sent(timeout_s=0.05)
        there, _ = server.accept()
        with there:
            there.sendall(b"SSH-2.0-x\r\n")
            assert banner.sent(timeout_s=10.0)
        banner.close()


@pytest.mark.usefixtures("ssh")
def test_a_refused_connection_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with remote.connection("127.0.0.1", port, 10.0, RACK) as ours:
        assert ours.recv(1) == b""


@pytest.mark.usefixtures("ssh")
def test_commands_on_the_other_host() -> None:
    assert remote.run(RACK, "echo there") == "there\n"
    with pytest.raises(HostError) as caught:
        remote.run(RACK, "echo 'ip: Operation not permitted' >&2; exit 2")
    assert caught.value.message == "a command on ann@rack7 failed: ip: Operation not permitted"
    with pytest.raises(HostError, match="ann@rack7 does not answer within 0 s"):
        remote.run(RACK, "exec sleep 60", timeout_s=0.2)


def test_the_proxy_command_of_an_ssh_config() -> None:
    way = RemoteHost("rack7", "ann", 2222, "/my keys/100%")
    assert remote.proxy_command(way) == ("ssh -o BatchMode=yes -p 2222 -l ann -i '/my keys/100%%' -W [%h]:%p -- rack7")
