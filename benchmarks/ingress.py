"""Load on the ingress of a running lab, from outside: lost requests during changes, and the cost of the controller.

The first measurement counts requests and losses of several clients, with a connection for each request, while an app
is scaled up and down and a rule is added and removed. The second compares wrk's requests per second through the
ingress and through a plain nginx on the same node with the same pods behind it.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import click

from benchmarks.labs import table
from hoplab.cli.options import lab_option
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.host import netns
from hoplab.verify import workload
from hoplab.verify.objects import INGRESSES
from hoplab.verify.session import LabSession, opened
from hoplab.verify.workload import APP1, APP2, HOST1, NAMESPACE

PLAIN = "plain-nginx"
PLAIN_PORT = 8090
IMAGE = "hoplab.local/ingress-readable:1"  # it contains nginx
CLIENTS = 4
CONNECTIONS = 8


@dataclass(frozen=True)
class Wrk:
    """The result of one run of wrk."""

    per_second: float
    requests: int
    errors: int  # connection errors
    refused: int  # answers with a status other than 2xx and 3xx


def parse(text: str) -> Wrk:
    """Parse the output of wrk."""
    found = {name: re.search(pattern, text) for name, pattern in WORDS.items()}
    if not (found["per_second"] and found["requests"]):
        raise LabError(f"wrk printed no figures: {text.strip()[-200:]}", remedy="try it by hand")
    errors = sum(int(count) for count in found["errors"].groups()) if found["errors"] else 0
    refused = int(found["refused"][1]) if found["refused"] else 0
    return Wrk(float(found["per_second"][1]), int(found["requests"][1]), errors, refused)


WORDS = {
    "per_second": r"Requests/sec:\s+([\d.]+)",
    "requests": r"(\d+) requests in",
    "errors": r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)",
    "refused": r"Non-2xx or 3xx responses: (\d+)",
}


def wrk(session: LabSession, port: int, seconds: int) -> Wrk:
    """Send requests to the first node from outside as fast as it answers."""
    address = session.snapshot.nodes[0].address
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "20s", "-H", f"Host: {HOST1}"]
    with netns.entered(session.external.namespace):
        ran = subprocess.run([*command, f"http://{address}:{port}/"], capture_output=True, text=True, check=False)
    return parse(ran.stdout + ran.stderr)


def plain(session: LabSession) -> list[tuple[str, dict[str, Any]]]:
    """Return the manifest of an nginx on the first node in front of the first app's pods only."""
    servers = " ".join(f"server {endpoint};" for endpoint in sorted(session.endpoints(APP1)))
    conf = f"""
worker_processes auto;
pid /tmp/nginx.pid;
error_log stderr notice;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    upstream pods {{ {servers} keepalive 16; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    server {{ listen 8080; location / {{ proxy_pass http://pods; }} }}
}}
"""
    container = {
        "name": "nginx",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["nginx", "-e", "stderr", "-c", "/etc/plain/nginx.conf", "-g", "daemon off;"],
        "ports": [{"containerPort": 8080, "hostPort": PLAIN_PORT}],
        "volumeMounts": [{"name": "conf", "mountPath": "/etc/plain"}],
    }
    spec = {
        "nodeName": session.snapshot.nodes[0].name,
        "containers": [container],
        "volumes": [{"name": "conf", "configMap": {"name": PLAIN}}],
        "terminationGracePeriodSeconds": 0,
    }
    core, metadata = f"/api/v1/namespaces/{NAMESPACE}", {"name": PLAIN}
    conf_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"nginx.conf": conf}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    return [(f"{core}/configmaps", conf_map), (f"{core}/pods", pod)]


@contextmanager
def beside(session: LabSession) -> Iterator[None]:
    """Run the plain nginx while the body runs."""
    url = f"http://{HOST1}:{PLAIN_PORT}/"
    with ExitStack() as stack:
        for path, body in plain(session):
            stack.enter_context(session.created(path, body))
        reply = session.until(lambda: session.http_get(url), lambda found: found.status == 200)
        if reply.status != 200:
            raise LabError(
                f"the plain nginx gives {reply}", remedy=f"./lab kubectl -n {NAMESPACE} describe pod {PLAIN}"
            )
        yield


@dataclass(frozen=True)
class Lost:
    """Counts of requests during a change."""

    sent: int
    lost: tuple[str, ...]
    seconds: float


def changing(session: LabSession, rounds: int) -> Lost:
    """Send requests from several clients while pods are replaced and a rule is created and removed."""
    began = time.monotonic()

    def longer(item: dict[str, Any]) -> None:
        rules = item["spec"]["rules"]
        rules[0]["http"]["paths"] += workload.ingress("", {"": {"/bench": APP2}})["spec"]["rules"][0]["http"]["paths"]

    with ExitStack() as stack:
        streams = [stack.enter_context(session.request_stream(f"http://{HOST1}/")) for _ in range(CLIENTS)]
        for _ in range(rounds):
            with session.scaled(APP1, 3), session.edited(f"{INGRESSES}/apps", longer):
                session.until(
                    lambda: session.reached(f"http://{HOST1}/bench"), lambda to: to in session.endpoints(APP2)
                )
            session.until(lambda: session.endpoints(APP1, ending=True), lambda found: found == session.endpoints(APP1))
    lost = tuple(why for stream in streams for why in stream.lost)
    return Lost(sum(stream.sent for stream in streams), lost, time.monotonic() - began)


def measured(session: LabSession, rounds: int, seconds: int) -> list[tuple[Wrk, Wrk]]:
    """Run wrk through the ingress and through the plain nginx, in turns."""
    with beside(session):
        return [(wrk(session, 80, seconds), wrk(session, PLAIN_PORT, seconds)) for _ in range(rounds)]


@click.command()
@lab_option
@click.option("--rounds", default=3, show_default=True, help="How often each is measured.")
@click.option("--seconds", default=20, show_default=True, help="How long each run of wrk lasts.")
def run(paths: LabPaths, rounds: int, seconds: int) -> None:
    """Measure load on the ingress of a running lab."""
    if shutil.which("wrk") is None:
        raise LabError("this measurement needs wrk", remedy="apt-get install wrk")
    with opened(paths, click.echo) as session:
        lost = changing(session, rounds)
        click.echo(f"{lost.sent} requests in {lost.seconds:.0f} s while things changed, {len(lost.lost)} lost")
        for why in sorted(set(lost.lost)):
            click.echo(f"  {why}")
        pairs = measured(session, rounds, seconds)
    rows = [
        [str(number), f"{ours.per_second:.0f}", f"{plain.per_second:.0f}", f"{ours.per_second / plain.per_second:.2f}"]
        for number, (ours, plain) in enumerate(pairs, 1)
    ]
    ratio = statistics.median(ours.per_second / plain.per_second for ours, plain in pairs)
    rows.append(["median", "", "", f"{ratio:.2f}"])
    click.echo(table([["requests per second", "ingress", "plain nginx", "ratio"], *rows]))
    for ours, other in pairs:
        for name, found in (("ingress", ours), ("plain nginx", other)):
            if found.errors or found.refused:
                click.echo(f"{name}: {found.errors} errors, {found.refused} bad answers of {found.requests}")


if __name__ == "__main__":
    run()
