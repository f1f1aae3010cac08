"""Certificates of Ingresses, judged by the clocks of the nodes that serve them; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from hoplab.observe.facts.api_ingresses import API_INGRESSES, ApiIngress
from hoplab.observe.facts.api_tls_secrets import API_TLS_SECRETS, TLS, TlsSecret
from hoplab.observe.facts.clock import CLOCK
from hoplab.observe.snapshot import Snapshot
from hoplab.pki.certificates import Description, describe

FACTS = (API_TLS_SECRETS.name, API_INGRESSES.name, CLOCK.name)


@dataclass(frozen=True)
class Use:
    """A secret that an Ingress names."""

    ingress: ApiIngress
    name: str  # "shop/my-tls-secret"
    hosts: tuple[str, ...]
    secret: TlsSecret | None

    @property
    def what(self) -> str:
        return f"secret {self.name} of Ingress {self.ingress}"

    @property
    def certificate(self) -> Description | None:
        """Return the server's certificate; None where the secret has none that can be read."""
        try:
            return describe(self.secret.certificates[0]) if self.secret and self.secret.certificates else None
        except ValueError:
            return None

    @property
    def of_right_type(self) -> bool:
        return self.secret is not None and self.secret.kind == TLS

    @property
    def unnamed(self) -> tuple[str, ...]:
        """Return the hosts that the certificate is not for."""
        found = self.certificate
        return tuple(host for host in self.hosts if found and not found.is_for(host))


def uses(lab: Snapshot) -> Iterator[Use]:
    """Yield every secret that an Ingress names."""
    secrets = {str(secret): secret for secret in lab.api[API_TLS_SECRETS]}
    for ingress in lab.api[API_INGRESSES]:
        for name, hosts in ingress.tls:
            full = f"{ingress.namespace}/{name}"
            yield Use(ingress, full, hosts, secrets.get(full))


def clocks(lab: Snapshot) -> tuple[datetime, datetime]:
    """Return the earliest and the latest time that a node's clock shows."""
    found = [datetime.fromtimestamp(node[CLOCK].node, UTC) for node in lab.nodes]
    return min(found), max(found)
