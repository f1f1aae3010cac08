"""Lessons that no fault of a real lab is for, each with the reason."""

from __future__ import annotations

# What no command on a node can break: kernels do their sums right, a namespace made for a look has no routes, and
# iptables lists built-in chains also where there are none and refuses to work with others. These lessons' negative
# controls are broken recordings, in tests/support/edited.
RECORDINGS_ONLY = {
    "first_and_last_address_follow_from_the_prefix",
    "no_route_means_unreachable",
    "proc_and_ip_route_agree",
    "tables_and_their_hooks",
    "tables_are_called_in_their_order",
    "vxlan_is_sent_from_the_nodes_address",
    "calico_wrote_down_who_has_which_address",
    "blocks_do_not_overlap",
    "programs_translate_before_any_rule",  # in the pod's interface, after which there is nothing to translate
}
# What the lesson table says is broken on recordings only: objects of the API, a VPN's rule, a CoreDNS that crashes
# again and again, and a node that registers with another one's machine-id.
NOT_ON_A_LAB = {
    "a_node_may_announce_each_address",
    "coredns_does_not_crash",
    "no_rule_takes_what_pods_send",
    "no_two_nodes_are_copies_of_one_machine",
    "one_class_is_the_default",
}
# What only a lab with the Gateway API has, which no system test makes. Their faults are those of an imaginary
# lab, in tests/support/imaginary/gateway.py.
GATEWAY_API = {
    "a_gateway_says_what_it_serves",
    "a_route_decides_by_more_than_the_path",
    "each_rule_of_a_route_is_a_location",
}
# What kube-proxy, which stands still here, has to do itself.
STANDS_STILL = {
    "scaling_changes_the_endpoints_at_once": "for 3 endpoints",
    "the_health_check_port_tells_where_pods_are": "answers nothing on http://",
}
# what Felix, which stands still here, has to write
POLICIES = {"a_policy_denies_what_it_does_not_allow", "a_policy_allows_by_label", "a_policy_stops_what_leaves"}
