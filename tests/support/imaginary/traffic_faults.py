"""The faults of the imaginary lab: a switch, its value, the lessons that fail and what the first of them names."""

from __future__ import annotations

from tests.support.imaginary.traffic import RECORDED
from tests.support.lesson_functions import lessons, with_traffic

OUTSIDE, POD_TO_POD = "the_outside_sees_the_nodes_address", "pod_to_pod_is_never_translated"
CLUSTER_IP, DNS = "a_cluster_ip_is_a_pod_chosen_per_connection", "kube_dns_answers_a_pod"
NODE_PORT, LOCAL = "a_node_port_answers_on_every_node", "the_local_policy_keeps_the_clients_address"
CHECKED, ONE_ANSWERS = "the_health_check_port_tells_where_pods_are", "one_node_answers_arp_for_a_balancers_address"
ANNOUNCES, LOCAL_ANNOUNCES = "an_announced_address_reaches_the_pods", "a_local_service_is_announced_where_its_pod_is"
REFUSED, BALANCES = "a_refused_service_says_so_at_once", "a_load_balancers_address_reaches_the_pods"
WRAPPED, ONE_NODE = "between_nodes_a_packet_travels_wrapped", "pods_of_one_node_need_no_gateway"
ON_THE_WAY = "the_destination_changes_on_the_way"
FULL_SIZE = "a_packet_of_full_size_arrives_in_one_piece"
STICKY = "a_client_stays_with_its_endpoint"
SCALING, POLICY = "scaling_changes_the_endpoints_at_once", "a_policy_that_nobody_enforces_stops_nothing"

FAULTS = (
    ("masquerades", False, (OUTSIDE,), "the outside saw 10.244."),
    ("counts", False, (OUTSIDE,), "counted the packet"),
    ("remembers", False, (OUTSIDE, POD_TO_POD, CLUSTER_IP), "has no entry that sends replies for"),
    ("keeps_pod_addresses", False, (POD_TO_POD,), "saw 192.168.77."),
    ("chooses", False, (CLUSTER_IP,), "all 24 connections reached"),
    ("translates", False, (CLUSTER_IP,), "has no translated entry for hoplab-verify/echo"),
    ("dns", "", (DNS,), "and got: nothing"),
    ("dns", "10.96.0.2", (DNS,), "and got: 10.96.0.2"),
    ("masks_node_ports", False, (NODE_PORT,), "the pod saw 192.168.77.1, which is no address of"),
    ("every_node_answers", False, (NODE_PORT,), "does not answer on 30080"),
    ("local_keeps_client", False, (LOCAL,), "not 192.168.77.1"),
    ("local_is_local", False, (LOCAL,), "answers on 30081 without a pod of it"),
    ("refuses", False, (REFUSED,), "was not refused"),
    ("balances", False, (BALANCES,), "203.0.113.80 does not answer by way of"),
    ("remembers_balancing", False, (BALANCES,), "has no entry for 203.0.113.80 with DNAT and SNAT"),
    ("follows_up", False, (SCALING,), "for 2 endpoints"),
    ("follows_down", False, (SCALING,), "after scaling down"),
    ("enforces", True, (POLICY,), "the policy made cali-deny on"),
    ("wraps", False, (WRAPPED,), "is not wrapped"),
    ("wraps_for", "192.168.77.99", (WRAPPED,), "the outer packet is not from"),
    ("stays", False, (ONE_NODE,), "leaves worker"),
    ("hops", 1, (ONE_NODE,), "the TTL fell by 1"),
    ("changes_on_the_way", False, (ON_THE_WAY,), "not everything is for"),
    ("inner_from", "10.244.9.9", (WRAPPED,), "the inner packet is not from"),
    ("inner_macs", False, (WRAPPED,), "the inner packet is not from the flannel.1 of"),
    ("sees", False, (ONE_NODE, WRAPPED, ON_THE_WAY, REFUSED), "nothing was seen between"),
    ("sees", False, (WRAPPED, ONE_NODE, ON_THE_WAY, REFUSED), "by eth0"),
    ("plugged", False, (ONE_NODE, ON_THE_WAY, REFUSED), "has no veth pair"),
    ("plugged", False, (REFUSED, ONE_NODE, ON_THE_WAY), "has no veth pair"),
    ("plugged", False, (ON_THE_WAY, ONE_NODE, REFUSED), "no veth pair"),
    ("tells_node", "worker9", (POD_TO_POD,), "on worker9 answered for"),
    ("loses", True, (CLUSTER_IP, STICKY), "23 of 24 connections"),
    ("loses", True, (STICKY, CLUSTER_IP), "23 of 24 connections"),
    ("keeps_clients", False, (CLUSTER_IP,), "not the client's"),
    ("stranger_answers", True, (CLUSTER_IP, NODE_PORT, BALANCES, ANNOUNCES), "which is not behind it"),
    ("stranger_answers", True, (NODE_PORT, CLUSTER_IP, BALANCES, ANNOUNCES), "answered on"),
    ("stranger_answers", True, (BALANCES, NODE_PORT, CLUSTER_IP, ANNOUNCES), "answered for 203.0.113.80, not"),
    ("home_answers", False, (LOCAL,), "does not answer on 30081"),
    ("remembers_local", False, (LOCAL,), "has no entry with DNAT and without SNAT for port 30081"),
    ("owned", True, (BALANCES,), "203.0.113.80 is the address of lo of"),
    ("fits", 1449, (FULL_SIZE,), "1450 bytes do not arrive in one piece and return, 1400 do"),
    ("fits", 0, (FULL_SIZE,), "smaller ones do not either"),
    ("forgets_chains", False, (SCALING,), "but its pod is gone"),
    ("sticks", False, (STICKY,), "24 connections of"),
    ("unreachable_from", "192.168.77.1", (REFUSED,), "itself did not tell"),
    ("changes_back", False, (ON_THE_WAY,), "not every reply to"),
    ("checks", {True: 503, False: 503}, (CHECKED,), "which runs"),
    ("checks", {True: 200, False: 200}, (CHECKED,), "which does not run"),
    ("checks", {True: 0, False: 0}, (CHECKED,), "answers nothing on http://192.168.77."),
    ("given", False, (ONE_ANSWERS, ANNOUNCES, LOCAL_ANNOUNCES), "has given announced no address"),
    ("who_has", False, (ONE_ANSWERS,), "nobody asks"),
    ("announcers", 0, (ONE_ANSWERS, ANNOUNCES, LOCAL_ANNOUNCES), "no node answers ARP for 192.168.77.245"),
    ("announcers", 0, (ANNOUNCES, ONE_ANSWERS, LOCAL_ANNOUNCES), "which the host end sends to, is no node's"),
    ("announcers", 2, (ONE_ANSWERS, ANNOUNCES, LOCAL_ANNOUNCES), "answers ARP for 192.168.77.245"),
    ("announcer", RECORDED.nodes[1].name, (ONE_ANSWERS,), "not worker1"),
    ("announces_where_pods_are", False, (LOCAL_ANNOUNCES,), "whose pod is on"),
    ("believed", "02:00:00:00:00:09", (ONE_ANSWERS, ANNOUNCES), "the host end takes 02:00:00:00:00:09 for"),
    ("reaches", False, (ANNOUNCES,), "192.168.77.245 does not answer from outside"),
    ("masks_announced", False, (ANNOUNCES,), "the pod saw 192.168.77.1, which is no address of"),
    ("remembers_announced", False, (ANNOUNCES,), "has no entry for 192.168.77.245 with DNAT and SNAT"),
    ("stranger_answers", True, (ANNOUNCES, BALANCES, NODE_PORT, CLUSTER_IP), "which is not behind it"),
    ("local_reaches", False, (LOCAL_ANNOUNCES,), "192.168.77.246 does not answer from outside"),
    ("local_announced_keeps_client", False, (LOCAL_ANNOUNCES,), "not 192.168.77.1"),
    ("remembers_local_announced", False, (LOCAL_ANNOUNCES,), "with DNAT and without SNAT"),
    (
        "answers",
        False,
        (OUTSIDE, POD_TO_POD, CLUSTER_IP, REFUSED, POLICY, WRAPPED, ONE_NODE, ON_THE_WAY, STICKY),
        "gets no answer from the outside: curl: (28)",
    ),
)


def names() -> tuple[str, ...]:
    """The lessons that send packets, but those with worlds of their own: chapters 8 to 10, and policies."""
    others = ("test_07_policies", "test_08_", "test_09_", "test_10_")
    return tuple(
        name
        for name in with_traffic()
        if not any(other in lessons()[name].function.__code__.co_filename for other in others)
    )


BY_RULES = ("follows_up", "follows_down")  # what is seen in kube-proxy's rules: with those of each mode
