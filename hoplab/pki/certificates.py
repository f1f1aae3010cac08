"""The lab's own certificate authority and the certificates of its sites, made once and kept.

<lab>/ca.crt                       what a client has to trust: curl --cacert .lab/dev/ca.crt ...
<lab>/keys/ca.key                  0600
<lab>/keys/tls/<name>.crt, .key    one pair for each site, 0600
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hoplab.core import fs
from hoplab.core.errors import StateError
from hoplab.core.paths import LabPaths

VALIDITY = timedelta(days=3650)  # a lab may be stopped for long
CLOCK_SKEW = timedelta(days=1)  # clocks of machines differ


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: str
    key: str


@dataclass(frozen=True)
class Description:
    """What a certificate says of itself."""

    names: tuple[str, ...]  # DNS names, "*.example.org" for one label at their front
    begins: datetime
    ends: datetime

    def is_for(self, host: str) -> bool:
        """Return whether a client that asks for the host accepts it."""
        label, _, rest = host.lower().partition(".")
        return any(name.lower() in (host.lower(), f"*.{rest}" if label and rest else None) for name in self.names)


def describe(certificate: str) -> Description:
    """Return what a certificate, as PEM, says of itself; raise ValueError where it cannot be read."""
    found = x509.load_pem_x509_certificate(certificate.encode())
    try:
        given = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(given.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        names = ()
    return Description(names, found.not_valid_before_utc, found.not_valid_after_utc)


def ensure_certificates(paths: LabPaths, sites: Mapping[str, tuple[str, ...]]) -> dict[str, Pair]:
    """Return a pair for each site (name -> DNS names), signed by the lab's CA. Valid existing pairs are kept."""
    folder = paths.keys / "tls"
    folder.mkdir(parents=True, exist_ok=True)
    for directory in (paths.keys, folder):
        directory.chmod(0o700)
    try:
        ca, key = _authority(paths)
        return {name: _site(folder / name, names, ca, key) for name, names in sites.items()}
    except ValueError as error:
        raise StateError(
            f"a certificate or key of lab {paths.lab!r} can't be read: {error}",
            remedy=f"remove {paths.ca}, {paths.keys}/ca.key and {folder}; they are made again",
        ) from None


def _authority(paths: LabPaths) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    file = paths.keys / "ca.key"
    if not (file.exists() and paths.ca.exists()):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"hoplab {paths.id}")])
        made = (
            _new_builder(name, name, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(key, SHA256())
        )
        fs.write_if_changed(file, _text(key), mode=0o600)
        fs.write_if_changed(paths.ca, made.public_bytes(Encoding.PEM).decode(), mode=0o644)
    return x509.load_pem_x509_certificate(paths.ca.read_bytes()), _key(file)


def _site(file: Path, names: tuple[str, ...], ca: x509.Certificate, authority: ec.EllipticCurvePrivateKey) -> Pair:
    certificate, secret = file.with_name(f"{file.name}.crt"), file.with_name(f"{file.name}.key")
    if not (certificate.exists() and secret.exists() and _is_for(certificate, names, ca)):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        made = (
            _new_builder(subject, ca.subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
            .sign(authority, SHA256())
        )
        fs.write_if_changed(secret, _text(key), mode=0o600)
        fs.write_if_changed(certificate, made.public_bytes(Encoding.PEM).decode(), mode=0o600)
    return Pair(certificate.read_text(), secret.read_text())


def _is_for(file: Path, names: tuple[str, ...], ca: x509.Certificate) -> bool:
    """Return whether an existing certificate has these names, was signed by this CA and has not expired."""
    found = x509.load_pem_x509_certificate(file.read_bytes())
    try:
        found.verify_directly_issued_by(ca)
    except Exception:  # cryptography raises several types for another name or another key
        return False
    given = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return tuple(given.get_values_for_type(x509.DNSName)) == names and found.not_valid_after_utc > datetime.now(UTC)


def _new_builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + VALIDITY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _key(file: Path) -> ec.EllipticCurvePrivateKey:
    found = load_pem_private_key(file.read_bytes(), None)
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{file} holds no elliptic-curve key")
    return found
