"""Certificates with which a user proves who it is to the cluster's API server, signed by the cluster's CA."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hoplab.core.errors import StateError
from hoplab.pki.certificates import CLOCK_SKEW, Pair

VALIDITY = timedelta(days=365)  # as kubeadm's
USER = "kubernetes-admin"


def client_pair(ca: Pair, user: str, group: str) -> Pair:
    """Return a new certificate of a user in a group, and its key; raise ValueError for a CA that can't be read."""
    authority, signer = x509.load_pem_x509_certificate(ca.certificate.encode()), _signer(ca.key)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group), x509.NameAttribute(NameOID.COMMON_NAME, user)]
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(min(now + VALIDITY, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(signer, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Pair(made.public_bytes(Encoding.PEM).decode(), private)


def with_own_admin(kubeconfig: str, ca: Pair, group: str) -> str:
    """Return an administrator's kubeconfig with a new certificate in ``group``; raise StateError for a bad one."""
    try:
        document = yaml.safe_load(kubeconfig)
        pair = client_pair(ca, USER, group)
        document["users"][0]["user"] = {
            "client-certificate-data": base64.b64encode(pair.certificate.encode()).decode(),
            "client-key-data": base64.b64encode(pair.key.encode()).decode(),
        }
    except (yaml.YAMLError, LookupError, TypeError, ValueError) as error:
        raise StateError(
            f"the administrator's certificate can't be made anew: {error}",
            remedy="make the lab without another's checkpoint: ./lab destroy, then ./lab up --fresh",
        ) from None
    return yaml.safe_dump(document, sort_keys=False)


def _signer(key: str) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    found = load_pem_private_key(key.encode(), None)
    if not isinstance(found, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise ValueError("the CA's key is of another kind than ECDSA and RSA")
    return found
