"""A whole lab, and a fleet of two, of a user who is not root: from a fresh copy of the project to nothing left.

The user is made for the test (``tests/support/unprivileged.py``): no sudo, no other group, unknown to this host. The
node image is the one in the cache of who runs the test; everything else is as on a learner's machine, set-up included.
The lab is made, used and removed every time; its later life and the fleet take ten minutes more, and are on request.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hoplab.core.paths import cache_dir
from hoplab.host.libvirtd import SEARCH, TOOLS
from tests.support import unprivileged
from tests.support.checkouts import copy_project, give, package_settings
from tests.support.unprivileged import HOME, ID, Unprivileged

SPEC = """\
config:
  lab:engine: embedded
  lab:nodes: {workers: 1}
  lab:ingress: {controller: none}
  lab:checkpoint: off
"""
CLI_SPEC = SPEC.replace("  lab:engine: embedded\n", "")
CHECKOUT, IMAGES = HOME / "hoplab", HOME / ".cache/hoplab/image"
PULUMI, PULUMI_BIN = HOME / ".pulumi", Path("/mnt/pulumi")
HOUR = 3600.0

pytestmark = [
    pytest.mark.timeout(0),
    pytest.mark.skipif(bool(unprivileged.lacking()), reason=f"needs {unprivileged.lacking()}"),
    pytest.mark.skipif(not all(shutil.which(tool, path=SEARCH) for tool in TOOLS), reason="needs libvirt"),
]


@dataclass(frozen=True)
class Learner:
    """The user, with a checkout that is set up."""

    user: Unprivileged

    def lab(self, *words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        """Run ``./lab`` in the checkout."""
        print(f"learner$ ./lab {' '.join(words)}", flush=True)
        done = self.user.run("./lab", *words, cwd=CHECKOUT, timeout=HOUR)
        assert done.returncode == expect, f"{words} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def not_theirs(self) -> list[Path]:
        """Return the files of the home that are not the user's, without mounted images and what runs.

        The process id of dnsmasq is in a file of its own user, a subordinate one, while the lab runs.
        """
        lent = [self.user.home / folder.relative_to(HOME) for folder in (IMAGES, PULUMI / "plugins")]
        found = (
            path
            for path in self.user.home.rglob("*")
            if not any(path.is_relative_to(folder) for folder in lent) and path.suffix != ".pid"
        )
        return [path for path in found if path.lstat().st_uid != ID]

    def files(self) -> set[str]:
        """Return what a lab may leave: files of the checkout outside of .venv, and those of its sockets."""
        checkout, run = self.user.home / "hoplab", self.user.home / ".cache/hoplab/run"
        kept = (checkout / ".venv", checkout / ".lab/set-up.log")
        return {
            str(path.relative_to(self.user.home))
            for path in [*checkout.rglob("*"), *run.rglob("*"), *self.user.home.glob(".kube/*")]
            if not any(path.is_relative_to(other) for other in kept) and "__pycache__" not in path.parts
        }


def pulumi_folders() -> dict[Path, Path]:
    """Return the folders of this host's Pulumi CLI and plugins, where the learner finds them; none without a CLI."""
    program = shutil.which("pulumi")
    if not program:
        return {}
    own = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    return {Path(program).resolve().parent: PULUMI_BIN, own / "plugins": PULUMI / "plugins"}


@pytest.fixture(scope="module")
def learner() -> Iterator[Learner]:
    # not pytest's folder, which only its user may enter
    folder = Path("/var/tmp", f"hoplab-rootless-{os.getpid()}")
    home = folder / "home"
    copy_project(home / "hoplab")
    (home / "hoplab/Pulumi.small.yaml").write_text(SPEC)
    (home / "hoplab/Pulumi.cli.yaml").write_text(CLI_SPEC)
    lent = {cache_dir() / "image": IMAGES, **pulumi_folders()}
    for target in lent.values():
        if target.is_relative_to(HOME):
            (home / target.relative_to(HOME)).mkdir(parents=True)
    give(home, ID)
    path = f"{PULUMI_BIN}:/usr/local/bin:{os.defpath}:/usr/sbin:/sbin"
    try:
        with unprivileged.unprivileged(folder, {**package_settings(), "PATH": path}, lent) as user:
            learner = Learner(user)
            learner.lab("version")  # set-up
            yield learner
            user.run("./lab", "destroy", "--lab", "small", cwd=CHECKOUT, timeout=HOUR)
            user.run("./lab", "fleet", "destroy", "small", cwd=CHECKOUT, timeout=HOUR)
            assert unprivileged.processes() == []
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def at_first(learner: Learner) -> set[str]:
    return learner.files()


def test_a_preview_leaves_nothing(learner: Learner, at_first: set[str]) -> None:
    checks = json.loads(learner.lab("doctor", "--json").stdout)["checks"]
    assert {check["name"] for check in checks} >= {"subordinate ids", "user namespaces", "network cards"}
    assert "0 unchanged" in learner.lab("preview", "--lab", "small").stdout
    assert learner.files() == at_first
    assert unprivileged.processes() == []


def test_a_lab_is_made(learner: Learner) -> None:
    learner.lab("up", "--lab", "small")
    assert learner.not_theirs() == []
    status = json.loads(learner.lab("status", "--lab", "small", "--json").stdout)
    assert status["healthy"]
    assert learner.lab("ssh", "--lab", "small", "worker1", "hostname").stdout.strip() == "worker1"
    assert "worker1" in learner.lab("kubectl", "--lab", "small", "get", "nodes").stdout


def test_it_is_reached_from_the_users_own_shell(learner: Learner) -> None:
    """That shell is in no namespace of the lab."""
    by_hand = learner.user.run("ssh", "-F", "inventory/small.ssh_config", "worker1", "hostname", cwd=CHECKOUT)
    assert by_hand.stdout.strip() == "worker1", by_hand.stderr
    uri = learner.lab("uri", "--lab", "small").stdout.strip()
    assert "worker1" in learner.user.run("virsh", "-c", uri, "list", "--name").stdout


@pytest.mark.on_request
def test_it_is_verified_stopped_and_started(learner: Learner) -> None:
    learner.lab("verify", "--lab", "small")
    learner.lab("stop", "--lab", "small")
    learner.lab("start", "--lab", "small")
    assert json.loads(learner.lab("status", "--lab", "small", "--json").stdout)["healthy"]


def test_destroy_leaves_nothing(learner: Learner, at_first: set[str]) -> None:
    removed = learner.lab("destroy", "--lab", "small").stdout
    assert "removed network namespace hoplab-small-" in removed
    assert learner.not_theirs() == []
    assert unprivileged.processes() == []
    assert learner.files() - at_first <= {".kube/config"}


@pytest.mark.on_request
def test_a_fleet(learner: Learner) -> None:
    before = learner.files()
    learner.lab("fleet", "up", "small", "--count", "2")
    learner.lab("fleet", "status", "small")
    learner.lab("fleet", "destroy", "small")
    assert learner.not_theirs() == []
    assert unprivileged.processes() == []
    assert learner.files() == before


@pytest.mark.on_request
@pytest.mark.skipif(not pulumi_folders(), reason="no Pulumi CLI: there is no `pulumi` on PATH")
def test_pulumi_up(learner: Learner) -> None:
    def pulumi(*words: str) -> str:
        return learner.lab("pulumi", "run", "--lab", "cli", *words).stdout

    pulumi("stack", "init", "cli")
    assert " created" in pulumi("up", "--yes", "--non-interactive", "--stack", "cli")
    assert learner.not_theirs() == []
    assert json.loads(learner.lab("status", "--lab", "cli", "--json").stdout)["healthy"]
    assert "unchanged" in pulumi("up", "--yes", "--non-interactive", "--stack", "cli")
    pulumi("destroy", "--yes", "--non-interactive", "--stack", "cli")
    learner.lab("destroy", "--lab", "cli")
    assert learner.not_theirs() == []
    assert unprivileged.processes() == []
