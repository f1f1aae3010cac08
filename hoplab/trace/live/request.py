"""The HTTP request that an ingress controller leads to a service, and passes on with its nonce; pure."""

from __future__ import annotations

import json

from hoplab.observe.facts.api_ingresses import API_INGRESSES
from hoplab.observe.snapshot import Snapshot
from hoplab.trace.live.identity import Identity
from hoplab.trace.places import Target


def request(lab: Snapshot, goal: Target, identity: Identity) -> bytes:
    """Return the HTTP request that an ingress controller leads to the service behind it."""
    namespace, name = next(((found.namespace, found.service) for found in goal.endpoints), ("", ""))
    for ingress in json.loads(lab.api.outputs[API_INGRESSES.name].out)["items"]:
        for rule in ingress.get("spec", {}).get("rules", ()) if ingress["metadata"]["namespace"] == namespace else ():
            for path in rule.get("http", {}).get("paths", ()):
                if path.get("backend", {}).get("service", {}).get("name") == name:
                    text = (
                        f"GET {path.get('path') or '/'}?{identity.nonce} HTTP/1.1\r\n"
                        f"Host: {rule.get('host') or 'hoplab.invalid'}\r\nX-Hoplab-Trace: {identity.nonce}\r\n"
                        "User-Agent: hoplab\r\nConnection: close\r\n\r\n"
                    )
                    return text.encode()
    return b""
