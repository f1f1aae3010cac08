"""Secrets: their types and the certificates in them. Keys are left out before anything is kept."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hoplab.core.errors import FactError
from hoplab.observe.facts import Fact

TLS = "kubernetes.io/tls"  # the type that controllers ask for
REFUSED = json.dumps("no list of secrets")  # in place of a text that might hold a key
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class TlsSecret:
    """One secret."""

    namespace: str
    name: str
    kind: str  # "kubernetes.io/tls", "Opaque"
    certificates: tuple[str, ...]  # of its tls.crt, as PEM: the server's, then those of authorities

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def reduce(text: str) -> str:
    """Return names, types and certificates of a list of secrets as JSON, and nothing else of it.

    A file with certificate and key in one is common, so tls.crt is reduced to its certificates too.
    """
    try:
        items = [_reduced(item) for item in json.loads(text)["items"] or ()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return REFUSED
    return json.dumps({"items": items})


def _reduced(item: Any) -> dict[str, Any]:
    meta, data = item["metadata"], item.get("data") or {}
    return {
        "namespace": str(meta.get("namespace", "")),
        "name": str(meta["name"]),
        "type": str(item.get("type", "")),
        "certificates": list(_certificates(data.get("tls.crt"))),
    }


def _certificates(encoded: object) -> Iterator[str]:
    if isinstance(encoded, str):
        try:
            yield from _CERTIFICATE.findall(base64.b64decode(encoded).decode())
        except ValueError:  # no base64, or no text
            return


def parse(text: str) -> tuple[TlsSecret, ...]:
    """Parse what ``reduce`` returned."""
    try:
        return tuple(
            TlsSecret(item["namespace"], item["name"], item["type"], tuple(item["certificates"]))
            for item in json.loads(text)["items"]
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FactError("the list of secrets cannot be read", remedy="./lab kubectl get secrets -A") from None


# Without tokens and releases of Helm, which are many and long.
_OTHERS = ("kubernetes.io/service-account-token", "helm.sh/release.v1", "bootstrap.kubernetes.io/token")
PATH = "/api/v1/secrets?fieldSelector=" + "%2C".join(f"type%21%3D{kind}" for kind in _OTHERS)
API_TLS_SECRETS = Fact("tls_secrets", PATH, parse, frozenset({"api"}), reduce=reduce)
