"""Chapter 8, ingress: ``curl --resolve``, ``kubectl describe ingress``, the controller's configuration and its log."""

from __future__ import annotations

from typing import Any

import pytest

from hoplab.expectations import cni
from hoplab.observe.facts.api_ingress_classes import API_INGRESS_CLASSES
from hoplab.observe.facts.api_ingresses import API_INGRESSES
from hoplab.observe.snapshot import Snapshot
from hoplab.verify import workload
from hoplab.verify.claims import Claim, counted, listed
from hoplab.verify.session import LabSession

pytestmark = pytest.mark.remedy("kubectl describe ingress -A")

HOST1, HOST2 = workload.HOST1, workload.HOST2


@pytest.mark.needs(own_lab=True)
def test_an_ingress_alone_does_nothing(session: LabSession, claim: Claim) -> None:
    """Without a controller an Ingress has no effect: its status has no address, and no node answers for its host."""
    orphan = session.ingress("orphan")
    claim.require(not orphan.addresses, f"orphan of the class {orphan.ingress_class} has {listed(orphan.addresses)}")
    replies = {node: session.http_get(f"http://{workload.ORPHAN}/", node) for node in session.snapshot.nodes}
    for node, reply in replies.items():
        claim.require(reply.status in (0, 404), f"{node.name} answers for {workload.ORPHAN} with {reply}")
    got = listed(f"{reply} from {node.name}" for node, reply in replies.items())
    claim.saw(f"orphan is of the class {orphan.ingress_class}, which nobody serves: {workload.ORPHAN} gets {got}")


@pytest.mark.needs(ingress=True, facts=("ingress_classes",))
@pytest.mark.remedy("kubectl get ingressclasses -o yaml")
def test_one_class_is_the_default(lab: Snapshot, claim: Claim) -> None:
    """An Ingress without a class is of the default class: at most one class is the default, and one is where an Ingress
    needs it."""
    classes = {found.name: found for found in lab.api[API_INGRESS_CLASSES]}
    defaults = sorted(found.name for found in classes.values() if found.default)
    claim.require(
        len(defaults) <= 1, f"{listed(defaults)} are default IngressClasses: only one may be", *classes.values()
    )
    silent = [ingress for ingress in lab.api[API_INGRESSES] if not ingress.ingress_class]
    claim.require(
        defaults or not silent,
        f"{listed(silent)} has no class, and none of {listed(sorted(classes))} is the default",
        *classes.values(),
    )
    claim.saw(f"of {listed(sorted(classes))} {listed(defaults)} is the default, for {counted(len(silent), 'Ingress')}")


@pytest.mark.needs(ingress=True)
@pytest.mark.rests_on("the_configuration_is_the_rules")
def test_the_host_decides(session: LabSession, claim: Claim) -> None:
    """Many hosts share one address: the Host header of a request decides which service answers."""
    seen = []
    for host, paths in workload.ROUTES.items():
        answer, service = session.app(f"http://{host}/"), paths["/"]
        claim.require(
            answer.to in session.endpoints(service), f"{answer.pod} answers for {host}, which is no pod of {service}"
        )
        claim.require(answer.host == host, f"{answer.pod} was asked for the host {answer.host!r}, not for {host}")
        seen.append(f"{answer.pod} for {host}")
    claim.saw(f"{session.snapshot.nodes[0].address} sent to {listed(seen)}")


@pytest.mark.needs(ingress=True)
@pytest.mark.rests_on("the_configuration_is_the_rules")
def test_the_path_decides(session: LabSession, claim: Claim) -> None:
    """Under one host the path decides which service answers; the pod gets the same path."""
    seen = []
    for path in ("/login", "/api", "/app"):
        service = workload.ROUTES[HOST1][path]
        for asked in (path, f"{path}/", f"{path}/{session.unique_path()}"):
            answer = session.app(f"http://{HOST1}{asked}")
            claim.require(
                answer.to in session.endpoints(service),
                f"{answer.pod} answers for {HOST1}{asked}, which is no pod of {service}",
            )
            claim.require(answer.path == asked, f"{answer.pod} was asked for {answer.path}, not for {asked}")
        seen.append(f"{path} and what is below it by {answer.pod}")
    claim.saw(f"{HOST1} is answered, {listed(seen)}")


@pytest.mark.needs(ingress=True)
@pytest.mark.rests_on("the_configuration_is_the_rules")
def test_the_longest_path_wins(session: LabSession, claim: Claim) -> None:
    """Of several matching paths the longest decides. A path should match whole elements: /api does not match
    /apiary."""
    ways = {"/api/v1/users": "/api/v1", "/api/v2/users": "/api", "/apiary": "/", "/loginx": "/"}
    if not session.controller.BY_ELEMENTS:  # not every controller keeps to the specification
        ways |= {"/apiary": "/api", "/loginx": "/login"}
    for asked, path in ways.items():
        service, answer = workload.ROUTES[HOST1][path], session.app(f"http://{HOST1}{asked}")
        claim.require(
            answer.to in session.endpoints(service),
            f"{answer.pod} answers for {HOST1}{asked}, which is no pod of {service}, where {path} leads",
        )
    went = listed(f"{asked} went by the rule for {path}" for asked, path in ways.items())
    how = "" if session.controller.BY_ELEMENTS else "; this controller's paths fit by characters, not by whole elements"
    claim.saw(f"on {HOST1} {went}{how}")


@pytest.mark.needs(ingress=True)
def test_an_unknown_host_gets_404(session: LabSession, claim: Claim) -> None:
    """A host that no rule names gets 404 from the controller's default backend, and no pod gets the request."""
    path = f"/{session.unique_path()}"
    for node in session.snapshot.nodes:
        reply = session.http_get(f"http://unknown.yash.com{path}", node)
        claim.require(reply.status == 404, f"{node.name} answers for unknown.yash.com with {reply}, not with 404")
        found = session.until(lambda front=session.controller_pods[node.name]: _logged(session, front, path), bool)  # type: ignore[misc]
        claim.require(found, f"the log of the controller on {node.name} has no line for {path}")
        claim.require(not found[-1].upstream, f"{found[-1].upstream} was asked for unknown.yash.com", *found)
    claim.saw(f"unknown.yash.com gets 404 from {counted(len(session.snapshot.nodes), 'node')}; the log has {found[-1]}")


def _logged(session: LabSession, front: Any, path: str) -> list[Any]:
    """The lines of the access log for a path."""
    return [line for line in session.accesses(front) if line.path == path]


@pytest.mark.needs(ingress=True)
@pytest.mark.rests_on("the_configuration_is_the_rules", "secrets_of_sites_are_certificates_in_date")
def test_the_certificate_is_chosen_by_name(session: LabSession, claim: Claim) -> None:
    """With TLS the client names the host first (SNI) and gets the certificate of that host's secret."""
    for secret, names in workload.SITES.items():
        url = f"https://{names[0]}/"
        reply = session.http_get(url)
        claim.require(reply.status == 200, f"{url} gets {reply}")
        claim.require(
            reply.names == names, f"{url} has a certificate for {listed(reply.names)}, not the one of {secret}"
        )
        answer = session.app(url)
        claim.require(
            answer.headers.get("X-Forwarded-Proto") == ("https",),
            f"{answer.pod} is not told that it was asked by https",
            *answer.headers.items(),
        )
    stranger = session.http_get("https://unknown.yash.com/")
    claim.require(not stranger.status, f"https://unknown.yash.com/ has a trusted certificate: {stranger}")
    seen = listed(f"{names[0]} has the certificate of {secret}" for secret, names in workload.SITES.items())
    claim.saw(f"{seen}; unknown.yash.com has none: {stranger.why}")


@pytest.mark.needs(ingress=True)
@pytest.mark.rests_on("the_host_decides", "the_certificate_is_chosen_by_name")
def test_one_address_for_all(session: LabSession, claim: Claim) -> None:
    """One address serves all hosts on the ports 80 and 443, and every node has such an address."""
    urls = [f"{scheme}://{host}/" for host in workload.ROUTES for scheme in ("http", "https")]
    for node in session.snapshot.nodes:
        for url in urls:
            reply = session.http_get(url, node)
            claim.require(reply.status == 200, f"{node.name} answers {url} with {reply}")
    claim.saw(f"{listed(node.address for node in session.snapshot.nodes)} each answer {listed(urls)}")


@pytest.mark.needs(ingress=True)
@pytest.mark.rests_on("the_host_decides")
def test_the_pod_is_told_who_asked(session: LabSession, claim: Claim) -> None:
    """The pod's client is the controller; the real client's address is in the header X-Forwarded-For."""
    client = session.snapshot.setting.gateway
    for node in session.snapshot.nodes:
        answer, front = session.app(f"http://{HOST1}/", node), session.controller_pods[node.name]
        claim.require(
            answer.remote == front.address,
            f"{answer.pod} was asked by {answer.remote}, not by {front} at {front.address}",
        )
        told = answer.headers.get("X-Forwarded-For", ())
        claim.require(told == (str(client),), f"{answer.pod} is told that {listed(told)} asked, not {client}")
    claim.saw(f"{answer.pod} was asked by {answer.remote}, {front}, for {client}")


@pytest.mark.needs(ingress=True)
@pytest.mark.rests_on("kubectl_shows_address_and_rules", "pod_to_pod_is_never_translated")
def test_the_configuration_is_the_rules(session: LabSession, claim: Claim) -> None:
    """A controller turns each host into a server block of nginx, each path into a location, each service into its
    pods."""
    wanted = {service: session.endpoints(service) for service in (workload.APP1, workload.APP2)}
    for front in session.controller_pods.values():
        blocks = {block.host: block for block in session.served(front)}
        for host, paths in workload.ROUTES.items():
            claim.require(host in blocks, f"{front} has no server block for {host}", *blocks.values())
            for path, service in paths.items():
                found = blocks[host].paths.get(path, ())
                claim.require(
                    set(found) == wanted[service],
                    f"{front} sends {host}{path} to {listed(found)}, not to {listed(sorted(wanted[service]))}",
                    blocks[host],
                )
    claim.saw(f"{front} has {listed(blocks[host] for host in workload.ROUTES)}")


@pytest.mark.needs(ingress=True)
@pytest.mark.rests_on("the_pod_is_told_who_asked", "the_path_decides")
def test_the_log_has_both_ends(session: LabSession, claim: Claim) -> None:
    """The controller's access log has both ends of a request: the client with its URL, and the pod that answered."""
    client = str(session.snapshot.setting.gateway)
    for node in session.snapshot.nodes:
        path = f"/login/{session.unique_path()}"
        answer, front = session.app(f"http://{HOST1}{path}", node), session.controller_pods[node.name]
        found = session.until(lambda front=front, path=path: _logged(session, front, path), bool)  # type: ignore[misc]
        claim.require(len(found) == 1, f"the log of {front} has {counted(len(found), 'line')} for {path}", *found)
        line = found[0]
        claim.require((line.client, line.host) == (client, HOST1), f"{front} did not log {client} and {HOST1}", line)
        claim.require(
            (line.status, line.upstream) == (200, answer.to),
            f"{front} did not log that {answer.to} answered with 200",
            line,
        )
    claim.saw(f"{answer.pod} at {answer.to} answered; the log of {front} has {line}")


@pytest.mark.needs(ingress=True)
@pytest.mark.rests_on("the_configuration_is_the_rules")
def test_no_cluster_ip_on_the_way(session: LabSession, claim: Claim) -> None:
    """The controller sends to the pod's own address: no ClusterIP is involved, and no address is translated."""
    services = {session.service(name).cluster_ip: name for name in (workload.APP1, workload.APP2)}
    seen = []
    for node in session.snapshot.nodes:
        answer = session.app(f"http://{HOST1}/login/{session.unique_path()}", node)
        front = session.controller_pods[node.name]
        flows = session.flows(node, front.address, either_end=True)
        by_service = [flow for flow in flows if flow.original.dst in {str(address) for address in services}]
        claim.require(not by_service, f"{front} goes by a ClusterIP", *by_service)
        if cni.by_programs(session.snapshot):  # conntrack does not have what they pass on
            tracked = session.tracked(node, front.address)
            ours = [entry for entry in tracked if entry.kind == "OUT" and f"{entry.dst}:{entry.dport}" == answer.to]
            claim.require(ours, f"the map of {node.name} has no connection of {front} to {answer.to}", *tracked)
            claim.require(not any(entry.service for entry in ours), f"what {front} sends is translated", *ours)
            seen.append(f"{front} to {answer.pod}: {ours[-1]}")
            continue
        direct = [
            flow
            for flow in flows
            for end in (flow.original, flow.reply)
            if (end.src, f"{end.dst}:{end.dport}") == (str(front.address), answer.to)
        ]
        claim.require(direct, f"conntrack on {node.name} has no connection of {front} to {answer.to}", *flows)
        claim.require(
            not any(flow.destination_translated for flow in direct), f"what {front} sends is translated", *direct
        )
        seen.append(f"{front} to {answer.pod}: {direct[-1]}")
    claim.saw(listed(seen))


@pytest.mark.needs(ingress=True)
@pytest.mark.rests_on("one_class_is_the_default")
def test_kubectl_shows_address_and_rules(session: LabSession, claim: Claim) -> None:
    """`kubectl get ingress` shows the addresses that serve it, `kubectl describe ingress` its rules."""
    apps = session.until(lambda: session.ingress("apps"), lambda found: bool(found.addresses))
    nodes = {node.address for node in session.snapshot.nodes}
    claim.require(
        apps.addresses == nodes,
        f"apps has the addresses {listed(sorted(apps.addresses))}, not those of the nodes, {listed(sorted(nodes))}",
    )
    claim.require(apps.routes == workload.ROUTES, "apps has other rules than it was given", *apps.routes.items())
    claim.require(apps.secrets == workload.SITES, "apps names other secrets than it was given", *apps.secrets.items())
    rules = listed(
        f"{host} {listed(f'{path} to {to}' for path, to in paths.items())}" for host, paths in apps.routes.items()
    )
    claim.saw(f"apps, class {apps.ingress_class}, at {listed(sorted(apps.addresses))}: {rules}")


@pytest.mark.watches_scaling
@pytest.mark.needs(ingress=True)
@pytest.mark.rests_on("the_configuration_is_the_rules")
def test_a_change_loses_no_request(session: LabSession, claim: Claim) -> None:
    """While pods come and go and rules change, every request is answered."""
    scaling = session.scaling()
    stream, three, second = scaling.stream, scaling.more, session.endpoints(workload.APP2)
    claim.require(
        three <= stream.reached, f"of {listed(sorted(three))} only {listed(sorted(stream.reached))} were asked"
    )
    claim.require(
        scaling.edited_to in second,
        f"{scaling.edited_to or 'nobody'} answers for the new path, which is no pod of {workload.APP2}",
    )
    claim.require(not stream.lost, f"{len(stream.lost)} of {stream.sent} requests were lost", *stream.lost)
    claim.saw(
        f"{stream.sent} requests while {scaling.deployment} went from {len(scaling.before)} pods to {len(three)} and"
        " back, and a rule came and went: none lost"
    )
