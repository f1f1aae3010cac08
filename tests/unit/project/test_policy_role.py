"""The role policy_kube_network_policies: its manifest, and what it does on a node, run in a namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible.plugins.filter.core import FilterModule  # type: ignore[import-untyped]  # has no types

from hoplab.core.paths import PROJECT
from hoplab.expectations.policy import kube_network_policies as expected
from tests.support.roles import defaults, load, render

ROLE = "policy_kube_network_policies"
FOLDER = PROJECT / "roles" / ROLE
GIVEN = defaults(ROLE) | {f"{ROLE}_api_address": "192.168.77.1", f"{ROLE}_kubeconfig": "/k"}
ARCHIVE = "/cache/stages/containers-policy_kube_network_policies-0123/images.tar"


def manifest(**values: Any) -> list[dict[str, Any]]:
    text = render(f"roles/{ROLE}/templates/kube-network-policies.yml.j2", **GIVEN | values)
    return [document for document in yaml.safe_load_all(text) if document]


def test_the_program_reads_the_queue_that_lessons_expect() -> None:
    (daemon,) = [found for found in manifest() if found["kind"] == "DaemonSet"]
    assert daemon["metadata"]["name"] in expected.PART.daemons
    pod = daemon["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["hostNetwork"] and pod["priorityClassName"] == "system-node-critical"
    assert f"--nfqueue-id={expected.QUEUE}" in container["args"]
    assert "--netfilter-bug-1766-fix=false" in container["args"]  # else there is a second chain
    assert {"name": "KUBERNETES_SERVICE_HOST", "value": "192.168.77.1"} in container["env"]
    assert container["imagePullPolicy"] == "Never"
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}


def test_what_shows_that_it_was_here_is_removed_last() -> None:
    role = next(found for found in manifest() if found["kind"] == "ClusterRole")
    assert role["metadata"]["labels"] == {"hoplab.local/policy": expected.PART.name}
    assert role["metadata"]["name"] == expected.PART.name  # playbooks/tasks/policy.yml takes it for the part's
    (removal,) = load(FOLDER / "tasks/remove.yml")
    kinds = [item["kind"] for item in removal["loop"]]
    assert kinds[0] == "DaemonSet" and kinds[-1] == "ClusterRole"
    assert sorted(kinds) == sorted(found["kind"] for found in manifest())


def block(play: dict[str, Any]) -> list[dict[str, Any]]:
    (found,) = [task["block"] for task in play["tasks"] if "block" in task]
    return found  # type: ignore[no-any-return]


def test_nodes_get_the_image_before_they_join_and_lose_the_table_after_the_program() -> None:
    control_plane, workers = load(PROJECT / "playbooks/site.yml")
    names = [task["name"] for task in block(workers)]
    assert names.index("Bring what enforces policies, or remove it") < names.index("Join")
    names = [task["name"] for task in block(control_plane)]
    assert names.index("Enforce policies, or not any more") < names.index("Record what was applied")


def script(tasks: str, tmp_path: Path) -> str:
    """The command of a node's tasks, with files below the folder of the test."""
    (task,) = [found for found in load(FOLDER / "tasks" / tasks) if "ansible.builtin.raw" in found]
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    environment.filters.update(FilterModule().filters())
    given = {**GIVEN, f"{ROLE}_archive": ARCHIVE, f"{ROLE}_marker": str(tmp_path / "etc/policy")}
    text: str = environment.from_string(task["ansible.builtin.raw"]).render(given)
    return text.replace("/var/tmp/policy.tar", str(tmp_path / "policy.tar"))


@pytest.fixture
def ctr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `ctr` that writes down what it is asked, and fails where a file says so."""
    (tmp_path / "bin").mkdir()
    said = tmp_path / "ctr.log"
    program = tmp_path / "bin/ctr"
    program.write_text(f'#!/bin/sh\necho "$*" >> {said}\ntest "$1" = version || test ! -e {tmp_path}/fails\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return said


def test_an_import_leaves_a_marker_when_it_is_done(tmp_path: Path, ctr: Path) -> None:
    (tmp_path / "policy.tar").touch()
    (tmp_path / "fails").touch()
    marker = tmp_path / "etc/policy"
    command = ["sh", "-c", script("node.yml", tmp_path)]
    assert subprocess.run(command, check=False).returncode != 0
    assert marker.read_text() == "unfinished\n"
    (tmp_path / "fails").unlink()
    subprocess.run(command, check=True)
    assert marker.read_text() == "containers-policy_kube_network_policies-0123\n"
    assert not (tmp_path / "policy.tar").exists()
    assert ctr.read_text().splitlines()[-1].startswith("-n k8s.io images import ")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="needs root and nft")
def test_a_removal_takes_its_table_and_no_other(tmp_path: Path, ctr: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/policy").write_text("containers-policy_kube_network_policies-0123\n")
    tables = f"nft add table {expected.FAMILY} {expected.TABLE}; nft add table ip kube-proxy"
    removal = script("node_remove.yml", tmp_path)
    # twice: the second time there is nothing, as on a node that never had a policy
    inside = f"{tables} && ( {removal} ) && ( {removal} ) && nft list tables"
    seen = subprocess.run(["unshare", "--net", "sh", "-c", inside], check=True, capture_output=True, text=True)
    assert seen.stdout == "table ip kube-proxy\n"
    assert list((tmp_path / "etc").iterdir()) == []
    assert ctr.read_text().splitlines()[0] == f"-n k8s.io images rm {GIVEN[f'{ROLE}_image']}"
