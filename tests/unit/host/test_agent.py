"""The guest agent: what is sent to it through libvirt, and what its answers mean."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from hoplab.core.wait import Timing
from hoplab.host import agent
from hoplab.host.agent import Agent, AgentError, Done

INSTANT = Timing(slowness=lambda: 1.0)


class Domain:
    """A machine whose agent answers from a list."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    def name(self) -> str:
        return "hoplab-dev-worker1"

    def agent(self) -> Agent:
        return Agent(self, INSTANT)


@pytest.fixture(autouse=True)
def _agents(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(domain: Domain, document: str, _timeout: int, _flags: int) -> str:
        domain.asked.append(json.loads(document))
        answer = domain.answers.pop(0)
        if isinstance(answer, libvirt.libvirtError):
            raise answer
        return json.dumps({"return": answer})

    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", command)


def text(told: str) -> str:
    return b64encode(told.encode()).decode()


def test_a_clock_is_read() -> None:
    assert Domain(1_795_902_780_250_000_000).agent().clock() == pytest.approx(1_795_902_780.25, abs=1e-4)


def test_a_script_runs_with_its_input_until_it_has_ended() -> None:
    ended = {"exited": True, "exitcode": 3, "out-data": text("done\n"), "err-data": text("slowly\n")}
    domain = Domain({"pid": 7}, {"exited": False}, ended)
    assert domain.agent().run("read -r x", "one two\n") == Done(3, "done\n", "slowly\n")
    begun, *looks = domain.asked
    assert (begun["execute"], begun["arguments"]["arg"]) == ("guest-exec", ["-c", "read -r x"])
    assert b64decode(begun["arguments"]["input-data"]) == b"one two\n"
    assert looks == [{"execute": "guest-exec-status", "arguments": {"pid": 7}}] * 2


def test_a_script_that_a_signal_ends() -> None:
    assert Domain({"pid": 7}, {"exited": True, "signal": 9}).agent().run("x") == Done(-1, "", "")


def test_a_script_that_does_not_end() -> None:
    domain = Domain({"pid": 7}, *[{"exited": False}] * 1000)
    with pytest.raises(AgentError, match="of hoplab-dev-worker1 does not answer: a command has not ended after 0 s"):
        domain.agent().run("sleep", limit_s=0.1)


def test_no_agent_runs() -> None:
    domain = Domain(libvirt.libvirtError("QEMU guest agent is not connected"))
    with pytest.raises(AgentError, match="agent of hoplab-dev-worker1 does not answer: QEMU guest agent is not conn"):
        domain.agent().clock()


def test_no_libvirt_answers() -> None:
    with (
        pytest.raises(AgentError, match="the guest agent of hoplab-dev-worker1 can't be reached: "),
        agent.opened("qemu+unix:///system?socket=/nowhere/libvirt-sock", "hoplab-dev-worker1"),
    ):
        pass


def test_no_machine_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Empty:
        def lookupByName(self, _name: str) -> None:
            raise libvirt.libvirtError("no domain")

    @contextmanager
    def connected(_uri: str) -> Iterator[Empty]:
        yield Empty()

    monkeypatch.setattr(agent, "connected", connected)
    with pytest.raises(AgentError, match="can't be reached: libvirt has no machine x"), agent.opened("", "x"):
        pass
