"""What a lab does while a deployment gets a pod more and less: one observation for all lessons on changes.

A pod takes long to start and to go, so lessons that watch it do not each scale a deployment of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from concurrent.futures import Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from threading import Thread
from typing import Any

from hoplab.expectations import proxy
from hoplab.observe.facts import Facts
from hoplab.verify import workload
from hoplab.verify.objects import INGRESSES, Objects
from hoplab.verify.traffic import Stream, Traffic
from hoplab.verify.workload import APP1, APP2, HOST1

_WITHOUT_INGRESS = "single"


@dataclass(frozen=True)
class Scaling:
    """A deployment with one pod more, and as it was again; endpoints have the form ``10.244.1.2:8080``."""

    deployment: str  # also the name of its service
    before: set[str]  # its endpoints
    more: set[str]  # ... with one pod more
    grown: Mapping[str, Facts]  # address translation rules of each node once they lead to these, or at the deadline
    shrunk: Mapping[str, Facts]  # ... once they lead to the former again
    stream: Stream = field(default_factory=Stream)  # requests to the service's host, where there is an ingress
    edited_to: str = ""  # the endpoint that answers for a path that was added meanwhile


class Scalings(Traffic, Objects):
    """Scaling a deployment of a running lab, once, while lessons that it does not disturb go on."""

    def begin_scaling(self) -> None:
        """Begin to scale where hardly another lesson looks at the deployment: the one behind the first host."""
        if self._behind_ingress:
            self._scaling  # noqa: B018 -- begins it

    def scaling(self) -> Scaling:
        """Return what happened when a deployment was scaled; raise LabError or ClaimFailed when that failed.

        With an ingress controller it is the deployment behind the first host, requests to that accompany the whole,
        and meanwhile a path is added to its Ingress and removed again.
        """
        return self._scaling.result()

    def settle(self) -> None:
        """Wait until a deployment that is being scaled is as it was."""
        if "_scaling" in vars(self):
            wait([self._scaling])

    @cached_property
    def _scaling(self) -> Future[Scaling]:
        """Return the scaling, which begins when this is first read; its failure is the same for every lesson."""
        found: Future[Scaling] = Future()

        def scale() -> None:
            try:
                found.set_result(self._scaled_once(ingress=self._behind_ingress))
            except BaseException as error:
                found.set_exception(error)

        Thread(target=scale, name="scaling", daemon=True).start()
        return found

    @property
    def _behind_ingress(self) -> bool:
        named = f"{workload.NAMESPACE}/{APP1}"
        apps = any(service.service == named for service in proxy.expectations(self.snapshot))
        return apps and self.snapshot.setting.ingress != "none"

    def _scaled_once(self, *, ingress: bool) -> Scaling:
        deployment = APP1 if ingress else _WITHOUT_INGRESS
        service, client = self.service(deployment), self.snapshot.setting.pod_cidr[-2]

        def lead_to(wanted: Set[str]) -> Callable[[Facts], bool]:
            if not self.snapshot.setting.has_kube_proxy:  # there are no rules, so none follows
                return lambda _rules: True
            return lambda rules: proxy.targets(rules, client, service) == wanted

        stream, edited_to, path = Stream(), "", f"/{self.unique_path()}"
        before = self.endpoints(deployment)
        with ExitStack() as requests:
            if ingress:
                stream = requests.enter_context(self.request_stream(f"http://{HOST1}/"))
            with ExitStack() as changes:
                if ingress:
                    changes.enter_context(self.edited(f"{INGRESSES}/apps", _adding(path)))
                more = changes.enter_context(self.scaled(deployment, len(before) + 1))
                if ingress:
                    second = self.endpoints(APP2)
                    edited_to = self.until(lambda: self.reached(f"http://{HOST1}{path}"), lambda to: to in second)
                grown = self.rules_when(lead_to(more))
                if ingress:
                    self.until(lambda: set(stream.reached), lambda reached: more <= reached)
            shrunk = self.rules_when(lead_to(before))
            if ingress:  # until the pod, which still answers for a while, has gone
                self.until(
                    lambda: self.endpoints(deployment, ending=True), lambda found: found == self.endpoints(deployment)
                )
        return Scaling(deployment, before, more, grown, shrunk, stream, edited_to)


def _adding(path: str) -> Any:
    """Return an edit of an Ingress that leads a path of its first host to the second app."""
    added = workload.ingress("", {"": {path: APP2}})["spec"]["rules"][0]["http"]["paths"]

    def edit(item: dict[str, Any]) -> None:
        item["spec"]["rules"][0]["http"]["paths"] += added

    return edit
