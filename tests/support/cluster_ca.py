"""A cluster's CA, and the kubeconfig of its administrator."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from hoplab.pki.certificates import Pair

KUBECONFIG = {
    "clusters": [{"name": "kubernetes", "cluster": {"server": "https://192.0.2.1:6443"}}],
    "users": [{"name": "kubernetes-admin", "user": {"client-certificate-data": "b2xk", "client-key-data": "b2xk"}}],
}


def authority(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, days: int = 3650) -> Pair:
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")]), datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days)).sign(key, SHA256())
    return Pair(made.public_bytes(Encoding.PEM).decode(), private(key))


def private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
