"""The administrator's own certificate: signed by the cluster's CA, in a group of the lab's own."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from hoplab.core.errors import StateError
from hoplab.pki.certificates import Pair
from hoplab.pki.client_certificates import client_pair, with_own_admin
from tests.support.cluster_ca import KUBECONFIG, authority, private


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_a_certificate_of_a_group(kind: str) -> None:
    ca = authority(
        ec.generate_private_key(ec.SECP256R1()) if kind == "ecdsa" else rsa.generate_private_key(65537, 2048)
    )
    pair = client_pair(ca, "kubernetes-admin", "hoplab:cluster-admins:a-s2")
    found = x509.load_pem_x509_certificate(pair.certificate.encode())
    found.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.certificate.encode()))
    assert found.subject.rfc4514_string() == "CN=kubernetes-admin,O=hoplab:cluster-admins:a-s2"
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert load_pem_private_key(pair.key.encode(), None).public_key() == found.public_key()


def test_it_ends_with_its_ca() -> None:
    ca = authority(ec.generate_private_key(ec.SECP256R1()), days=10)
    found = x509.load_pem_x509_certificate(client_pair(ca, "u", "g").certificate.encode())
    assert found.not_valid_after_utc - datetime.now(UTC) <= timedelta(days=10)


def test_a_kubeconfig_keeps_all_but_the_user() -> None:
    ca = authority(ec.generate_private_key(ec.SECP256R1()))
    before = yaml.safe_dump(KUBECONFIG)
    one, two = (yaml.safe_load(with_own_admin(before, ca, "g")) for _ in range(2))
    assert one["clusters"] == KUBECONFIG["clusters"] and one["users"][0]["name"] == "kubernetes-admin"
    assert one["users"] != two["users"] != KUBECONFIG["users"]
    assert b"BEGIN CERTIFICATE" in base64.b64decode(one["users"][0]["user"]["client-certificate-data"])


@pytest.mark.parametrize("wrong", ["kubeconfig", "ca", "key"])
def test_what_can_not_be_read(wrong: str) -> None:
    ca = authority(ec.generate_private_key(ec.SECP256R1()))
    if wrong == "ca":
        ca = Pair("none", ca.key)
    if wrong == "key":
        ca = Pair(ca.certificate, private(ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(StateError, match="the administrator's certificate can't be made anew: ") as refused:
        with_own_admin("{}" if wrong == "kubeconfig" else yaml.safe_dump(KUBECONFIG), ca, "g")
    assert "./lab up --fresh" in refused.value.remedy
