"""The ingress controller `readable`: objects in, nginx.conf out; what nginx refuses; who tells the API what."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from hoplab.core.paths import PROJECT
from hoplab.image.readable import conf, controller, objects, status
from hoplab.image.readable.addresses import OWNER, Home
from hoplab.image.readable.controller import Controller, Nginx
from hoplab.image.readable.ingress import Complaint, wishes
from hoplab.image.readable.objects import Backend
from hoplab.spec.catalog import components
from tests.support.gateway_objects import Written, cluster, gateway
from tests.support.readable_objects import blocks, endpoints, ingress, led, listed, rules, secret, seen, service, shop

READABLE = PROJECT / "hoplab" / "image" / "readable"


def test_configuration(golden: Callable[[str, str], None]) -> None:
    found = shop()
    golden("readable.nginx.conf", conf.configuration(wishes(found)[0], found))


def test_nothing_asked(golden: Callable[[str, str], None]) -> None:
    golden("readable-empty.nginx.conf", conf.configuration([], seen()))


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx; on a lab, every reload is such a test")
def test_nginx_takes_it(tmp_path: Path) -> None:
    nginx = Nginx(tmp_path)
    found = shop()
    found["Ingress"]["shop/apps"]["spec"].pop("tls")
    assert nginx.test(conf.configuration(wishes(found)[0], found), ()) == ""


def test_only_our_class() -> None:
    ours = ingress("ours", rules("a", ("/", "Prefix", "one")))
    other = ingress("other", rules("b", ("/", "Prefix", "one")))
    other["spec"]["ingressClassName"] = "other"
    nobody = ingress("nobody", rules("c", ("/", "Prefix", "one")))
    nobody["spec"]["ingressClassName"] = "nobody"
    none = ingress("none", rules("d", ("/", "Prefix", "one")))
    del none["spec"]["ingressClassName"]
    old = ingress("old", rules("e", ("/", "Prefix", "one")))
    del old["spec"]["ingressClassName"]
    old["metadata"]["annotations"] = {"kubernetes.io/ingress.class": "nginx"}
    assert set(blocks(ours, other, nobody, none, old)) == {"", "a", "e"}


def test_a_prefix_goes_by_elements_and_the_longest_wins() -> None:
    paths = [("/", "Prefix", "one"), ("/api/", "Prefix", "two"), ("/api/login", "Prefix", "none")]
    assert led(blocks(ingress("x", rules("a", *paths)))["a"]) == [
        "/api/login/ none",
        "=/api/login none",
        "/api/ two",
        "=/api two",
        "/ one",
    ]


def test_exact_comes_before_prefix_and_the_older_ingress_first() -> None:
    young = ingress("a", rules("a", ("/x", "Exact", "two"), ("/y", "Prefix", "two")), made="2026-01-02T00:00:00Z")
    old = ingress("z", rules("a", ("/x", "Prefix", "one"), ("/y", "Prefix", "one")))
    assert led(blocks(young, old)["a"]) == ["/x/ one", "/y/ one", "=/x two", "=/y one"]


def test_without_a_host_for_all_that_nobody_names() -> None:
    found = blocks(ingress("x", rules("", ("/x", "Prefix", "one"))), ingress("y", rules("a", ("/", "Prefix", "two"))))
    assert led(found[""]) == ["/x/ one", "=/x one"] and not found[""].whole
    assert led(found["a"]) == ["/ two"] and found["a"].whole


def test_the_default_backend() -> None:
    backend = "{defaultBackend: {service: {name: one, port: {number: 80}}}}"
    found = blocks(ingress("x", backend), ingress("y", rules("a", ("/x", "Prefix", "two"))))
    assert led(found[""]) == ["/ one"]
    assert led(found["a"]) == ["/x/ two", "=/x two", "/ one"]


def test_a_wildcard_is_for_one_label() -> None:
    found = blocks(ingress("x", rules("*.yash.com", ("/", "Prefix", "one"))))
    assert found["*.yash.com"].name == r"~^[^.]+\.yash\.com$"


def test_a_certificate_is_for_its_hosts() -> None:
    spec = yaml.safe_load(rules("a.yash.com", ("/", "Prefix", "one")))
    spec["rules"] += yaml.safe_load(rules("b.yash.com", ("/", "Prefix", "one")))["rules"]
    spec["rules"] += yaml.safe_load(rules("b.else.com", ("/", "Prefix", "one")))["rules"]

    def certified(*hosts: str) -> set[str]:
        tls = [{"hosts": list(hosts), "secretName": "my-tls-secret"} if hosts else {"secretName": "my-tls-secret"}]
        found = blocks(ingress("x", yaml.safe_dump({**spec, "tls": tls})))
        return {host for host, server in found.items() if server.certificate}

    assert certified("a.yash.com") == {"a.yash.com"}
    assert certified("*.yash.com") == {"a.yash.com", "b.yash.com"}
    assert certified() == {"a.yash.com", "b.yash.com", "b.else.com"}


def test_a_changed_certificate_is_another_file() -> None:
    one, two = (objects.Certificate("shop/s", text) for text in ("one", "two"))
    assert one.file != two.file and one.file.startswith("shop.s.")
    assert "one" not in repr(one), "a key must not get into a log"


def test_what_is_not_there_is_told() -> None:
    spec = yaml.safe_load(rules("a", ("/", "Prefix", "gone")))
    asked = ingress("x", yaml.safe_dump({**spec, "tls": [{"hosts": ["a"], "secretName": "gone"}]}))
    sites, complaints = wishes(seen(asked))
    assert [(complaint.ingress, complaint.reason, complaint.message) for complaint in complaints] == [
        ("shop/x", "NoService", "there is no port 80 of a service shop/gone"),
        ("shop/x", "NoSecret", "there is no secret shop/gone of type kubernetes.io/tls"),
    ]
    assert "location / { return 503; }" in conf.configuration(sites, seen(asked))


def test_endpoints_by_the_ports_name_and_number() -> None:
    found = seen()
    found["Service"]["shop/one"] = service("one", "http")
    found["EndpointSlice"] = listed(
        endpoints("one", "10.244.0.3", port="http"), endpoints("one", "10.244.0.4", port="m")
    )
    for port in ("80", "http"):
        assert objects.endpoints(Backend("shop", "one", port), found) == ["10.244.0.3:8080"]
    assert objects.endpoints(Backend("shop", "one", "81"), found) == []
    assert objects.endpoints(Backend("else", "one", "80"), found) == []


def test_ending_pods_serve_only_where_there_are_no_others() -> None:
    ending = {"ready": False, "serving": True, "terminating": True}
    one, found = Backend("shop", "one", "80"), seen()
    found["EndpointSlice"] = listed(endpoints("one", "10.244.0.3", conditions=ending), endpoints("one", "10.244.0.4"))
    assert objects.endpoints(one, found) == ["10.244.0.4:8080"]
    found["EndpointSlice"] = listed(endpoints("one", "10.244.0.3", conditions=ending))
    assert objects.endpoints(one, found) == ["10.244.0.3:8080"]
    found["EndpointSlice"] = listed(endpoints("one", "10.244.0.3", conditions={"ready": False, "serving": False}))
    assert objects.endpoints(one, found) == []


def test_ipv6_endpoints() -> None:
    slices = {**endpoints("one", "fd00::3"), "addressType": "IPv6"}
    found = seen(EndpointSlice=listed(slices))
    assert objects.endpoints(Backend("shop", "one", "80"), found) == ["[fd00::3]:8080"]


@pytest.mark.parametrize(
    ("text", "word"),
    [("/login", "/login"), ("/a b", '"/a b"'), ('/"; }', r'"/\"; }"'), ("/a\\", r'"/a\\"'), ("/ä", '"/ä"')],
)
def test_a_path_stays_one_word(text: str, word: str) -> None:
    assert conf.quoted(text) == word


# --- nginx, played by a script that refuses what has BAD in it


@pytest.fixture
def nginx(tmp_path: Path) -> Nginx:
    program = tmp_path / "nginx"
    program.write_text(
        """#!/bin/sh
        while [ "$1" ]; do case $1 in -c) file=$2 ;; -t) test=1 ;; esac; shift; done
        [ "$test" ] || exec sleep 600
        for bad in $(grep -o 'tls/[^;]*' "$file"; echo conf); do
            if grep -qs BAD "$(dirname "$file")/$bad" "$file"; then echo "nginx: [emerg] bad: $bad" >&2; exit 1; fi
        done
        """
    )
    program.chmod(0o755)
    return Nginx(tmp_path / "run", str(program))


@pytest.fixture
def served(nginx: Nginx, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is sent to nginx; it is not started."""
    said: list[str] = []

    class Started:
        def __init__(self, _command: list[str]) -> None:
            said.append("start")

        def send_signal(self, number: int) -> None:
            said.append("reload" if number == 1 else f"signal {number}")

    monkeypatch.setattr(subprocess, "Popen", Started)
    monkeypatch.setattr(Nginx, "_watch", lambda _self: None)
    return said


def with_tls(name: str, host: str, using: str) -> dict[str, Any]:
    spec = yaml.safe_load(rules(host, ("/", "Prefix", "one")))
    return ingress(name, yaml.safe_dump({**spec, "tls": [{"hosts": [host], "secretName": using}]}))


def test_it_starts_once_and_reloads_only_what_changed(nginx: Nginx, served: list[str]) -> None:
    nginx.test = lambda text, certificates: ""  # type: ignore[method-assign]
    (nginx.folder / "nginx.conf.new").touch()
    assert nginx.serve("one", ()) == "" and nginx.serve("one", ()) == ""
    (nginx.folder / "nginx.conf.new").touch()
    assert nginx.serve("two", ()) == ""
    assert served == ["start", "reload"]


def test_a_bad_rule_does_not_harm_the_others(nginx: Nginx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "serve", lambda text, certificates: _serve(nginx, text, certificates))
    subject = Controller(nginx)
    good, bad = with_tls("good", "good.com", "my-tls-secret"), with_tls("bad", "bad.com", "garbage")
    found = seen(good, bad, Secret=listed(secret("my-tls-secret"), secret("garbage", "BAD")))
    (complaint,) = subject.apply(found)
    assert (complaint.ingress, complaint.reason) == ("shop/bad", "Rejected") and "bad: tls/" in complaint.message
    assert "good.com" in nginx.served and "bad.com" not in nginx.served
    assert subject.apply(found) == [complaint], "it stays known"

    found["Secret"] = listed(secret("my-tls-secret"), secret("garbage", "fine again"))
    assert subject.apply(found) == []
    assert "bad.com" in nginx.served

    before = nginx.served
    found["Secret"] = listed(secret("my-tls-secret"), secret("garbage", "BAD once more"))
    assert [complaint.ingress for complaint in subject.apply(found)] == ["shop/bad"]
    assert nginx.served == before, "what was good of it is served on"

    found["EndpointSlice"] = listed(endpoints("one", "10.244.7.7"))
    subject.apply(found)
    assert "10.244.7.7" in nginx.served, "endpoints are followed also while a rule is bad"

    found["Ingress"] = listed(good)
    assert subject.apply(found) == []
    assert "bad.com" not in nginx.served


def test_bad_only_together(nginx: Nginx, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody can be blamed: all stays as it was."""
    monkeypatch.setattr(nginx, "serve", lambda text, _certificates: "together" if "b.com" in text else "")
    subject = Controller(nginx)
    a, b = (ingress(name, rules(f"{name}.com", ("/", "Prefix", "one"))) for name in ("a", "b"))
    assert subject.apply(seen(a)) == []
    assert subject.apply(seen(a, b)) == [Complaint("shop/b", "Rejected", "together")]
    assert "what was served before stays" in capsys.readouterr().err


def test_a_certificate_of_a_gateway_that_nginx_cannot_use(nginx: Nginx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "serve", lambda text, certificates: _serve(nginx, text, certificates))
    subject = Controller(nginx)
    https = "port: 443, protocol: HTTPS"
    listeners = f"""[{{name: good, {https}, hostname: a.com, tls: {{certificateRefs: [{{name: my-tls-secret}}]}}}},
                     {{name: bad, {https}, hostname: b.com, tls: {{certificateRefs: [{{name: garbage}}]}}}}]"""
    found = cluster(gateway(listeners=listeners), Secret=listed(secret("my-tls-secret"), secret("garbage", "BAD")))
    assert subject.apply(found) == [] and subject.refused == ""
    assert [listener.served for listener in subject.gateways.listeners] == [True, False]
    assert subject.gateways.listeners[1].problems[0].reason == "InvalidCertificateRef"
    assert "a.com" in nginx.served and "b.com" not in nginx.served
    found["Secret"] = listed(secret("my-tls-secret"), secret("garbage", "fine again"))
    subject.apply(found)
    assert "b.com" in nginx.served and subject.unusable == set()


def test_gateways_get_their_services_and_their_status(nginx: Nginx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "serve", lambda *_: "")
    subject, written = Controller(nginx, Home("i", "app=ingress")), Written()
    found = cluster(gateway())
    of_another = {"metadata": {"namespace": "i", "name": "old", "annotations": {OWNER: "shop/gone"}}, "spec": {}}
    found["Service"] = {**found["Service"], "i/old": of_another}
    subject.apply(found)
    controller.tell_gateways(written, subject, found, ["192.168.77.20"], datetime(2026, 1, 1, tzinfo=UTC))
    statuses = "/apis/gateway.networking.k8s.io/v1"
    assert written.asked == [
        ("POST", "/api/v1/namespaces/i/services"),
        ("DELETE", "/api/v1/namespaces/i/services/old"),
        ("PATCH", f"{statuses}/gatewayclasses/readable/status"),
        ("PATCH", f"{statuses}/namespaces/shop/gateways/way/status"),
    ]
    controller.tell_gateways(written, subject, seen(), [], datetime(2026, 1, 1, tzinfo=UTC))
    assert len(written.asked) == 4, "there is no Gateway API"


def test_what_is_watched() -> None:
    few, many = (controller.watched("i", "app=ingress", gateway_api=given) for given in (False, True))
    assert few["Pod"] == ("/api/v1/namespaces/i/pods", {"labelSelector": "app=ingress"})
    assert set(many) - set(few) == {"GatewayClass", "Gateway", "HTTPRoute", "ReferenceGrant", "Namespace"}
    assert set(few) == set(seen())


def _serve(nginx: Nginx, text: str, certificates: Any) -> str:
    """Test it for real, and remember it."""
    if text != nginx.served and (why := nginx.test(text, set(certificates))):
        return why
    nginx.served = text
    return ""


def test_keys_are_for_us_only(nginx: Nginx) -> None:
    certificate = objects.Certificate("shop/s", "a key")
    assert nginx.test("fine", [certificate]) == ""
    file = nginx.folder / "tls" / certificate.file
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("a key", 0o600)
    assert file.parent.stat().st_mode & 0o777 == 0o700


# --- what the API is told


def pod(name: str, address: str, ready: str = "True", **metadata: str) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready}]
    return {
        "metadata": {"namespace": "i", "name": name, **metadata},
        "status": {"hostIP": address, "conditions": conditions},
    }


def test_the_first_ready_pod_writes_the_nodes_addresses() -> None:
    asked = ingress("x", rules("a", ("/", "Prefix", "one")))
    pods = listed(
        pod("a", "192.168.77.22", "False"),
        pod("b", "192.168.77.21"),
        pod("c", "192.168.77.20"),
        pod("0", "192.168.77.23", deletionTimestamp="now"),
    )
    found = status.told(seen(asked, Pod=pods), (), "b")
    assert found
    assert found.statuses == {"shop/x": [{"ip": "192.168.77.20"}, {"ip": "192.168.77.21"}]}
    assert status.told(seen(asked, Pod=pods), (), "c") is None
    assert status.told(seen(asked), (), "b") is None


def test_a_status_that_is_right_is_not_written_again() -> None:
    known = {"loadBalancer": {"ingress": [{"ip": "192.168.77.20"}]}}
    asked = ingress("x", rules("a", ("/", "Prefix", "one")), status=known)
    found = status.told(seen(asked, Pod=listed(pod("a", "192.168.77.20"))), (), "a")
    assert found and found.statuses == {}


def test_what_is_ours_no_more_loses_its_status() -> None:
    known = {"loadBalancer": {"ingress": [{"ip": "192.168.77.20"}]}}
    asked = ingress("x", rules("a", ("/", "Prefix", "one")), status=known)
    asked["spec"]["ingressClassName"] = "other"
    found = seen(asked, Pod=listed(pod("a", "192.168.77.20")))
    for written in ({"shop/x"}, set[str]()):
        telling = status.told(found, (), "a", written)
        assert telling and telling.statuses == {name: [] for name in written}
    known["loadBalancer"]["ingress"][0]["ip"] = "192.168.77.99"
    telling = status.told(found, (), "a", {"shop/x"})
    assert telling and telling.statuses == {}, "somebody else has written it"


def test_what_is_wrong_for_a_moment_only_is_not_told() -> None:
    one, two = (Complaint("shop/x", "NoService", text) for text in ("one", "two"))
    since: dict[Complaint, float] = {}
    assert status.due([one], since, 100.0) == []
    assert status.due([one, two], since, 100.0 + status.GRACE) == [one]
    assert status.due([two], since, 101.0 + status.GRACE) == []
    assert status.due([one, two], since, 101.0 + 2 * status.GRACE) == [two], "it began again"


def test_an_event_as_describe_shows_it() -> None:
    asked = ingress("x", rules("a", ("/", "Prefix", "one")))
    found = status.event(asked, Complaint("shop/x", "Rejected", "why"), datetime(2026, 1, 2, tzinfo=UTC))
    assert found["involvedObject"]["uid"] == "uid-x"
    assert (found["type"], found["reason"], found["message"]) == ("Warning", "Rejected", "why")
    assert found["lastTimestamp"] == "2026-01-02T00:00:00Z"


def test_the_container_has_all_that_it_imports(tmp_path: Path) -> None:
    """The standard library is enough where its files are; the first thing it lacks is what a pod is given."""
    image = next(image for image in components().images if image.name.startswith("hoplab.local/ingress-readable:"))
    for file, source in image.files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(READABLE / source.rpartition("/")[2], tmp_path / file)
    _, *arguments = image.entrypoint
    environment = {name: value for name, value in os.environ.items() if not name.startswith("P")}
    ran = subprocess.run(
        [sys.executable, "-S", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.stderr.splitlines()[-1] == "KeyError: 'POD_NAMESPACE'", ran.stderr
