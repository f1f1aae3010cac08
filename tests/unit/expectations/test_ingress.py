"""What is known of ingress controllers: how their configuration and their log are read."""

from __future__ import annotations

import json

import pytest

from hoplab.core.errors import LabError
from hoplab.expectations import ingress
from hoplab.expectations.ingress import Access, haproxy, ingress_nginx, nginx, nginx_conf, readable, traefik
from hoplab.image.readable import objects
from tests.support.files import GOLDEN

CONF = (GOLDEN / "readable.nginx.conf").read_text()


def test_by_name() -> None:
    assert ingress.get_controller("readable").NAMESPACE == readable.NAMESPACE
    with pytest.raises(
        LabError,
        match=r"there is no ingress controller 'other'; known: haproxy, ingress-nginx, nginx, readable, traefik$",
    ) as failed:
        ingress.get_controller("other")
    assert failed.value.remedy == "write hoplab/expectations/ingress/other.py"


def test_the_module_names_the_controller_that_is_there() -> None:
    assert readable.CONTROLLER == objects.CONTROLLER


def test_server_blocks() -> None:
    found = {server.host: server.paths for server in readable.served(CONF)}
    assert found["app1.yash.com"] == {
        "/login": ("10.244.1.4:8080",),
        "/api": (),
        "/": ("10.244.0.3:8080", "10.244.1.3:8080"),
    }
    assert found[r"~^[^.]+\.yash\.com$"] == {'/a b"; }': ("10.244.1.4:8080",), "/": ()}
    assert found[""] == {"/": ()}


def test_quotes_comments_and_words() -> None:
    found = nginx_conf.parse('a \'b; c\' "d \\" e"; # f;\ng ${h}i { j k; } l')
    assert [directive.words for directive in found.block] == [("a", "b; c", 'd " e'), ("g", "${h}i")]
    assert found.value("j") == ("k",) and found.value("x") == ()


def test_limits_are_of_the_innermost_block() -> None:
    server = (
        "server { server_name a; client_max_body_size 2m; location / { proxy_read_timeout 1m30s; } location /b { } }"
    )
    (found,) = nginx_conf.served(f"http {{ client_max_body_size 8m; proxy_read_timeout 5; {server} }}")
    root, below = found.limits["/"], found.limits["/b"]
    assert (root.body, root.silence, below.silence) == (2 * 1024**2, 90, 5)
    assert root.body_from == "client_max_body_size 2m (server of its configuration)"
    assert root.silence_from == "proxy_read_timeout 1m30s (location of its configuration)"
    assert below.silence_from == "proxy_read_timeout 5 (http of its configuration)"


def test_limits_that_are_nowhere_are_those_of_nginx() -> None:
    (found,) = nginx_conf.served("server { server_name a; location / { } }")
    limits = found.limits["/"]
    assert (limits.body, limits.silence) == (1024**2, 60)
    assert limits.body_from == "client_max_body_size 1m (nginx's default)"


@pytest.mark.parametrize(
    ("text", "wanted"), [("8m", 8 * 1024**2), ("1K", 1024), ("70", 70), ("0", None), ("8x", None), ("", None)]
)
def test_sizes(text: str, wanted: int | None) -> None:
    assert nginx_conf.size(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("60s", 60), ("60", 60), ("1h 30m", 5400), ("500ms", 0.5), ("1x", None), ("", None), ("s", None)],
)
def test_times(text: str, wanted: float | None) -> None:
    assert nginx_conf.seconds(text) == wanted


@pytest.mark.parametrize("text", ["}", "a { b", "server { location", ";"])
def test_half_a_file(text: str) -> None:
    nginx_conf.served(text)


def test_access_log() -> None:
    line = (
        '192.168.77.1 https://app1.yash.com "GET /login?a=b HTTP/1.1" 200 '
        "-> shop.one.80 10.244.1.3:8080, 10.244.0.3:8080 502, 200"
    )
    assert readable.access(f"{line}\n") == Access(
        "192.168.77.1", "app1.yash.com", "/login?a=b", 200, "10.244.0.3:8080", line
    )
    nobody = readable.access('192.168.77.1 http://x "GET / HTTP/1.1" 404 -> - - -')
    assert nobody and (nobody.status, nobody.upstream) == (404, "")
    assert readable.access("2026/11/25 13:23:15 [notice] 7#7: signal 1") is None


# --- F5's: one file per Ingress, here two of them; the layout is its own

F5 = """
upstream default-shop-app1.yash.com-one-80 {
\tzone default-shop-app1.yash.com-one-80 512k;
\tserver 10.244.0.3:8080 max_fails=1 fail_timeout=10s max_conns=0;
\tserver 10.244.1.3:8080 max_fails=1 fail_timeout=10s max_conns=0;
}
upstream default-shop-app1.yash.com-none-80 {
\tserver unix:/var/lib/nginx/nginx-502-server.sock max_fails=0;
}
server {
\tlisten 80;
\tlisten 443 ssl;
\tserver_name app1.yash.com;
\tset $resource_name "shop";
\tlocation /api {
\t\tset $service "one";
\t\tproxy_set_header X-Forwarded-Proto $scheme;
\t\tproxy_pass http://default-shop-app1.yash.com-one-80;
\t}
\tlocation = /none {
\t\tproxy_pass http://default-shop-app1.yash.com-none-80;
\t}
}
upstream default-other-app2.yash.com-two-80 {
\tserver 10.244.1.4:8080 max_fails=1 fail_timeout=10s max_conns=0;
}
server {
\tserver_name app2.yash.com;
\tlocation / {
\t\tproxy_pass http://default-other-app2.yash.com-two-80;
\t}
}
"""


def test_server_blocks_of_f5() -> None:
    found = {server.host: server.paths for server in nginx.served(F5)}
    assert found == {
        "app1.yash.com": {"/api": ("10.244.0.3:8080", "10.244.1.3:8080"), "/none": ()},
        "app2.yash.com": {"/": ("10.244.1.4:8080",)},
    }


def test_access_log_of_f5() -> None:
    line = '192.168.77.1 http://app1.yash.com "GET /login HTTP/1.1" 200 -> 10.244.1.3:8080, 10.244.0.3:8080 502, 200'
    assert nginx.access(f"{line}\n") == Access("192.168.77.1", "app1.yash.com", "/login", 200, "10.244.0.3:8080", line)
    for nobody in ("-", "unix:/var/lib/nginx/nginx-502-server.sock"):
        found = nginx.access(f'192.168.77.1 http://x "GET / HTTP/1.1" 404 -> {nobody} -')
        assert found and (found.status, found.upstream) == (404, "")
    assert nginx.access('I20261125 14:00:00.000000 1 main.go:80] Starting with flags: ["-enable-x"]') is None


# --- the community's: nginx.conf, then its endpoints

COMMUNITY = """
http {
\tupstream upstream_balancer { server 0.0.0.1; }
\tserver {
\t\tserver_name _ ;
\t\tlocation / { set $proxy_upstream_name "upstream-default-backend"; proxy_pass http://upstream_balancer; }
\t}
\tserver {
\t\tserver_name app1.yash.com ;
\t\tset $proxy_upstream_name "-";
\t\tlocation /api/ { set $service_name "one"; set $proxy_upstream_name "shop-one-80"; }
\t\tlocation = /api { set $service_name "one"; set $proxy_upstream_name "shop-one-80"; }
\t\tlocation / { set $proxy_upstream_name "shop-none-80"; }
\t}
}
"""
BACKENDS = [
    {"name": "shop-one-80", "port": 80, "endpoints": [{"address": "10.244.0.3", "port": "8080"}]},
    {"name": "shop-none-80", "port": 80, "endpoints": None},
]


def test_server_blocks_of_ingress_nginx_and_endpoints_from_its_memory() -> None:
    found = {server.host: server.paths for server in ingress_nginx.served(f"{COMMUNITY}\n{json.dumps(BACKENDS)}")}
    assert found == {"": {"/": ()}, "app1.yash.com": {"/api": ("10.244.0.3:8080",), "/": ()}}


# --- Traefik: its API is all there is


def traefik_router(rule: str, service: str) -> dict[str, object]:
    return {"entryPoints": ["web"], "service": service, "rule": rule, "status": "enabled", "using": ["web"]}


TRAEFIK = {
    "routers": {
        "api@internal": {"service": "api@internal", "rule": 'PathPrefix("/api")'},
        "shop-one@kubernetes": traefik_router('Host("app1.yash.com") && PathPrefix("/")', "shop-one-80"),
        "websecure-shop-one@kubernetes": traefik_router('Host("app1.yash.com") && PathPrefix("/")', "shop-one-80"),
        "shop-two@kubernetes": traefik_router(
            'Host("app1.yash.com") && (Path("/login") || PathPrefix("/login/"))', "shop-two-80@kubernetes"
        ),
        "shop-exact@kubernetes": traefik_router("Host(`app1.yash.com`) && Path(`/foo`)", "shop-nobody-80"),
        "all@kubernetes": traefik_router('PathPrefix("/any")', "shop-two-80"),
        "default@kubernetes": traefik_router('Host("app2.yash.com")', "shop-two-80"),
    },
    "services": {
        "api@internal": {"status": "enabled"},
        "shop-one-80@kubernetes": {
            "loadBalancer": {"servers": [{"url": "http://10.244.0.3:8080"}, {"url": "http://10.244.1.3:8080"}]}
        },
        "shop-two-80@kubernetes": {"loadBalancer": {"servers": [{"url": "http://10.244.1.4:8080"}]}},
        "shop-nobody-80@kubernetes": {"loadBalancer": {"servers": None}},
    },
}


def test_routers_of_traefik() -> None:
    found = {server.host: server.paths for server in traefik.served(f"\n{json.dumps(TRAEFIK)}")}
    assert found == {
        "app1.yash.com": {
            "/": ("10.244.0.3:8080", "10.244.1.3:8080"),
            "/login": ("10.244.1.4:8080",),
            "/foo": (),
        },
        "": {"/any": ("10.244.1.4:8080",)},
        "app2.yash.com": {"/": ("10.244.1.4:8080",)},
    }


def test_traefik_that_does_not_answer_serves_nothing() -> None:
    assert traefik.served("\n") == ()


def test_access_log_of_traefik() -> None:
    fields = {"ClientHost": "192.168.77.1", "RequestHost": "app1.yash.com", "RequestPath": "/login?a=b"}
    line = json.dumps({**fields, "DownstreamStatus": 200, "OriginStatus": 200, "ServiceAddr": "10.244.1.3:8080"})
    assert traefik.access(f"{line}\n") == Access(
        "192.168.77.1", "app1.yash.com", "/login?a=b", 200, "10.244.1.3:8080", line
    )
    nobody = traefik.access(json.dumps({**fields, "DownstreamStatus": 404}))
    assert nobody and (nobody.status, nobody.upstream) == (404, "")
    for other in ("2026-11-29T22:00:00Z INF Starting provider", '{"level":"info"}', "[1]", ""):
        assert traefik.access(other) is None


# --- HAProxy: its maps, then its statistics

HAPROXY_MAPS = """\
defaults haproxytech from other
  timeout connect 5000
  timeout server 50000
frontend http from haproxytech
  http-request set-var(txn.host_match) var(txn.host),map(maps/host.map)
app1.yash.com\t\t\tapp1.yash.com
.foo.com\t\t\t.foo.com
app1.yash.com/foo\t\t\tshop_svc_two_80
app1.yash.com/login\t\t\tshop_svc_two_80.3425367
app1.yash.com/login/\t\t\tshop_svc_two_80.3425367
app1.yash.com/\t\t\tshop_svc_one_80.3425367
app1.yash.com/none/\t\t\tshop_svc_nobody_80
.foo.com/\t\t\tshop_svc_one_80
/any/\t\t\tshop_svc_one_80
"""
HAPROXY_STATISTICS = """# pxname,svname,qcur,status,addr,
http,FRONTEND,,OPEN,,
shop_svc_one_80,SRV_1,0,no check,10.244.0.3:8080,
shop_svc_one_80,SRV_2,0,UP,10.244.1.3:8080,
shop_svc_one_80,SRV_3,0,MAINT,127.0.0.1:8080,
shop_svc_one_80,BACKEND,0,UP,,
shop_svc_two_80,SRV_1,0,no check,10.244.1.4:8080,
shop_svc_two_80,SRV_2,0,DOWN (agent),10.244.1.9:8080,
shop_svc_nobody_80,SRV_1,0,MAINT,127.0.0.1:8080,
"""


def test_maps_of_haproxy_and_servers_from_its_statistics() -> None:
    found = {server.host: server.paths for server in haproxy.served(f"{HAPROXY_MAPS}\n{HAPROXY_STATISTICS}")}
    one, two = ("10.244.0.3:8080", "10.244.1.3:8080"), ("10.244.1.4:8080",)
    assert found == {
        "app1.yash.com": {"/foo": two, "/login": two, "/": one, "/none": ()},
        "*.foo.com": {"/": one},
        "": {"/any": one},
    }


def test_haproxy_bears_silence_up_to_a_limit() -> None:
    (limits,) = {server.limits["/"] for server in haproxy.served(HAPROXY_MAPS) if server.host == "app1.yash.com"}
    assert (limits.body, limits.silence) == (None, 50)
    assert limits.silence_from == "timeout server 50000 ms (defaults of its configuration)"
    (without,) = haproxy.served("app1.yash.com/\t\t\tshop_svc_one_80\n")
    assert without.limits["/"].silence is None


def test_haproxy_that_does_not_answer_has_hosts_without_servers() -> None:
    assert {server.host: server.paths for server in haproxy.served(HAPROXY_MAPS)}["*.foo.com"] == {"/": ()}
    assert haproxy.served("") == ()


def test_access_log_of_haproxy() -> None:
    line = '192.168.77.1 http://app1.yash.com "GET /login HTTP/1.1" 200 -> 10.244.1.3:8080 200'
    assert haproxy.access(f"{line}\n") == Access(
        "192.168.77.1", "app1.yash.com", "/login", 200, "10.244.1.3:8080", line
    )
    for nobody in ("127.0.0.1:6061", "-:-"):  # its own answer of 404; a service without pods
        found = haproxy.access(f'192.168.77.1 http://x "GET / HTTP/1.1" 404 -> {nobody} 404')
        assert found and (found.status, found.upstream) == (404, "")
    assert haproxy.access("[NOTICE] (7) : Loading success.") is None
