"""The keys of a lab: one key pair for the user who logs in, one host key per machine, made once and kept.

    <lab>/keys/id_ed25519, id_ed25519.pub         logs in as user "lab" on every machine
    <lab>/keys/host/<node>, <node>.pub            injected into the machine before its first boot
    <lab>/keys/known_hosts                        one line a machine, by its name (ssh_config: HostKeyAlias <node>)

ed25519 only: an RSA handshake takes seconds on an emulated machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from hoplab.core import fs
from hoplab.core.errors import StateError
from hoplab.core.paths import LabPaths


@dataclass(frozen=True)
class HostKey:
    """A machine's SSH host key, in OpenSSH's formats."""

    private: str
    public: str


@dataclass(frozen=True)
class LabKeys:
    """Every key of a lab."""

    user_private: Path
    user_public: str
    host: dict[str, HostKey]
    known_hosts: Path


def ensure_keys(paths: LabPaths, nodes: Iterable[str]) -> LabKeys:
    """Return the keys of a lab with these machines. Missing keys are made, existing ones are kept."""
    return keys_in(paths.keys, paths.id, nodes)


def keys_in(folder: Path, lab_id: str, nodes: Iterable[str]) -> LabKeys:
    """Return the keys in a folder, as ``ensure_keys`` does for the lab's own."""
    for directory in (folder, folder / "host"):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
    user = _key_pair(folder / "id_ed25519", f"lab@{lab_id}")
    host = {node: _key_pair(folder / "host" / node, node) for node in nodes}
    known_hosts = folder / "known_hosts"
    fs.write_if_changed(known_hosts, "".join(f"{node} {_bare(key.public)}\n" for node, key in host.items()), mode=0o600)
    return LabKeys(folder / "id_ed25519", user.public, host, known_hosts)


def _key_pair(path: Path, comment: str) -> HostKey:
    """Return the key pair in ``path`` and ``path``.pub; the public half is always derived from the private one."""
    if not path.exists():
        made = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        fs.write(path, made.decode(), mode=0o600)
    try:
        private = path.read_text()
        key = load_ssh_private_key(private.encode(), password=None)
    except ValueError as error:
        raise StateError(
            f"{path} can't be read as an SSH private key: {error}",
            remedy="remove it, then make the lab again: `lab destroy` and `lab up`",
        ) from error
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + f" {comment}"
    fs.write_if_changed(path.with_name(path.name + ".pub"), public + "\n", mode=0o644)
    return HostKey(private, public)


def _bare(public: str) -> str:
    """Return type and key, without the comment."""
    return " ".join(public.split()[:2])
