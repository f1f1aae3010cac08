"""What the roles do on a node that has tools for looking into it, and leave on one that has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader  # type: ignore[import-untyped]  # has no types
from ansible.template import Templar, trust_as_template  # type: ignore[import-untyped]

from hoplab.core.paths import PROJECT
from tests.support.roles import defaults, load

TRACING = {"sys-kernel-debug.mount", "sys-kernel-tracing.mount"}
TCG = load(PROJECT / "playbooks/profiles/tcg.yml")


def loop_of(role: str, name: str, **values: Any) -> list[str]:
    """Return what a task of a role loops over, as Ansible reads it."""
    (task,) = [task for task in load(PROJECT / "roles" / role / "tasks/main.yml") if task["name"] == name]
    own = {key: trust_as_template(value) for key, value in task["vars"].items()}
    found: list[str] = Templar(DataLoader(), defaults(role) | own | values).template(trust_as_template(task["loop"]))
    return found


@pytest.mark.parametrize("built", [True, False])
def test_a_node_has_crictl_where_it_was_built(tmp_path: Path, built: bool) -> None:
    if built:
        (tmp_path / "crictl").touch()
    programs = loop_of("container_runtime", "Programs", container_runtime_programs=str(tmp_path))
    assert programs == ["containerd", "containerd-shim-runc-v2", "ctr", *(["crictl"] if built else [])]


@pytest.mark.parametrize("tracer", [True, False])
def test_an_emulated_node_mounts_tracefs_for_who_traces(tracer: bool) -> None:
    masked = TCG["node_base_masked_extra"]
    units = loop_of(
        "node_base",
        "Units that never run",
        node_base_masked_extra=masked,
        node_base_tracer={"stat": {"exists": tracer}},
    )
    assert set(units) == {*defaults("node_base")["node_base_masked"], *masked} - (TRACING if tracer else set())
    assert set(masked) > TRACING, "the profile has no units of these names any more"


def test_crictl_finds_containerd() -> None:
    settings = yaml.safe_load((PROJECT / "roles/container_runtime/templates/crictl.yaml.j2").read_text())
    assert settings["runtime-endpoint"] == settings["image-endpoint"] == "unix:///run/containerd/containerd.sock"
    assert settings["timeout"] >= 30
