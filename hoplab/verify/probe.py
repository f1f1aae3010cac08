"""The programs in the pods of the verification workload: the lab's own echo, and agnhost for clusters without it; pure.

The echo program answers a request with what it saw of it as JSON, and so does everything above this module expect it.
agnhost's ``netexec`` has one path for each thing that it says. Its adapter makes the request, then two more on the same
connection (/clientip, /hostname), which therefore reach the same pod, and joins them into the JSON of an echo pod.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from hoplab.core.ip import IPAddress, with_port
from hoplab.observe.script import Output

ANSWER_TIMEOUT = 10  # seconds for the answer to a pod's request
PORT = 8080  # the pods'
ECHO_IMAGE = "hoplab.local/echo:1"
AGNHOST_IMAGE = "registry.k8s.io/e2e-test-images/agnhost:2.53"
AGNHOST = re.compile(r"(.*/)?agnhost([:@].*)?")  # names of its images: "registry.example/mirror/agnhost:2.53"
PATHS = ("/clientip", "/hostname")  # of netexec: the client's address with its port; the pod's name
_SERIES = re.compile(r"(.*)\[1-(\d+)\]")
_FETCH = "curl --silent --show-error --fail --fail-early"


@dataclass(frozen=True)
class Server:
    """A pod of the workload: its node and its addresses."""

    node: str
    addresses: tuple[IPAddress, ...]


@dataclass(frozen=True)
class Probe:
    """A program in the pods of the workload, and how its answers are read."""

    image: str
    args: tuple[str, ...]
    paths: tuple[str, ...] = ()  # that are requested too, on the same connection
    servers: Callable[[], Mapping[str, Server]] = dict  # by the pod's name

    def command(self, url: str, timeout_s: int = ANSWER_TIMEOUT) -> str:
        """Return the command for a request whose connection is closed after the answer.

        A URL that ends in ``[1-24]`` makes 24 requests, each on a connection of its own.
        """
        if not self.paths:
            return f"{_FETCH} --header 'Connection: close' --max-time {timeout_s} {shlex.quote(url)}"
        series = _SERIES.fullmatch(url)
        once = series[1] if series else url
        base = f"http://{urlsplit(once).netloc}"
        others = " ".join(shlex.quote(f"{base}{path}") for path in self.paths)
        fetch = f"{_FETCH} --max-time {timeout_s} --write-out '\\n' {shlex.quote(once)} {others} && echo"
        return f"sh -c {shlex.quote(f'for i in $(seq {series[2]}); do {fetch} || exit; done' if series else fetch)}"

    def read(self, output: Output) -> Output:
        """Return the output of ``command`` as an echo pod would have made it: one JSON object a line."""
        if not self.paths or output.code != 0:
            return output
        parts = [part.splitlines() for part in output.out.strip("\n").split("\n\n")]
        lines = [self.join(part) for part in parts]
        return replace(output, out="".join(f"{line}\n" for line in lines))

    def join(self, answers: Iterable[str]) -> str:
        """Return the JSON of an echo pod from the answers to a request and to ``paths``; another server's first."""
        first, *said = answers
        if not self.paths or len(said) != len(self.paths) or first.startswith("{"):
            return first
        client, name = said
        server = self.servers().get(name)
        ipv6 = client.startswith("[")
        local = (
            next((address for address in server.addresses if (address.version == 6) == ipv6), None) if server else None
        )
        return json.dumps(
            {
                "remote_addr": client,
                "local_addr": with_port(local, PORT) if local else "",
                "hostname": name,
                "node": server.node if server else "",
            }
        )


ECHO = Probe(ECHO_IMAGE, ("serve", "--port", str(PORT)))


def of_image(image: str) -> Probe:
    """Return the probe of an image: agnhost by its name, otherwise one that behaves like the lab's own.

    >>> of_image("registry.k8s.io/e2e-test-images/agnhost:2.53").args[0], of_image("hoplab.local/echo:1").args[0]
    ('netexec', 'serve')
    """
    if AGNHOST.fullmatch(image):
        return Probe(image, ("netexec", f"--http-port={PORT}", "--udp-port=-1"), PATHS)
    return replace(ECHO, image=image)
