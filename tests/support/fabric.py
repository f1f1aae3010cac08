"""What the pods of NGINX Gateway Fabric have below /etc/nginx/conf.d, in the form of its release 2.6.5.

The form is that of the release's templates as they are published; it was not captured from a running one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

OF_ITS_OWN = """\
map $http_host $gw_api_compliant_host {
    '' $host;
    default $http_host;
}
map $request_uri $request_uri_path {
  "~^(?P<path>[^?]*)(\\?.*)?$"  $path;
}
server {
    listen 8081;

    location = /readyz {
        access_log off;
        return 200;
    }
}
server_tokens off;
"""
NOBODY = """\
server {
    listen unix:/var/run/nginx/nginx-503-server.sock;
    access_log off;

    return 503;
}
upstream invalid-backend-ref {
    random two least_conn;

    server unix:/var/run/nginx/nginx-500-server.sock;
}
"""


def upstream(name: str, *servers: str) -> str:
    lines = "\n".join(f"    server {server};" for server in servers)
    return f"upstream {name} {{\n    random two least_conn;\n    zone {name} 512k;\n{lines}\n    keepalive 16;\n}}\n"


def location(words: str, to: str) -> str:
    internal = words.startswith("/_")
    return (
        f"    location {words} {{\n{'        internal;' if internal else ''}\n        proxy_http_version 1.1;\n"
        f'        proxy_set_header Host "$gw_api_compliant_host";\n'
        f"        proxy_pass http://{to}{'$request_uri' if internal else ''};\n    }}\n"
    )


def matching(words: str, key: str) -> str:
    """A location whose rules ask for more than the path."""
    return (
        f"    location {words} {{\n        set $match_key {key};\n        js_content httpmatches.redirect;\n"
        "        proxy_http_version 1.1;\n    }\n"
    )


def http_conf(
    servers: Mapping[str, Sequence[str]],
    *upstreams: str,
    matches: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> str:
    """Return http.conf with these locations of each host, and matches.json behind it."""
    blocks = "".join(
        f"server {{\n    listen 80;\n\n    server_name {host};\n{''.join(locations)}}}\n"
        for host, locations in servers.items()
    )
    begin = "js_preload_object matches from /etc/nginx/conf.d/matches.json;\n"
    default = "server {\n    listen 80 default_server;\n    default_type text/html;\n    return 404;\n}\n"
    text = f"{OF_ITS_OWN}{begin}{default}{blocks}{NOBODY}{''.join(upstreams)}"
    return text + json.dumps(matches or {}, separators=(",", ":"))
