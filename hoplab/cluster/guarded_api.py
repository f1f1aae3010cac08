"""The API of a lab that may be badly hurt: what does not answer once is not asked again.

Where etcd does not answer, the API server's cache still does: reads then are as of the last moment of etcd.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from hoplab.cluster.api import LAB_REMEDY, ApiUnreachable, KubernetesApi, Requests

READY_S = 10.0  # for the answer to a health check, or from the cache
FAILED = "[-]"  # begins the line of a check that fails


class GuardedApi(Requests):
    """Requests that fail at once after the first one without an answer."""

    def __init__(
        self, api: KubernetesApi, clock: Callable[[], float] = time.monotonic, *, remedy: str = LAB_REMEDY
    ) -> None:
        self._api = api
        self.remedy = remedy
        self._short = api.within(READY_S)
        self._clock = clock
        self.problem = ""  # why it does not answer; "" while it does
        self.failing: tuple[str, ...] = ()  # checks of /readyz that fail
        self.waited = 0.0  # seconds without an answer
        self.cached = False  # whether reads come from the API server's cache
        self._late = 0  # requests without an answer from a server that is ready

    @property
    def etcd_lost(self) -> bool:
        """Return whether the API server answers and says that etcd does not."""
        return any(line.startswith(f"{FAILED}etcd") for line in self.failing)

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """Return status and text of the answer; raise ApiUnreachable where there is none, or was none before."""
        if self.problem:
            return self._despite(method, path)
        began = self._clock()
        try:
            status, text = self._api.request(method, path, body)
            if status < 500:
                return status, text
            problem = f"the API server answers {path} with {status}: {text.strip()[:200]}"
            checks = self._failing_checks()
            if checks == ():
                return status, text  # it works, and this one request is refused
        except ApiUnreachable as error:
            problem, checks = error.message, self._failing_checks()
            self._late += checks == ()
            if checks == () and self._late == 1:
                self.waited += self._clock() - began
                raise  # a busy server may be late once
        self.problem, self.failing = problem, checks or ()
        self.waited += self._clock() - began
        self.cached = self.etcd_lost
        return self._despite(method, path)

    def _despite(self, method: str, path: str) -> tuple[int, str]:
        """Answer a read from the cache where etcd alone is lost; raise ApiUnreachable otherwise."""
        if self.cached and method == "GET":
            try:
                return self._short.request("GET", f"{path}{'&' if '?' in path else '?'}resourceVersion=0")
            except ApiUnreachable:
                self.cached = False
        raise ApiUnreachable(self.problem, remedy=self.remedy)

    def _failing_checks(self) -> tuple[str, ...] | None:
        """Return the lines of /readyz that fail, none where it is ready; None where it does not answer."""
        try:
            status, text = self._short.request("GET", "/readyz?verbose")
        except ApiUnreachable:
            return None
        lines = tuple(line for line in text.splitlines() if line.startswith(FAILED))
        return () if status == 200 else lines or (f"/readyz answers with {status}",)
