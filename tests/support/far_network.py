"""What hoplab does in the network of another host, through SSH to it: the API's forward, requests, a server there.

    python -m tests.support.far_network URI

Runs as a user of the group libvirt on a host of ``libvirt_worlds``, beside one with ``HOST_END`` and ``MACHINE``. It
prints what it saw as JSON.
"""

from __future__ import annotations

import http.client
import json
import sys
from ipaddress import IPv4Address

from hoplab.core.errors import UnavailableError
from hoplab.core.paths import LabPaths
from hoplab.host.look import look
from hoplab.lab.api_forward import ApiForward
from hoplab.lab.port_forward import Destination
from hoplab.spec.libvirt_uri import remote_host
from hoplab.verify import external

HOST_END, MACHINE, PORT = "192.168.77.1", "192.168.77.10", 6443
# As root, on the other host: the lab network's host end, and a machine whose "API" says who asks
NETWORK = f"""
set -e
ip link add hl00000000 type bridge
ip address add {HOST_END}/24 dev hl00000000
ip address add {MACHINE}/24 dev hl00000000
ip link set hl00000000 up
exec "$1" -c '
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
http.server.ThreadingHTTPServer(("{MACHINE}", {PORT}), Handler).serve_forever()
'
"""


def main() -> None:
    uri = sys.argv[1]
    far = remote_host(uri)
    seen = look(far)
    forward = ApiForward(LabPaths("far"))
    port = forward.start(Destination(IPv4Address(MACHINE), PORT), uri)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/")
        forwarded = connection.getresponse().read().decode()
        connection.close()
    finally:
        ended = forward.stop()
    with external.serving(IPv4Address(HOST_END), "", remote=far) as outside:
        outside.get(outside.url("asked"), 30.0)
        client = outside.client_of("asked")
        fetched = outside.fetch(f"http://{MACHINE}:{PORT}/", IPv4Address(MACHINE), 30.0)
        neighbour = outside.neighbour(IPv4Address(MACHINE))
        try:
            outside.flush_neighbour(IPv4Address(MACHINE))
            flushed = ""
        except UnavailableError as error:
            flushed = error.message
    found = {
        "ranges": [str(used.network) for used in seen.ranges()],
        "skew": abs(seen.ahead_s) < 5,
        "forwarded": forwarded,
        "ended": ended,
        "client": str(client),
        "fetched": str(fetched),
        "neighbour": neighbour,
        "flushed": flushed,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
