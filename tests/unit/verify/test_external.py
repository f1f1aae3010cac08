"""The world outside on another host, by an ssh that runs here."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from hoplab.core.errors import HostError, UnavailableError
from hoplab.core.wait import Timing
from hoplab.spec.libvirt_uri import RemoteHost
from hoplab.verify import external

RACK = RemoteHost("rack7", "ann")
LOOPBACK = IPv4Address("127.0.0.1")


def ssh(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "ssh").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin")


RUN = 'while [ "$1" ]; do case $1 in -W) exec socat - "TCP:$2";; --) shift 2; exec sh -c "$*";; *) shift;; esac; done'


def test_a_server_and_requests_on_another_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh(tmp_path, monkeypatch, RUN)
    with external.serving(LOOPBACK, "", remote=RACK) as outside:
        assert json.loads(outside.get(outside.url("asked"), 20.0) or "")["path"] == "/asked"
        assert outside.client_of("asked") == LOOPBACK
        assert outside.fetch(outside.url("again"), LOOPBACK, 20.0).status == 200
        assert outside.neighbour(LOOPBACK) == ""


def test_a_query_is_asked_for() -> None:
    with external.serving(LOOPBACK, "") as outside:
        assert json.loads(outside.fetch(outside.url("it?version=2"), LOOPBACK, 20.0).body)["path"] == "/it?version=2"
        assert json.loads(outside.get(outside.url("it?version=3"), 20.0) or "")["path"] == "/it?version=3"


def test_what_another_host_was_asked_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of its server may be here before what it says by SSH."""
    asked: dict[str, Any] = {}
    there = external.ExternalHost(LOOPBACK, 80, "", asked, RACK)
    looks = iter(range(3))

    def sleep(_seconds: float) -> None:
        if next(looks) == 2:
            asked["/late"] = LOOPBACK

    monkeypatch.setattr(external, "HOST", Timing(sleep=sleep, slowness=lambda: 1.0))
    assert there.client_of("late") == LOOPBACK
    monkeypatch.setattr(external, "TOLD_S", 0.0)
    assert there.client_of("never") is None


def test_another_host_without_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh(tmp_path, monkeypatch, "echo 'sh: 1: python3: not found' >&2; exit 127")
    with pytest.raises(HostError) as caught, external.serving(LOOPBACK, "", remote=RACK):
        pass
    assert caught.value.message == (
        "can't listen on 127.0.0.1, the host end of the lab network on ann@rack7: sh: 1: python3: not found"
    )
    assert caught.value.remedy == "python3 has to be on ann@rack7, and the lab has to run: ./lab status"


def test_what_only_root_may_do_at_the_host_end_is_not_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh(tmp_path, monkeypatch, "exit 0")
    (tmp_path / "ip").write_text("#!/bin/sh\necho 'Operation not permitted' >&2\nexit 2\n")
    (tmp_path / "ip").chmod(0o755)
    here = external.ExternalHost(LOOPBACK, 80, "", {})
    with pytest.raises(UnavailableError) as caught:
        here.flush_neighbour(LOOPBACK)
    assert caught.value.message == (
        "`ip neigh flush 127.0.0.1` at the host end of the lab network failed: Operation not permitted"
    )
    assert caught.value.remedy.startswith("it needs root: a private libvirt")
    ssh(tmp_path, monkeypatch, "echo 'Operation not permitted' >&2; exit 2")
    with pytest.raises(UnavailableError, match="a command on ann@rack7 failed: Operation not permitted"):
        external.ExternalHost(LOOPBACK, 80, "", {}, RACK).flush_neighbour(LOOPBACK)
