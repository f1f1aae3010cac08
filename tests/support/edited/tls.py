"""A recording of the usual lab with sites, their secrets and the nodes' clocks, which it is too old to have."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from hoplab.observe.facts import Facts
from hoplab.observe.facts.api_tls_secrets import TLS, reduce
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from tests.support.edits import HEALTHY, Fault

OLD = HEALTHY
NOW = datetime(2026, 11, 28, 18, tzinfo=UTC)
DAY = timedelta(days=1)
KEY = "-----BEGIN PRIVATE KEY-----\nMHcCAQEEIFcHlUnLk7Sg\n-----END PRIVATE KEY-----\n"
FIRST, SECOND = (node.name for node in OLD.nodes)


@cache
def certificate(*names: str, begins: datetime = NOW - DAY, ends: datetime = NOW + 90 * DAY) -> str:
    """A certificate that signs itself, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "made up")])
    made = x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number(), begins, ends)
    if names:
        made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    return made.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


def secret(pem: str, kind: str = TLS, name: str = "web-tls") -> dict[str, Any]:
    """A Secret as the API returns it, with its key."""
    data = {"tls.crt": base64.b64encode(pem.encode()).decode(), "tls.key": base64.b64encode(KEY.encode()).decode()}
    return {"metadata": {"namespace": "shop", "name": name}, "type": kind, "data": data}


def clock(node: float = 0, began: float = 0, ended: float = 4) -> Output:
    """A node's clock, in seconds after NOW, beside this machine's."""
    start = NOW.timestamp()
    return Output(0, f"{start + began:.3f} {start + node:.9f} {start + ended:.3f}\n")


def with_sites(
    *secrets: dict[str, Any], hosts: tuple[str, ...] = ("shop.example.org",), name: str = "web-tls"
) -> Snapshot:
    """The lab with an Ingress that names a secret, and with these secrets."""
    site = {
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {
            "ingressClassName": "nginx",
            "tls": [{"hosts": list(hosts), **({"secretName": name} if name else {})}],
        },
    }
    classes = [{"metadata": {"name": "nginx", "annotations": {}}, "spec": {"controller": "nginx"}}]
    answers = {
        "ingresses": json.dumps({"items": [site]}),
        "ingress_classes": json.dumps({"items": classes}),
        "tls_secrets": reduce(json.dumps({"items": list(secrets)})),
    }
    api = {**OLD.api.outputs, **{fact: Output(0, text) for fact, text in answers.items()}}
    return with_clocks({}, replace(OLD, api=Facts("api", api), setting=replace(OLD.setting, ingress="readable")))


def with_clocks(clocks: Mapping[str, Output], lab: Snapshot = OLD) -> Snapshot:
    """The lab whose nodes have these clocks; the others have this machine's."""
    found = {
        name: Facts(name, {**facts.outputs, "clock": clocks.get(name, clock(1))})
        for name, facts in lab.node_facts.items()
    }
    return replace(lab, node_facts=found)


def certified(*names: str, **dates: datetime) -> Snapshot:
    return with_sites(secret(certificate(*(names or ("shop.example.org",)), **dates)))


SITES, CLOCKS = "secrets_of_sites_are_certificates_in_date", "clocks_agree"
OF = "secret shop/web-tls of Ingress shop/web"
FAULTS = (
    Fault("the secret of a site is not there", with_sites, (SITES,), f"{OF} is not there"),
    Fault(
        "the secret of a site is of another type",
        lambda: with_sites(secret(certificate("shop.example.org"), "Opaque")),
        (SITES,),
        f"{OF} is of the type Opaque, not of kubernetes.io/tls",
    ),
    Fault(
        "the secret of a site holds no certificate",
        lambda: with_sites(secret(KEY)),
        (SITES,),
        f"{OF} has no certificate that can be read in tls.crt",
    ),
    Fault(
        "a certificate has expired",
        lambda: certified(ends=NOW - timedelta(hours=1)),
        (SITES,),
        f"the certificate in {OF} expired on 2026-11-28 17:00 UTC",
    ),
    Fault(
        "a certificate is not valid yet",
        lambda: certified(begins=NOW + DAY),
        (SITES,),
        f"the certificate in {OF} is not valid before 2026-11-29 18:00 UTC",
    ),
    Fault(
        "a certificate is for another host",
        lambda: certified("other.example.org"),
        (SITES,),
        f"the certificate in {OF} is for other.example.org, not for shop.example.org",
    ),
    Fault(
        "a clock is ahead",
        lambda: with_clocks({FIRST: clock(100)}),
        (CLOCKS,),
        f"the clock of {FIRST} is at least 96 s ahead of this machine's",
    ),
    Fault(
        "a clock is behind",
        lambda: with_clocks({SECOND: clock(-3600)}),
        (CLOCKS,),
        f"the clock of {SECOND} is at least 3600 s behind this machine's",
    ),
    Fault(
        "two clocks are apart",
        lambda: with_clocks({FIRST: clock(60), SECOND: clock(-55)}),
        (CLOCKS,),
        f"the clocks of {FIRST} and {SECOND} are at least 111 s apart",
    ),
)
