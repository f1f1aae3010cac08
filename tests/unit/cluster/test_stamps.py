"""Stamps of machines: when a converge needs no Ansible, and every reason why it does."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import new as hashlib_new
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment, StrictUndefined

from hoplab.cluster import converge as module
from hoplab.cluster import stamps
from hoplab.cluster.control_plane import HostedControlPlane
from hoplab.cluster.converge import ConvergeResult, converge
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.host import agent
from hoplab.host.agent import AgentError, Done
from hoplab.lab.spec_file import plan_lab
from hoplab.spec.model import LabSpec
from hoplab.spec.plan import LabPlan
from tests.support.labs import PLAN
from tests.support.progress import RecordingProgress

NODES = [node.name for node in PLAN.nodes]
WITH_A_MACHINE = plan_lab(LabSpec("dev", control_plane_placement="vm"), lab_id="dev-0", accel="kvm")
URI = "test:///default"
INPUTS, OF_WORKER = "0123", "89ab"
AUTHORITY = "a certificate in PEM\n"
KUBECONFIG = {"clusters": [{"cluster": {"certificate-authority-data": b64encode(AUTHORITY.encode()).decode()}}]}
STAMP = f"{OF_WORKER}-{sha256(AUTHORITY.encode()).hexdigest()[:16]}"


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
        self.stamps: dict[str, str | None] = dict.fromkeys(NODES, STAMP)
        self.of_worker = OF_WORKER
        self.played = 0
        self.started = 0
        monkeypatch.setattr(agent, "opened", self.opened)
        monkeypatch.setattr(module, "inputs_digests", lambda *_: (INPUTS, self.of_worker))
        monkeypatch.setattr(module, "play", self.play)
        monkeypatch.setattr(HostedControlPlane, "start", self.start)
        self.paths.control_plane.mkdir(parents=True)
        (self.paths.control_plane / "applied").write_text(f"{INPUTS}\n")
        self.paths.kubeconfig.write_text(yaml.safe_dump(KUBECONFIG))

    @contextmanager
    def opened(self, uri: str, name: str) -> Iterator[Answer]:
        assert uri == URI
        yield Answer(self.stamps[name.removeprefix(f"hoplab-{self.paths.id}-")])

    def play(self, *_given: object, **_more: object) -> ConvergeResult:
        self.played += 1
        return ConvergeResult(changed=3, tasks=9, seconds=1.0)

    def start(self) -> None:
        self.started += 1

    def converge(self, **options: object) -> ConvergeResult:
        return converge(PLAN, self.paths, "", RecordingProgress(), **{"uri": URI, **options})  # type: ignore[arg-type]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


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
    lab.of_worker = "4567"
    assert lab.converge().tasks == 9


def test_a_control_plane_that_is_not_complete_is_made_by_ansible(lab: Lab) -> None:
    (lab.paths.control_plane / "applied").unlink()
    assert lab.converge().tasks == 9 and lab.started == 0


@pytest.mark.parametrize("options", [{"full": True}, {"only": NODES[0]}, {"uri": ""}], ids=str)
def test_what_was_asked_for_is_done_by_ansible(options: dict[str, object], lab: Lab) -> None:
    assert lab.converge(**options).tasks == 9


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "clusters: []", "clusters: [{cluster: {certificate-authority-data: 7}}]"]
)
def test_a_cluster_that_is_not_known_is_looked_at_by_ansible(text: str, lab: Lab) -> None:
    lab.paths.kubeconfig.write_text(text)
    assert lab.converge().tasks == 9
    lab.paths.kubeconfig.unlink()
    assert lab.converge().tasks == 9


@pytest.mark.parametrize("plan", [PLAN, WITH_A_MACHINE], ids=["hosted", "in a machine"])
def test_the_stamps_are_those_of_the_playbook(plan: LabPlan, lab: Lab) -> None:
    """The variables that playbooks/site.yml writes stamps by give the same for each machine."""
    text = (PROJECT / "inventory/group_vars/all.yml").read_text()
    variables = yaml.safe_load(text)
    jinja = Environment(undefined=StrictUndefined)
    jinja.filters |= {
        "from_yaml": yaml.safe_load,
        "b64decode": lambda data: b64decode(data).decode(),
        "hash": lambda data, kind: hashlib_new(kind, data.encode()).hexdigest(),
    }
    known: dict[str, Any] = {
        "lookup": lambda _kind, file: Path(file).read_text(),
        "lab": {"kubeconfig": str(lab.paths.kubeconfig)},
        "groups": {"control_plane": [node.name for node in plan.nodes if node.role == "control-plane"]},
        "inputs": INPUTS,
        "worker_inputs": OF_WORKER,
    }

    def of(node: str) -> str:
        here = {**known, "inventory_hostname": node}
        for name in ("cluster_ca", "given", "stamp"):
            here[name] = jinja.from_string(variables[name]).render(here).strip()
        return str(here["stamp"])

    assert stamps.expected(plan, lab.paths, (INPUTS, OF_WORKER)) == {node.name: of(node.name) for node in plan.nodes}


def test_the_stamp_is_where_the_roles_write_it() -> None:
    variables = PROJECT / "inventory/group_vars/all.yml"
    assert f"'{stamps.STAMP_FILE}' }}}}" in variables.read_text()
