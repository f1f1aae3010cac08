"""What the pods of NGINX Gateway Fabric have below /etc/nginx/conf.d, in the form of its release 2.6.5.

The control plane of that release made tests/support/captured/fabric-*.conf; a test compares the form with these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

OF_ITS_OWN = """\
http2 on;
map $http_host $gw_api_compliant_host {
    '' $host;
    default $http_host;
}
map $http_upgrade $connection_upgrade {
    default upgrade;
    '' close;
}
map $http_upgrade $connection_keepalive {
    default upgrade;
    '' '';
}
## Returns just the path from the original request URI.
map $request_uri $request_uri_path {
  "~^(?P<path>[^?]*)(\\?.*)?$"  $path;
}
# NGINX health check server block.
server {
    listen 8081;

    location = /readyz {
        access_log off;
        return 200;
    }
}
server_tokens off;
js_preload_object matches from /etc/nginx/conf.d/matches.json;
server {
    listen 80 default_server;
    default_type text/html;
    return 404;
}
"""
NOBODY = """\
server {
    listen unix:/var/run/nginx/nginx-503-server.sock;
    access_log off;

    return 503;
}
server {
    listen unix:/var/run/nginx/nginx-500-server.sock;
    access_log off;

    return 500;
}
"""
INVALID = """\
upstream invalid-backend-ref {


    server unix:/var/run/nginx/nginx-500-server.sock;
}
"""
HEADERS = {
    "Host": "$gw_api_compliant_host",
    "X-Forwarded-For": "$proxy_add_x_forwarded_for",
    "X-Real-IP": "$remote_addr",
    "X-Forwarded-Proto": "$scheme",
    "X-Forwarded-Host": "$host",
    "X-Forwarded-Port": "$server_port",
    "Upgrade": "$http_upgrade",
    "Connection": "$connection_keepalive",
}


def upstream(name: str, *servers: str) -> str:
    """An upstream; the 503 server is the one of a service without pods."""
    lines = "\n".join(f"    server {server};" for server in servers)
    return f"upstream {name} {{\n    random two least_conn;\n    zone {name} 512k;\n{lines}\n    keepalive 16;\n}}\n"


def location(words: str, to: str) -> str:
    internal = words.startswith("/_")
    headers = "".join(f'        proxy_set_header {name} "{value}";\n' for name, value in HEADERS.items())
    return (
        f"    location {words} {{\n{'        internal;' if internal else ''}\n        proxy_http_version 1.1;\n"
        f"{headers}        proxy_pass http://{to}{'$request_uri' if internal else ''};\n    }}\n"
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
    text = f"{OF_ITS_OWN}{blocks}{NOBODY}{''.join(upstreams)}{INVALID}"
    return text + json.dumps(matches or {}, separators=(",", ":"))
