"""Faults of ingress: objects, the controller's configuration, and connections to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hoplab.observe.snapshot import Node
from hoplab.verify import workload
from hoplab.verify.objects import INGRESSES
from hoplab.verify.session import LabSession
from tests.system.faults.commands import on_first, on_node
from tests.system.faults.fault import Broken, Fault
from tests.system.faults.objects import edited, made
from tests.system.faults.site import Site, wait


def answered_by(service: str, url: str) -> Callable[[LabSession, Node], bool]:
    """Whether a URL is answered by a pod of the service."""

    def found(session: LabSession, node: Node) -> bool:
        return session.app(url, node).to in session.endpoints(service)

    return found


def rules_of(item: dict[str, Any], host: str) -> list[dict[str, Any]]:
    """The paths of a host in an Ingress."""
    paths: list[dict[str, Any]] = next(rule for rule in item["spec"]["rules"] if rule["host"] == host)["http"]["paths"]
    return paths


def led_astray(item: dict[str, Any]) -> None:
    rules_of(item, workload.HOST2)[0]["backend"]["service"]["name"] = workload.APP1


def asking_for_larger_bodies(item: dict[str, Any]) -> None:
    item["metadata"].setdefault("annotations", {})["nginx.ingress.kubernetes.io/proxy-body-size"] = "8m"


def forgotten(path: str) -> Callable[[dict[str, Any]], None]:
    def edit(item: dict[str, Any]) -> None:
        paths = rules_of(item, workload.HOST1)
        paths[:] = [known for known in paths if known["path"] != path]

    return edit


@contextmanager
def swapped_secret(site: Site) -> Iterator[None]:
    """my-tls-secret holds what app2-tls-secret holds."""
    secrets = f"/api/v1/namespaces/{workload.NAMESPACE}/secrets"
    _, other = site.session.api("GET", f"{secrets}/app2-tls-secret")
    url = f"https://{workload.HOST1}/"
    with site.session.edited(f"{secrets}/my-tls-secret", lambda item: item.update(data=other["data"])):
        for node in site.session.snapshot.nodes:
            wait(lambda node=node: not site.session.http_get(url, node).status)  # type: ignore[misc]
        yield


@contextmanager
def another_address(site: Site) -> Iterator[None]:
    """The status of an Ingress has another address than its controller, which stands still."""
    for node in site.session.snapshot.nodes:
        site.run("kill -STOP $(pgrep -f '[r]eadable.controller')", node)
    try:
        _, item = site.session.api("GET", f"{INGRESSES}/apps")
        status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
        code, answer = site.session.api("PUT", f"{INGRESSES}/apps/status", {**item, "status": status})
        assert code == 200, answer
        yield
    finally:
        for node in site.session.snapshot.nodes:
            site.run("kill -CONT $(pgrep -f '[r]eadable.controller')", node)


# Of pgrep's patterns: in brackets, a letter matches itself, and a command does not match the shell that it is in.
def nginx_conf(edit: str, reload: str = "true") -> Broken:
    """The configuration of the controller on the node is changed behind its back, and put back."""
    file = "/proc/$(pgrep -f '[n]ginx: master')/root/run/nginx/nginx.conf"
    return on_node(f"cp {file} $saved; {edit} {file}; {reload}", f"cp $saved {file}; {reload}; rm $saved")


EVERY_SEVENTH = (
    "-d {first_front} -p tcp --syn --dport 8080 -m statistic --mode nth --every 7 --packet 0 "
    "-j REJECT --reject-with tcp-reset"
)
# nginx reads its configuration again; done when the workers that served the old one take no more connections
RELOAD = (
    "old=$(pgrep -f '[n]ginx: worker process$'); kill -HUP $(pgrep -f '[n]ginx: master'); "
    "while pgrep -f '[n]ginx: worker process$' | grep -qxF \"$old\"; do sleep 0.2; done"
)

OTHER_RULES: dict[str, Any] = {
    "first": "kubectl_shows_address_and_rules",
    "first_says": "apps has other rules than it was given",
}


FAULTS = (
    Fault(
        "a class that nobody serves gets a controller",
        made(
            "/apis/networking.k8s.io/v1/ingressclasses",
            lambda session: {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "IngressClass",
                "metadata": {"name": "nobody"},
                "spec": {"controller": session.controller.CONTROLLER},
            },
            lambda session, node: session.http_get(f"http://{workload.ORPHAN}/", node).status == 200,
        ),
        (),
        "orphan",
        traffic=("an_ingress_alone_does_nothing",),
    ),
    Fault(  # ingress-nginx 1824, 5167
        "an Ingress asks for larger bodies in another controller's words",
        edited(f"{INGRESSES}/apps", asking_for_larger_bodies, lambda _session, _node: True),
        (),
        "apps asks for 8m by nginx.ingress.kubernetes.io/proxy-body-size, but",
        traffic=("bodies_and_silence_have_limits",),
    ),
    Fault(
        "a host leads to the other service",
        edited(f"{INGRESSES}/apps", led_astray, answered_by(workload.APP1, f"http://{workload.HOST2}/")),
        (),
        "answers for app2.yash.com, which is no pod of app2-service",
        traffic=("the_host_decides", "the_configuration_is_the_rules", "kubectl_shows_address_and_rules"),
        **OTHER_RULES,
    ),
    Fault(
        "a path has no rule",
        edited(f"{INGRESSES}/apps", forgotten("/login"), answered_by(workload.APP1, f"http://{workload.HOST1}/login")),
        (),
        "answers for app1.yash.com/login, which is no pod of app2-service",
        traffic=("the_path_decides", "the_configuration_is_the_rules", "kubectl_shows_address_and_rules"),
        **OTHER_RULES,
    ),
    Fault(
        "the longer path has no rule",
        edited(
            f"{INGRESSES}/apps", forgotten("/api/v1"), answered_by(workload.APP2, f"http://{workload.HOST1}/api/v1")
        ),
        (),
        "answers for app1.yash.com/api/v1/users, which is no pod of app1-service",
        traffic=("the_longest_path_wins",),
    ),
    Fault(
        "a rule is for every host",
        made(
            INGRESSES,
            lambda _live: workload.ingress("everybody", {"": {"/": workload.APP1}}),
            lambda session, node: session.http_get("http://unknown.yash.com/", node).status == 200,
        ),
        (),
        "answers for unknown.yash.com with 200, not with 404",
        traffic=("an_unknown_host_gets_404",),
    ),
    Fault(
        "a secret holds another site's certificate",
        swapped_secret,
        ("secrets_of_sites_are_certificates_in_date",),
        "Ingress hoplab-verify/apps is for app2.yash.com, not for app1.yash.com",
        traffic=("the_certificate_is_chosen_by_name", "one_address_for_all"),
    ),
    Fault(
        "a node resets what comes to its port 80",
        on_node(
            "iptables -I FORWARD -d {front} -p tcp --dport 8080 -j REJECT --reject-with tcp-reset",
            "iptables -D FORWARD -d {front} -p tcp --dport 8080 -j REJECT --reject-with tcp-reset",
        ),
        (),
        "{node} answers http://app1.yash.com/ with no answer",
        traffic=("one_address_for_all",),
    ),
    Fault(
        "a client is masked before the controller",
        on_node(
            "iptables -t nat -I POSTROUTING -s {gateway} -d {front} -p tcp --dport 8080 -j MASQUERADE",
            "iptables -t nat -D POSTROUTING -s {gateway} -d {front} -p tcp --dport 8080 -j MASQUERADE",
        ),
        (),
        "asked, not {gateway}",
        traffic=("the_pod_is_told_who_asked", "the_log_has_both_ends"),
    ),
    Fault(
        "nginx.conf was changed by hand",
        nginx_conf("sed -i '0,/server [0-9.]*:8080;/s//server 10.244.9.9:8080;/'"),
        (),
        "10.244.9.9:8080",
        traffic=("the_configuration_is_the_rules",),
    ),
    Fault(
        "the controller goes by a ClusterIP",
        nginx_conf("sed -i 's/server [0-9.]*:8080;/server {app2}:80;/'", RELOAD),
        (),
        "goes by a ClusterIP",
        traffic=("no_cluster_ip_on_the_way",),
    ),
    Fault(
        "an Ingress has another address than its controller",
        another_address,
        (),
        "apps has the addresses 192.0.2.1, not those of the nodes",
        traffic=("kubectl_shows_address_and_rules",),
    ),
    Fault(
        "some connections to a controller are reset",
        on_first(f"iptables -I FORWARD {EVERY_SEVENTH}", f"iptables -D FORWARD {EVERY_SEVENTH}"),
        (),
        "requests were lost",
        traffic=("a_change_loses_no_request",),
    ),
)
