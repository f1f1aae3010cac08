"""A Kubernetes ingress controller to be read in one sitting: it watches the API, writes nginx.conf and reloads nginx.

    api         -> what the API has of Ingresses, Gateways, services, ...
    ingress     -> what Ingresses ask for                          }
    addresses   -> where Gateways are reached                      }
    routes      -> what HTTPRoutes ask for                         } pure: objects in, values out
    gateway     -> what Gateways make of that                      }
    conf        -> the text of nginx.conf, where pods are now      }
    status      -> status and Events: what people are told         }
    Nginx       -> tested, then reloaded: what is served
    Controller  -> all of it together

Read them in this order; `objects` has what several of them name, and nginx.conf.in what every nginx.conf begins with.
One copy runs on every node; each serves all rules, and the first of them (by name) writes status and Events. It needs
Python's standard library and nginx only: what a pod imports, an emulated node takes seconds to load.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from hoplab.image.readable.addresses import Home, service_changes
from hoplab.image.readable.api import Api, Object, Refused, follow, say
from hoplab.image.readable.conf import configuration, taken, with_certificate
from hoplab.image.readable.gateway import Gateways, gateways, our_gateways
from hoplab.image.readable.ingress import Complaint, Site, servers, wishes
from hoplab.image.readable.objects import Certificate, Objects, certificate_of
from hoplab.image.readable.status import GRACE, due, event, gateway_statuses, told

GATEWAY_API = {
    "GatewayClass": "/apis/gateway.networking.k8s.io/v1/gatewayclasses",
    "Gateway": "/apis/gateway.networking.k8s.io/v1/gateways",
    "HTTPRoute": "/apis/gateway.networking.k8s.io/v1/httproutes",
    "ReferenceGrant": "/apis/gateway.networking.k8s.io/v1/referencegrants",
    "Namespace": "/api/v1/namespaces",
}


class Nginx:
    """The nginx below us. A configuration is tested before it replaces the one that is served."""

    def __init__(self, folder: Path, program: str = "nginx") -> None:
        self.folder = folder
        self.program = program
        self.served = ""
        self._process: subprocess.Popen[bytes] | None = None
        for part in ("tls", "tmp"):
            (folder / part).mkdir(mode=0o700, parents=True, exist_ok=True)

    def test(self, text: str, certificates: Iterable[Certificate]) -> str:
        """What nginx has against a configuration; "" when it would serve it."""
        for certificate in certificates:
            file = self.folder / "tls" / certificate.file
            if not file.exists():
                file.touch(mode=0o600)
                file.write_text(certificate.pem)
        draft = self.folder / "nginx.conf.new"
        draft.write_text(text)
        ran = subprocess.run([*self._command(draft), "-q", "-t"], capture_output=True, text=True, check=False)
        if ran.returncode == 0:
            return ""
        why = re.search(r"\[emerg\] (?:\d+#\d+: )?(.*)", ran.stderr)
        return why[1] if why else f"it ended with {ran.returncode}: {ran.stderr.strip()}"

    def serve(self, text: str, certificates: Iterable[Certificate]) -> str:
        """Serve a configuration from now on, or say what nginx has against it and go on as before.

        On SIGHUP nginx starts new workers, and the old ones finish what they are doing: no request is lost.
        """
        wanted = set(certificates)
        if text == self.served:
            return ""
        if why := self.test(text, wanted):
            return why
        (self.folder / "nginx.conf.new").replace(self.folder / "nginx.conf")
        self.served = text
        if self._process is None:
            command = [*self._command(self.folder / "nginx.conf"), "-g", "daemon off;"]
            self._process = subprocess.Popen(command)
            threading.Thread(target=self._watch, name="nginx", daemon=True).start()
            say("nginx is started")
        else:
            self._process.send_signal(signal.SIGHUP)
            say("nginx reads its new configuration")
        for file in (self.folder / "tls").iterdir():
            if file.name not in {certificate.file for certificate in wanted}:
                file.unlink()
        return ""

    def stop(self) -> None:
        """Let the workers finish."""
        if self._process:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()

    def _command(self, file: Path) -> list[str]:
        return [self.program, "-e", "stderr", "-p", str(self.folder), "-c", str(file)]

    def _watch(self) -> None:
        """Without nginx there is nothing to control: the container ends, and Kubernetes starts it again."""
        assert self._process
        code = self._process.wait()
        say(f"nginx ended with {code}")
        os._exit(code or 0)


class Controller:
    """From objects to what is served and what people are told."""

    def __init__(self, nginx: Nginx, home: Home | None = None) -> None:
        self.nginx = nginx
        self.home = home  # None where Gateways share the nodes' addresses
        self.good: dict[str, Site] = {}  # by Ingress: what is served of it
        self.bad: dict[Site, str] = {}  # what nginx refused, and why
        self.gateways = Gateways()  # what Gateways ask for
        self.unusable: set[Certificate] = set()  # of Gateways, which nginx refused
        self.refused = ""  # what nginx has against all of it, "" where it is served

    def apply(self, seen: Objects) -> list[Complaint]:
        """Serve what our Ingresses and Gateways ask for; what nginx refuses is served as it was before."""
        asked, complaints = wishes(seen)
        self.bad = {site: why for site, why in self.bad.items() if site in asked}
        self.unusable = {known for known in self.unusable if certificate_of(known.secret, seen) == known}
        if self._serve(self._kept(asked), seen):
            for site in asked:  # one of them is to blame: which?
                alone = configuration([site], seen)
                if self._new(site) and (why := self.nginx.test(alone, certificates([site]))):
                    self.bad[site] = why
        if why := self._serve(self._kept(asked), seen):  # together they are wrong, though each alone is right
            say(f"nginx refuses all of it, what was served before stays: {why}")
            return [*complaints, *(Complaint(site.ingress, "Rejected", why) for site in asked if self._new(site))]
        self.good = {site.ingress: site for site in self._kept(asked)}
        return [*complaints, *(Complaint(site.ingress, "Rejected", why) for site, why in self.bad.items())]

    def _kept(self, asked: Iterable[Site]) -> list[Site]:
        """What is asked, with what was served before in the place of what nginx refuses."""
        kept = (self.good.get(site.ingress) if site in self.bad else site for site in asked)
        return [site for site in kept if site]

    def _new(self, site: Site) -> bool:
        return self.good.get(site.ingress) != site

    def _serve(self, sites: list[Site], seen: Objects) -> str:
        """Serve these sites and all Gateways, without the certificates of Gateways that nginx cannot use."""
        while True:
            self.gateways = gateways(seen, self.unusable, taken(sites), self.home)
            wanted = certificates(sites) | self.gateways.certificates
            self.refused = self.nginx.serve(configuration(sites, seen, self.gateways), wanted)
            if not self.refused:
                return ""
            wrong = {one for one in self.gateways.certificates if self.nginx.test(with_certificate(one), [one])}
            if not wrong:
                return self.refused
            self.unusable |= wrong


def certificates(sites: Iterable[Site]) -> set[Certificate]:
    return {server.certificate for server in servers(sites) if server.certificate}


def watched(namespace: str, selector: str, *, gateway_api: bool) -> dict[str, tuple[str, dict[str, str]]]:
    """What is watched: kind -> path and selectors. Our own pods are in that namespace."""
    kinds = {
        "Ingress": ("/apis/networking.k8s.io/v1/ingresses", {}),
        "IngressClass": ("/apis/networking.k8s.io/v1/ingressclasses", {}),
        "Service": ("/api/v1/services", {}),
        "EndpointSlice": ("/apis/discovery.k8s.io/v1/endpointslices", {}),
        "Secret": ("/api/v1/secrets", {"fieldSelector": "type=kubernetes.io/tls"}),
        "Pod": (f"/api/v1/namespaces/{namespace}/pods", {"labelSelector": selector}),
    }
    return kinds | ({kind: (path, {}) for kind, path in GATEWAY_API.items()} if gateway_api else {})


def tell_gateways(api: Api, controller: Controller, seen: Objects, nodes: Iterable[str], now: datetime) -> None:
    """Make the Services of Gateways right, and each status."""
    if "Gateway" not in seen:  # the lab has no Gateway API
        return
    for method, path, body in service_changes(our_gateways(seen), seen, controller.home):
        with contextlib.suppress(Refused):  # it is there already, or gone: the watch will tell
            if method == "DELETE":
                api.delete(path)
            else:
                {"POST": api.post, "PATCH": api.patch}[method](path, body)
    statuses = gateway_statuses(controller.gateways, seen, nodes, controller.refused, now, controller.home)
    for path, status in statuses.items():
        with contextlib.suppress(Refused):  # the object is gone, or the watch will tell of it again
            api.patch(path, status)


def main() -> None:
    namespace, selector, pod = (os.environ[f"POD_{part}"] for part in ("NAMESPACE", "SELECTOR", "NAME"))
    api = Api(os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"]))
    kinds = watched(namespace, selector, gateway_api=bool(os.environ.get("GATEWAY_API")))
    own = bool(os.environ.get("GATEWAY_SERVICES"))
    controller = Controller(Nginx(Path("/run/nginx")), Home(namespace, selector) if own else None)
    objects: dict[str, Mapping[str, Object]] = {}
    changed = threading.Event()

    def see(kind: str, found: Mapping[str, Object]) -> None:
        objects[kind] = found
        changed.set()

    def end(*_: object) -> None:
        controller.nginx.stop()
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    for kind, (path, query) in kinds.items():
        threading.Thread(target=follow, args=(api, path, query, partial(see, kind)), name=kind, daemon=True).start()
    posted: set[tuple[str, Complaint]] = set()
    written: set[str] = set()
    since: dict[Complaint, float] = {}
    patience: float | None = None
    while True:
        changed.wait(patience)
        time.sleep(0.05)  # a change rarely comes alone
        changed.clear()
        seen = dict(objects)
        if set(seen) != set(kinds):
            continue
        complaints = controller.apply(seen)
        patience = None
        if (telling := told(seen, complaints, pod, written)) is None:
            continue
        now = datetime.now(UTC)
        try:
            tell_gateways(api, controller, seen, telling.addresses, now)
            for name, addresses in telling.statuses.items():
                where, _, ingress = name.partition("/")
                with contextlib.suppress(Refused):  # it is gone, or the watch will tell of it again
                    body = {"status": {"loadBalancer": {"ingress": addresses}}}
                    api.patch(f"/apis/networking.k8s.io/v1/namespaces/{where}/ingresses/{ingress}/status", body)
                    written.add(name)
            ripe = due(telling.complaints, since, time.monotonic())
            patience = GRACE if len(ripe) < len(since) else None
            for complaint in ripe:
                about = seen["Ingress"][complaint.ingress]
                if (about["metadata"]["uid"], complaint) not in posted:
                    warning = event(about, complaint, now)
                    api.post(f"/api/v1/namespaces/{about['metadata']['namespace']}/events", warning)
                    posted.add((about["metadata"]["uid"], complaint))
        except Exception as error:  # the API is away for a moment
            say(f"telling the API: {error}")
            patience = 5.0


if __name__ == "__main__":
    main()
