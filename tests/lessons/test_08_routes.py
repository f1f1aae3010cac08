"""Chapter 8, Gateway API: ``kubectl get gateway,httproute``, requests, the configuration of what serves it."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from hoplab.verify import gateway_workload, workload
from hoplab.verify.claims import Claim, listed
from hoplab.verify.session import LabSession

pytestmark = [pytest.mark.needs(gateway_api=True), pytest.mark.remedy("kubectl describe gateways,httproutes -A")]

NAME, HOST = gateway_workload.NAME, gateway_workload.HOST


def test_a_gateway_says_what_it_serves(session: LabSession, claim: Claim) -> None:
    """A Gateway's status has its addresses (one that the load balancer gave to its own service, or those of the nodes)
    and how many routes each listener has; an HTTPRoute's status has whether the Gateway accepted it."""
    setting, nodes = session.snapshot.setting, {str(node.address) for node in session.snapshot.nodes}
    found = session.until(lambda: session.gateway(NAME), lambda found: found.conditions.get("Programmed") == "True")
    for condition in ("Accepted", "Programmed"):
        claim.require(
            found.conditions.get(condition) == "True",
            f"the Gateway {NAME} is not {condition}",
            *found.conditions.items(),
        )
    at = listed(sorted(found.addresses))
    if setting.pool is None:
        text = f"{NAME} has the addresses {at}, not those of the nodes, {listed(sorted(nodes))}"
        claim.require(found.addresses == nodes, text)
    else:
        own = [address for address in found.addresses if IPv4Address(address) in setting.pool]
        text = f"{NAME} has the addresses {at}, not one of the load balancer's, {setting.pool}"
        claim.require(len(own) == len(found.addresses) == 1, text)
    route = session.until(lambda: session.route_conditions(NAME), bool)
    for condition in ("Accepted", "ResolvedRefs"):
        claim.require(
            route.get(condition) == "True", f"the HTTPRoute {NAME} is not {condition} by its Gateway", *route.items()
        )
    wanted = {gateway_workload.LISTENER: 1}
    claim.require(found.routes == wanted, f"{NAME} has other routes than one at its listener", *found.routes.items())
    claim.saw(f"{NAME} is programmed at {at}; its listener has 1 route, which is accepted")


@pytest.mark.rests_on("a_gateway_says_what_it_serves")
def test_a_route_decides_by_more_than_the_path(session: LabSession, claim: Claim) -> None:
    """An HTTPRoute decides by path, query parameter, header and method: the longest path first, then the rule with
    most conditions."""
    seen, setting = [], session.snapshot.setting
    places = [node.address for node in session.snapshot.nodes]
    if setting.pool is not None:
        places = [IPv4Address(address) for address in sorted(session.gateway(NAME).addresses)]
    for asked, service in gateway_workload.ways(workload.APP1, workload.APP2).items():
        for place in places:
            answer = session.app(f"http://{HOST}{asked}", place)
            claim.require(
                answer.to in session.endpoints(service),
                f"{answer.pod} answers for {HOST}{asked}, which is no pod of {service}",
            )
        seen.append(f"{asked} by {answer.pod}")
    claim.saw(f"{HOST} is answered, {listed(seen)}")


@pytest.mark.rests_on("a_gateway_says_what_it_serves", "pod_to_pod_is_never_translated")
def test_each_rule_of_a_route_is_a_location(session: LabSession, claim: Claim) -> None:
    """The controller turns each rule of an HTTPRoute into locations of nginx, and the rule's service into the pods'
    addresses."""
    route = gateway_workload.http_route(workload.NAMESPACE, workload.APP1, workload.APP2)
    for front in session.gateway_pods:
        found = session.served_route(front, route)
        claim.require(bool(found), f"{front} has no server block for {HOST}")
        for match in found:
            wanted = session.endpoints(gateway_workload.service_of(route.rules[match.number]))
            claim.require(
                set(match.endpoints) == wanted,
                f"{front} sends the rule {match.rule} to {listed(match.endpoints)}, not to {listed(sorted(wanted))}",
                *found,
            )
    claim.saw(f"{front} has for {HOST} {listed(map(str, found))}")
