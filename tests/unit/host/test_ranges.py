"""What a host uses of the address space, from recorded outputs of `ip`: VPNs, Docker, libvirt, other tables."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from typing import Any

from hoplab.host.ranges import UsedRange, remedy, used_ranges

LAB = IPv4Network("192.168.77.0/24")
RULES = [
    {"priority": 0, "src": "all", "table": "local"},
    {"priority": 32766, "src": "all", "table": "main"},
    {"priority": 32767, "src": "all", "table": "default"},
]


def link(name: str, address: str, prefix: int) -> dict[str, Any]:
    return {"ifname": name, "addr_info": [{"family": "inet", "local": address, "prefixlen": prefix}]}


def used(
    addresses: list[Any] | None = None,
    routes: list[Any] | None = None,
    rules: list[Any] | None = None,
    libvirt: str = "",
) -> dict[str, UsedRange]:
    links, ways, order = (json.dumps(item) for item in (addresses or [], routes or [], rules or RULES))
    return {str(found.network): found for found in used_ranges(links, ways, order, libvirt)}


def test_addresses_and_routes_without_loopback_and_the_default_route() -> None:
    links = [link("lo", "127.0.0.1", 8), link("eth0", "198.51.100.7", 24), {"ifname": "ifb0", "addr_info": []}]
    links[1]["addr_info"].append({"family": "inet6", "local": "fe80::1", "prefixlen": 64})
    routes = [
        {"dst": "default", "gateway": "198.51.100.1", "dev": "eth0"},
        {"dst": "203.0.113.9", "dev": "wg0"},
        {"type": "unreachable", "dst": "203.0.113.128/25"},
        {"type": "throw", "dst": "203.0.113.64/26", "table": "52"},
        {"type": "local", "dst": "198.51.100.7", "dev": "eth0", "table": "local"},
        {"dst": "fe80::/64", "dev": "eth0"},
    ]
    assert {name: found.by for name, found in used(links, routes).items()} == {
        "198.51.100.0/24": "eth0",
        "203.0.113.9/32": "wg0",
        "203.0.113.128/25": "a route (unreachable)",
    }


def test_the_halves_that_openvpn_sets_in_place_of_the_default_route_are_no_use() -> None:
    routes = [
        {"dst": "0.0.0.0/1", "gateway": "10.8.0.1", "dev": "tun0"},
        {"dst": "128.0.0.0/1", "gateway": "10.8.0.1", "dev": "tun0"},
        {"dst": "10.8.0.0/24", "dev": "tun0"},
    ]
    assert list(used([], routes)) == ["10.8.0.0/24"]


def test_networks_of_docker_libvirt_and_other_labs_have_their_names() -> None:
    links = [
        link("docker0", "172.17.0.1", 16),
        link("br-0123456789ab", "172.18.0.1", 16),
        link("virbr0", "192.168.122.1", 24),
        link("virbr9", "192.168.123.1", 24),
        link("hl0a1b2c3d", "192.168.78.1", 24),
    ]
    assert [found.by for found in used(links, libvirt="virbr0\tdefault\n").values()] == [
        "Docker's network docker0",
        "Docker's network br-0123456789ab",
        "the network of another lab, hl0a1b2c3d",
        "libvirt's network default",
        "libvirt's network virbr9",
    ]


def test_a_table_before_main_takes_packets_to_the_machines() -> None:
    """Tailscale with an accepted route, or as exit node: its table 52 is looked up first, whatever main has."""
    routes = [{"dst": "192.168.0.0/16", "dev": "tailscale0", "table": 52}]
    rules = [*RULES, {"priority": 5270, "src": "all", "table": "52"}]
    (found,) = used([], routes, rules).values()
    assert (found.first, found.by) == (True, "tailscale0, table 52")
    assert remedy(found, LAB) == "ip rule add to 192.168.77.0/24 lookup main priority 100"
    exit_node = [{"dst": "default", "dev": "tailscale0", "table": 52}]
    assert used([], exit_node, rules)["0.0.0.0/0"].first
    assert remedy(used([], [{"dst": "192.168.0.0/16", "dev": "tun0"}])["192.168.0.0/16"], LAB) == ""


def test_wireguards_default_table_is_asked_after_mains_own_routes() -> None:
    """wg-quick has main looked up without its default routes before its own table."""
    routes = [{"dst": "default", "dev": "wg0", "table": "51820"}]
    rules = [
        *RULES,
        {"priority": 32764, "src": "all", "table": "main", "suppress_prefixlen": 0},
        {"priority": 32765, "not": None, "src": "all", "fwmark": "0xca6c", "table": "51820"},
    ]
    assert used([], routes, rules) == {}


def test_a_table_for_some_packets_alone_is_not_before_main() -> None:
    routes = [
        {"dst": "default", "dev": "eth1", "table": "100"},
        {"dst": "192.168.77.0/25", "dev": "eth1", "table": "100"},
    ]
    for some in ({"src": "198.51.100.9"}, {"src": "all", "fwmark": "0x1"}, {"src": "all", "iif": "eth1"}):
        found = used([], routes, [*RULES, {"priority": 10, "table": "100", **some}])
        assert {name: one.first for name, one in found.items()} == {"192.168.77.0/25": False}


def test_what_is_no_json_is_no_use() -> None:
    assert used_ranges("", "", "") == used_ranges("x", "{}", "[1]") == ()
