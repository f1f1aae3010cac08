"""Chapter 8, certificates: the secrets that Ingresses name, ``openssl x509 -dates``."""

from __future__ import annotations

import pytest

from hoplab.observe.facts.api_tls_secrets import TLS
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import tls
from hoplab.verify.claims import Claim, listed

pytestmark = pytest.mark.remedy("kubectl describe ingress -A")


@pytest.mark.needs(ingress=True, facts=tls.FACTS)
def test_secrets_of_sites_are_certificates_in_date(lab: Snapshot, claim: Claim) -> None:
    """The secret of a site is of the type kubernetes.io/tls and holds a certificate for its hosts, which is valid
    now."""
    earliest, latest = tls.clocks(lab)
    seen = []
    for use in tls.uses(lab):
        claim.require(use.secret, f"{use.what} is not there")
        assert use.secret
        claim.require(use.of_right_type, f"{use.what} is of the type {use.secret.kind}, not of {TLS}")
        found = use.certificate
        claim.require(found, f"{use.what} has no certificate that can be read in tls.crt")
        assert found
        claim.require(
            earliest < found.ends, f"the certificate in {use.what} expired on {found.ends:%Y-%m-%d %H:%M} UTC"
        )
        claim.require(
            found.begins <= latest,
            f"the certificate in {use.what} is not valid before {found.begins:%Y-%m-%d %H:%M} UTC",
        )
        claim.require(
            not use.unnamed,
            f"the certificate in {use.what} is for {listed(found.names)}, not for {listed(use.unnamed)}",
        )
        seen.append(f"{use.name} until {found.ends:%Y-%m-%d}")
    claim.saw(f"certificates: {listed(seen)}")
