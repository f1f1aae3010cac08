"""Stamps of machines: when a converge needs no Ansible, and every reason why it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hoplab.cluster import converge as module
from hoplab.cluster import stamps
from hoplab.cluster.control_plane import HostedControlPlane
from hoplab.cluster.converge import ConvergeResult, converge
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.host import agent
from hoplab.host.agent import AgentError, Done
from tests.support.labs import PLAN
from tests.support.progress import RecordingProgress

NODES = [node.name for node in PLAN.nodes]
URI = "test:///default"
INPUTS = "0123"


@dataclass
class Answer:
    """The agent of one machine; a stamp of None means that it does not answer."""

    stamp: str | None

    def run(self, script: str, given: str = "", limit_s: float = 60.0) -> Done:
        assert script == f"cat {stamps.STAMP_FILE}"
        if self.stamp is None:
            raise AgentError("the guest agent does not answer")
        return Done(0 if self.stamp else 1, f"{self.stamp}\n", "")


class Lab:
    """A lab whose last converge left its stamps, and what is changed about it since."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths = LabPaths("dev", folder)
        self.stamps: dict[str, str | None] = dict.fromkeys(NODES, "89ab-ca")
        self.inputs = INPUTS
        self.played = 0
        self.started = 0
        monkeypatch.setattr(agent, "opened", self.opened)
        monkeypatch.setattr(stamps, "inputs_digest", lambda _paths, nodes=True: self.inputs if nodes else "89ab")
        monkeypatch.setattr(module, "inputs_digest", lambda _paths, nodes=True: self.inputs if nodes else "89ab")
        monkeypatch.setattr(module, "play", self.play)
        monkeypatch.setattr(HostedControlPlane, "start", self.start)
        self.paths.control_plane.mkdir(parents=True)
        (self.paths.control_plane / "applied").write_text(f"{INPUTS}\n")

    @contextmanager
    def opened(self, uri: str, name: str) -> Iterator[Answer]:
        assert uri == URI
        yield Answer(self.stamps[name.removeprefix(f"hoplab-{self.paths.id}-")])

    def play(self, *_given: object, **_more: object) -> ConvergeResult:
        self.played += 1
        return ConvergeResult(changed=3, tasks=9, seconds=1.0)

    def start(self) -> None:
        self.started += 1

    def record(self) -> None:
        with stamps.recorded(self.paths, URI, NODES):
            pass

    def converge(self, **options: object) -> ConvergeResult:
        return converge(PLAN, self.paths, "", RecordingProgress(), **{"uri": URI, **options})  # type: ignore[arg-type]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab(tmp_path, monkeypatch)
    lab.record()
    return lab


def test_with_every_stamp_in_place_ansible_does_not_start(lab: Lab) -> None:
    result = lab.converge()
    assert (result.changed, result.tasks, lab.played) == (0, 0, 0)
    assert lab.started == 1  # the host may have been rebooted since


@pytest.mark.parametrize(
    "stamp", ["other-ca", "", None], ids=["another stamp", "none, as after a reset", "no agent answers"]
)
def test_a_machine_without_its_stamp_is_looked_at_by_ansible(stamp: str | None, lab: Lab) -> None:
    lab.stamps[NODES[-1]] = stamp
    assert lab.converge().tasks == 9


def test_other_inputs_are_applied_by_ansible(lab: Lab) -> None:
    lab.inputs = "4567"
    assert lab.converge().tasks == 9


def test_a_control_plane_that_is_not_complete_is_made_by_ansible(lab: Lab) -> None:
    (lab.paths.control_plane / "applied").unlink()
    assert lab.converge().tasks == 9 and lab.started == 0


@pytest.mark.parametrize("options", [{"full": True}, {"only": NODES[0]}, {"uri": ""}], ids=str)
def test_what_was_asked_for_is_done_by_ansible(options: dict[str, object], lab: Lab) -> None:
    assert lab.converge(**options).tasks == 9


def test_another_number_of_nodes_is_not_what_was_recorded(lab: Lab) -> None:
    with stamps.recorded(lab.paths, URI, NODES[:1]):
        pass
    assert lab.converge().tasks == 9


@pytest.mark.parametrize("text", ["", "{", "[]", '{"inputs": 1}', '{"inputs": [], "stamps": 7}'])
def test_a_damaged_record_is_none(text: str, lab: Lab) -> None:
    lab.paths.stamps.write_text(text)
    assert lab.converge().tasks == 9


@pytest.mark.parametrize("stamp", ["", None], ids=["no stamp", "no agent"])
def test_nothing_is_recorded_without_every_stamp(stamp: str | None, lab: Lab) -> None:
    lab.stamps[NODES[0]] = stamp
    lab.record()
    assert not lab.paths.stamps.exists()


def test_nothing_is_recorded_of_a_lab_that_did_not_become_usable(lab: Lab) -> None:
    with pytest.raises(RuntimeError), stamps.recorded(lab.paths, URI, NODES):
        raise RuntimeError("not usable")
    assert not lab.paths.stamps.exists()


def test_the_stamp_is_where_the_roles_write_it() -> None:
    variables = PROJECT / "inventory/group_vars/all.yml"
    assert f"'{stamps.STAMP_FILE}' }}}}" in variables.read_text()
