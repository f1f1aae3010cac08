from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from hoplab.core.errors import StateError
from hoplab.core.paths import LabPaths
from hoplab.pki.keys import ensure_keys


@pytest.fixture
def paths(tmp_path: Path) -> LabPaths:
    return LabPaths("dev", tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_private_files_are_only_their_owners(paths: LabPaths) -> None:
    keys = ensure_keys(paths, ["worker1"])
    assert mode(keys.user_private) == 0o600
    assert mode(paths.keys / "host" / "worker1") == 0o600
    assert mode(paths.keys) == mode(paths.keys / "host") == 0o700


def test_keys_are_made_once_and_kept(paths: LabPaths) -> None:
    first = ensure_keys(paths, ["worker1", "worker2"])
    before = {path: path.stat().st_mtime_ns for path in paths.keys.rglob("*") if path.is_file()}
    assert ensure_keys(paths, ["worker1", "worker2"]) == first
    assert {path: path.stat().st_mtime_ns for path in paths.keys.rglob("*") if path.is_file()} == before


def test_another_node_gets_a_key_and_the_others_keep_theirs(paths: LabPaths) -> None:
    first = ensure_keys(paths, ["worker1"])
    second = ensure_keys(paths, ["worker1", "worker2"])
    assert second.user_public == first.user_public
    assert second.host["worker1"] == first.host["worker1"]
    assert second.host["worker2"] != first.host["worker1"]


def test_known_hosts_has_a_line_for_each_node_by_name(paths: LabPaths) -> None:
    keys = ensure_keys(paths, ["worker1", "worker2"])
    kind, blob, comment = keys.host["worker1"].public.split()
    assert (kind, comment) == ("ssh-ed25519", "worker1")
    assert keys.known_hosts.read_text().splitlines()[0] == f"worker1 {kind} {blob}"
    ensure_keys(paths, ["worker2"])
    assert [line.split()[0] for line in keys.known_hosts.read_text().splitlines()] == ["worker2"]


def test_openssh_reads_what_we_write(paths: LabPaths) -> None:
    keys = ensure_keys(paths, [])
    derived = subprocess.run(["ssh-keygen", "-y", "-f", keys.user_private], capture_output=True, text=True, check=True)
    assert derived.stdout.split()[:2] == keys.user_public.split()[:2]


def test_a_lost_public_half_is_made_again(paths: LabPaths) -> None:
    first = ensure_keys(paths, ["worker1"])
    (paths.keys / "id_ed25519.pub").unlink()
    assert ensure_keys(paths, ["worker1"]) == first
    assert (paths.keys / "id_ed25519.pub").read_text().strip() == first.user_public


def test_a_broken_key_is_named(paths: LabPaths) -> None:
    ensure_keys(paths, ["worker1"])
    broken = paths.keys / "host" / "worker1"
    broken.write_text("not a key")
    with pytest.raises(StateError) as caught:
        ensure_keys(paths, ["worker1"])
    assert caught.value.message.startswith(f"{broken} can't be read as an SSH private key")
    assert caught.value.remedy == "remove it, then make the lab again: `lab destroy` and `lab up`"
