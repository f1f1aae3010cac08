"""The Kubernetes API with the standard library: HTTPS requests, JSON responses, and watches.

    Api      -> one request on one connection, as the pod's service account
    follow() -> the objects of one kind, listed once and then kept up to date by a watch

A list has a resourceVersion, and a watch continues from it: one JSON event on each line, until the server or the
network ends the response. Each event has the next version, so the next watch misses nothing. BOOKMARK events have only
a version: without them the version of objects that never change would become too old. Where it is too old the API
server answers 410 Gone, and everything is listed again.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlencode

Object = Mapping[str, Any]

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # the kubelet renews the files in it
TIMEOUT = 30.0  # seconds without an answer; an emulated node takes some for a TLS handshake
WATCH = 600  # seconds after which the API server ends a watch
DELAY, LONGEST_DELAY = 0.25, 30.0  # seconds before the next attempt: the first, and what its doubles are limited to
MERGE_PATCH = "application/merge-patch+json"
NOT_FOUND, GONE = 404, 410
# A watch only receives: where its node (conntrack) forgets the connection, no packet tells. So the kernel sends probes
# after 10 s without packets.
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


class Refused(Exception):
    """The API server refused a request; ``code`` is the HTTP status, which an event of a watch may have too."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Api:
    """One API server. Requests raise Refused, OSError, HTTPException, or ValueError for what is not JSON."""

    def __init__(self, host: str, port: int, account: Path = SERVICE_ACCOUNT) -> None:
        self.host = host
        self.port = port
        self.account = account  # folder with `token` and `ca.crt`

    def get(self, path: str, query: Mapping[str, str]) -> Any:
        """Return an object or a list of them."""
        with self._response("GET", f"{path}?{urlencode(query)}") as response:
            return json.loads(response.read())

    def post(self, path: str, body: Object) -> None:
        """Create an object."""
        with self._response("POST", path, body, "application/json") as response:
            response.read()

    def patch(self, path: str, body: Object) -> None:
        """Change fields of an object, of its status where the path ends with that: a list replaces the one before."""
        with self._response("PATCH", path, body, MERGE_PATCH) as response:
            response.read()

    def delete(self, path: str) -> None:
        """Remove an object; the API server may still wait for somebody before it is gone."""
        with self._response("DELETE", path) as response:
            response.read()

    def watch(self, path: str, version: str, query: Mapping[str, str]) -> Iterator[Object]:
        """Yield events ``{"type": "ADDED", "object": {...}}`` since that version, until the response ends."""
        wanted = {**query, "watch": "1", "allowWatchBookmarks": "1", "timeoutSeconds": str(WATCH)}
        with self._response("GET", f"{path}?{urlencode({**wanted, 'resourceVersion': version})}", quiet=WATCH) as lines:
            for line in lines:
                if not line.endswith(b"\n"):  # the connection was cut in the middle of an event
                    raise ConnectionAbortedError("the response ends within a line")
                found = json.loads(line)
                if found["type"] == "ERROR":
                    raise Refused(found["object"].get("code", 0), found["object"].get("message", ""))
                yield found

    @contextlib.contextmanager
    def _response(
        self, method: str, path: str, body: Object | None = None, media_type: str = "", quiet: float = 0.0
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request; ``quiet`` is for how many seconds more than TIMEOUT the response may say nothing.

        Token and CA are read for every request, because they are renewed while the pod runs.
        """
        trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and name, and trusts only what is loaded
        trusted.load_verify_locations(self.account / "ca.crt")
        headers = {"Authorization": f"Bearer {(self.account / 'token').read_text().strip()}"}
        if body is not None:
            headers["Content-Type"] = media_type
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=TIMEOUT, context=trusted)
        with contextlib.closing(connection):
            connection.connect()
            for option in KEEPALIVE:
                connection.sock.setsockopt(*option)
            connection.sock.settimeout(TIMEOUT + quiet)
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            if response.status not in (200, 201):
                raise Refused(response.status, _message(response.read(10_000)))
            yield response


def _message(body: bytes) -> str:
    """Return the message of a Status object; of anything else the start of its text."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()[:200]


def key(item: Object) -> str:
    """Return "namespace/name"; "/name" for what has no namespace."""
    return f"{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"


def follow(
    api: Api,
    path: str,
    query: Mapping[str, str],
    changed: Callable[[Mapping[str, Object]], None],
    sleep: Callable[[float], None] = time.sleep,
) -> NoReturn:
    """Call ``changed`` with all objects of one kind (by ``key``): when they are listed, and after each change."""
    objects: dict[str, Object] = {}
    version = ""  # "" where everything is to be listed
    delay = DELAY
    while True:
        try:
            if not version:
                found = api.get(path, query)
                objects = {key(item): item for item in found["items"]}
                version = found["metadata"]["resourceVersion"]
                changed(objects)
            for event in api.watch(path, version, query):
                item = event["object"]
                if event["type"] != "BOOKMARK":
                    objects = {name: known for name, known in objects.items() if name != key(item)}
                    objects |= {} if event["type"] == "DELETED" else {key(item): item}
                    changed(objects)
                version = item["metadata"]["resourceVersion"]
                delay = DELAY  # only now: a list succeeds also where each watch fails at once
        except OSError as error:  # no connection, or a cut one: what was seen until now holds
            say(f"watching {path}: {error}")
        except Refused as error:
            say(f"watching {path}: {error}")
            version = "" if error.code in (GONE, NOT_FOUND) else version
            if error.code == NOT_FOUND:  # the API has no such kind (any more), so there is no such object
                changed({})
        except Exception as error:  # an answer that makes no sense: nothing seen until now is certain
            say(f"watching {path}: {type(error).__name__}: {error}")
            version = ""
        sleep(delay * random.uniform(0.5, 1.0))  # so that the pods of all nodes do not come back at once
        delay = min(2 * delay, LONGEST_DELAY)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
