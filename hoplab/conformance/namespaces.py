"""The namespaces that e2e.test makes: each spec has its own, and deletes it unless the run is killed."""

from __future__ import annotations

from collections.abc import Callable

from hoplab.cluster.api import Requests
from hoplab.core.errors import ClusterError
from hoplab.core.wait import HOST, Expired, NotYet, Timing

LABEL = "e2e-run"  # upstream's, on every namespace of a run
LIST = f"/api/v1/namespaces?labelSelector={LABEL}"
GONE_S = 120.0  # for the pods in them to end, on an idle machine with KVM
OF_THE_SERVER = (200, 202, 404, 409)  # deleted, being deleted, gone


def remove(api: Requests, say: Callable[[str], None], timing: Timing = HOST) -> tuple[str, ...]:
    """Delete the namespaces of all runs and wait until they are gone; return their names.

    Raise ClusterError where one is refused or does not end.
    """
    found = _names(api)
    for name in found:
        status, answer = api("DELETE", f"/api/v1/namespaces/{name}")
        if status not in OF_THE_SERVER:
            raise ClusterError(
                f"the namespace {name} of the tests can't be deleted: {answer.get('message', status)}", remedy=_REMEDY
            )

    def gone() -> bool | NotYet:
        left = _names(api)
        return NotYet(", ".join(left)) if left else True

    try:
        timing.until(gone, GONE_S, report=lambda left: say(f"waiting for the end of {left}"))
    except Expired as expired:
        raise ClusterError(
            f"namespaces of the tests do not end within {expired.seconds:.0f} s: {expired.reason}", remedy=_REMEDY
        ) from None
    return found


_REMEDY = f"./lab kubectl get all -A -l {LABEL} and ./lab kubectl describe namespace -l {LABEL} show what is left"


def _names(api: Requests) -> tuple[str, ...]:
    return tuple(item["metadata"]["name"] for item in api.read(LIST)["items"])
