"""The lab's CA and its sites' certificates."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509

from hoplab.core.errors import StateError
from hoplab.core.paths import LabPaths
from hoplab.pki.certificates import Pair, ensure_certificates

SITES = {"one": ("app1.yash.com",), "two": ("app2.yash.com", "app3.yash.com")}


def handshake(paths: LabPaths, pair: Pair, name: str, folder: Path) -> None:
    """A TLS handshake in memory with a client that trusts the CA; an SSLError where it does not trust the server."""
    file = folder / "pair.pem"
    file.write_text(pair.certificate + pair.key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    strict = ssl.create_default_context(cafile=paths.ca)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT  # newer Pythons' default
    ends = (
        strict.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(3):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


def test_a_client_that_trusts_the_ca_trusts_the_sites(tmp_path: Path) -> None:
    paths = LabPaths("dev", tmp_path)
    found = ensure_certificates(paths, SITES)
    handshake(paths, found["one"], "app1.yash.com", tmp_path)
    handshake(paths, found["two"], "app3.yash.com", tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="app1"):
        handshake(paths, found["two"], "app1.yash.com", tmp_path)


def test_they_are_made_once(tmp_path: Path) -> None:
    paths = LabPaths("dev", tmp_path)
    first = ensure_certificates(paths, SITES)
    assert ensure_certificates(paths, SITES) == first


def test_another_name_is_another_certificate(tmp_path: Path) -> None:
    paths = LabPaths("dev", tmp_path)
    first = ensure_certificates(paths, SITES)
    second = ensure_certificates(paths, {**SITES, "one": ("app9.yash.com",)})
    assert first["one"] != second["one"] and first["two"] == second["two"]


def test_another_ca_signs_anew(tmp_path: Path) -> None:
    paths = LabPaths("dev", tmp_path)
    first = ensure_certificates(paths, SITES)
    paths.ca.unlink()
    second = ensure_certificates(paths, SITES)
    assert first["one"] != second["one"]
    handshake(paths, second["one"], "app1.yash.com", tmp_path)


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    paths = LabPaths("dev", tmp_path)
    ensure_certificates(paths, SITES)
    for file in (paths.keys / "ca.key", paths.keys / "tls" / "one.key"):
        assert file.stat().st_mode & 0o777 == 0o600
    assert (paths.keys / "tls").stat().st_mode & 0o777 == 0o700
    assert x509.load_pem_x509_certificate(paths.ca.read_bytes()).subject.rfc4514_string() == f"CN=hoplab {paths.id}"


def test_what_can_not_be_read_is_named(tmp_path: Path) -> None:
    paths = LabPaths("dev", tmp_path)
    ensure_certificates(paths, SITES)
    (paths.keys / "ca.key").write_text("nonsense")
    with pytest.raises(StateError, match="a certificate or key of lab 'dev' can't be read") as failed:
        ensure_certificates(paths, {"new": ("new.yash.com",)})
    assert "they are made again" in failed.value.remedy
