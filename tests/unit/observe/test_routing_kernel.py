"""The route lookup beside the kernel's: made-up rules and routes in a network namespace, and `ip route get` there."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from hoplab.observe.facts import links, routes, rules
from hoplab.observe.routing import Decision, Flow, decide

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")
# An example is a namespace of its own: a failing one is shown as it is, not made smaller for minutes.
bounded = settings(max_examples=10, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])

OWN = IPv4Address("192.168.77.20")
STRANGER = IPv4Address("10.55.0.9")  # the source of what comes in: no address of this host
ADDRESSES = f"""
link set lo up
link add eth0 type veth peer name p0
link add eth1 type veth peer name p1
link set p0 up
link set p1 up
link set eth0 up
link set eth1 up group 7
address add {OWN}/24 dev eth0
address add 198.51.100.20/24 dev eth1
address add fd00:77::20/64 dev eth0 nodad
nexthop add id 1 via 192.168.77.3 dev eth0
nexthop add id 2 via 198.51.100.3 dev eth1
nexthop add id 3 group 1/2
nexthop add id 4 blackhole
"""
FORWARDING = """
echo 1 >/proc/sys/net/ipv4/ip_forward
for dev in all default eth0 eth1; do echo 0 >/proc/sys/net/ipv4/conf/$dev/rp_filter; done
"""
PLACES = ("default", "10.0.0.0/8", "10.244.0.0/16", "10.244.1.0/24", "10.244.1.7/32")
PLACES6 = ("default", "fd00::/16", "fd00:244::/56", "fd00:244:0:1::/64", "fd00:244:0:1::7/128")
ERRORS = {  # of the kernel, by verdict; a route that says "unreachable" and a rule that does are two of them
    "blackhole": "Invalid argument",
    "prohibit": "Permission denied",
    "unreachable": "Network is unreachable",
}
UNREACHABLE_ROUTE = "No route to host"

hops = st.sampled_from(
    [
        "via 192.168.77.1 dev eth0",
        "via 198.51.100.1 dev eth1 mtu 1320",
        "dev eth1",
        "via inet6 fe80::1 dev eth0",
        "nexthop via 192.168.77.1 dev eth0 nexthop via 198.51.100.1 dev eth1 weight 10",
        "nhid 1",
        "nhid 3",
        "nhid 4",
    ]
)
hops6 = st.sampled_from(
    [
        "via fe80::1 dev eth0",
        "dev eth1",
        "nexthop via fe80::1 dev eth0 nexthop via fe80::2 dev eth1",
    ]
)
refusals = st.sampled_from(["throw", "blackhole", "prohibit", "unreachable"])
tables = st.sampled_from(["main", "52", "100"])


@dataclass(frozen=True)
class MadeRoute:
    dst: str
    table: str
    metric: int
    tos: int
    hop: str  # a hop, or a kind without one

    def command(self, family: str) -> str:
        kind = self.hop if " " not in self.hop else ""
        tos = f" tos {self.tos:#x}" if self.tos and family == "-4" else ""
        hop = "" if kind else f" {self.hop}"
        return f"route add {kind} {self.dst}{tos} table {self.table} metric {self.metric}{hop}"


def made_routes(places: tuple[str, ...], some_hops: st.SearchStrategy[str]) -> st.SearchStrategy[list[MadeRoute]]:
    one = st.builds(
        MadeRoute,
        st.sampled_from(places),
        tables,
        st.sampled_from([5, 10]),
        st.sampled_from([0, 0, 0, 0x10]),
        some_hops | refusals,
    )
    return st.lists(one, min_size=1, max_size=8, unique_by=lambda route: (route.dst, route.table, route.metric))


SELECTORS = """
from 192.168.77.0/24, from 10.55.0.0/16, from 0.0.0.0/8, to 10.244.1.0/24, fwmark 0xca6c, fwmark 0x1/0xff, tos 0x10,
iif eth0, iif lo, iif gone0, oif eth1, ipproto udp, ipproto tcp dport 80, sport 1000-2000, uidrange 1000-2000
"""
SELECTORS6 = "from fd00:77::/64, to fd00:244::/56, fwmark 0xca6c, iif lo, ipproto tcp dport 80"
ACTIONS = """
table 52, table 100, table main, table 52 suppress_prefixlength 0, table 100 suppress_prefixlength 16,
table 52 suppress_ifgroup 7, blackhole, prohibit, unreachable
"""


def one_of(words: str) -> st.SearchStrategy[str]:
    return st.sampled_from([word.strip() for word in words.split(",")])


@st.composite
def made_rules(draw: st.DrawFn, selectors: str) -> list[str]:
    """Arguments of `ip rule add`."""
    priorities = sorted(draw(st.sets(st.integers(1, 40), min_size=1, max_size=6)))
    found = []
    for priority in priorities:
        later = [other for other in (*priorities, 32766, 99) if other > priority]  # no rule has the priority 99
        words = ["not"] if draw(st.integers(0, 3)) == 3 else []
        words += draw(st.lists(one_of(selectors), max_size=2, unique_by=lambda text: text.split()[0]))
        words.append(draw(one_of(ACTIONS) | st.sampled_from(later).map(lambda target: f"goto {target}")))
        found.append(f"priority {priority} {' '.join(words)}")
    return found


FLOWS = st.builds(
    Flow,
    dst=st.sampled_from(["10.244.1.7", "10.244.1.9", "10.244.2.3", "10.9.9.9", "203.0.113.9", "192.168.77.9"]).map(
        IPv4Address
    ),
    src=st.sampled_from([None, OWN]),
    oif=st.sampled_from(["", "", "eth0", "eth1"]),
    mark=st.sampled_from([0, 0x1, 0x101, 0xCA6C]),
    tos=st.sampled_from([0, 0, 0x10]),
    protocol=st.sampled_from(["", "udp", "tcp"]),
    uid=st.sampled_from([0, 1500]),
)
INCOMING = st.builds(
    Flow,
    dst=st.sampled_from(["10.244.1.7", "10.244.2.3", "203.0.113.9"]).map(IPv4Address),
    src=st.just(STRANGER),
    iif=st.just("eth0"),
    mark=st.sampled_from([0, 0xCA6C]),
    protocol=st.sampled_from(["udp", "tcp"]),
)
FLOWS6 = st.builds(
    Flow,
    dst=st.sampled_from(["fd00:244:0:1::7", "fd00:244:0:1::9", "fd00:244::3", "fd00:9::9", "2001:db8::9"]).map(
        IPv6Address
    ),
    src=st.sampled_from([None, IPv6Address("fd00:77::20")]),
    mark=st.sampled_from([0, 0xCA6C]),
    protocol=st.sampled_from(["udp", "tcp"]),
)


def asked(flow: Flow[Any]) -> str:
    """The arguments of `ip route get` for a packet."""
    words = [str(flow.dst)]
    words += [f"from {flow.src}"] if flow.src else []
    words += [f"iif {flow.iif}"] if flow.iif else []
    words += [f"oif {flow.oif}"] if flow.oif else []
    words += [f"mark {flow.mark}"] if flow.mark else []
    words += [f"tos {flow.tos:#x}"] if flow.tos else []
    words += [f"ipproto {flow.protocol}"] if flow.protocol else []
    words += [f"sport {flow.sport} dport {flow.dport}"] if flow.protocol else []
    words += [f"uid {flow.uid}"] if flow.uid else []
    return " ".join(words)


def with_ports(flow: Flow[Any], sport: int, dport: int) -> Flow[Any]:
    values = {name: getattr(flow, name) for name in ("dst", "src", "iif", "oif", "mark", "tos", "protocol", "uid")}
    return Flow(**values, sport=sport, dport=dport) if flow.protocol else flow


def in_namespace(family: str, setup: list[str], flows: list[Flow[Any]]) -> list[str]:
    """What is there after the setup (routes, rules, links), and two answers for each packet, one text each."""
    looks = [f"ip {family} -d -j route show table all", f"ip {family} -j rule show", "ip -d -j link show"]
    looks += [f"ip {family} -d -j route get {how}{asked(flow)}" for flow in flows for how in ("", "fibmatch ")]
    script = f"set -e\nip -batch - <<'END'{ADDRESSES}END\n{FORWARDING}ip {family} -batch - <<'END'\n"
    script += "\n".join(setup) + "\nEND\nset +e\n"
    script += "".join(f"{look} 2>&1\necho =====\n" for look in looks)
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, (done.stderr, setup)
    return done.stdout.split("=====\n")[:-1]


def compare(flow: Flow[Any], decision: Decision[Any, Any], answer: str, matched: str, read: Any) -> None:
    what = f"{asked(flow)}: {decision} ({decision.verdict}), the kernel: {answer}{matched}"
    if decision.verdict in ERRORS:
        wanted = UNREACHABLE_ROUTE if decision.route and decision.verdict == "unreachable" else ERRORS[decision.verdict]
        assert wanted in answer, what
        return
    assert answer.startswith("["), what
    (found,) = json.loads(answer)
    if decision.verdict == "local":
        assert found["type"] == "local", what
        return
    ways = {(str(hop.via) if hop.via else None, hop.dev) for hop in decision.hops}
    assert (found.get("gateway") or found.get("via", {}).get("host"), found["dev"]) in ways, what
    if decision.route:
        (route,) = read(matched)
        same = ("dst", "table", "metric", "kind", "mtu", "tos")
        assert all(getattr(route, name) == getattr(decision.route, name) for name in same), what
        assert set(route.hops) == set(decision.route.hops), what  # IPv6 begins with the one that was chosen


# The rules of wg-quick, of Tailscale, and jumps between them
VPNS = [
    "priority 5 from 10.55.0.0/16 goto 20",
    "priority 10 fwmark 0x1/0xff table main",
    "priority 15 to 10.244.1.0/24 table 100 suppress_prefixlength 16",
    "priority 20 table 52 suppress_ifgroup 7",
    "priority 30 table main suppress_prefixlength 0",
    "priority 35 not fwmark 0xca6c table 100",
]
VPN_ROUTES = [
    MadeRoute("default", "main", 5, 0, "via 192.168.77.1 dev eth0"),
    MadeRoute("10.244.0.0/16", "main", 5, 0, "nhid 3"),
    MadeRoute("10.244.0.0/16", "52", 5, 0, "dev eth1"),
    MadeRoute("10.244.1.0/24", "52", 5, 0, "throw"),
    MadeRoute("10.0.0.0/8", "52", 5, 0, "via 192.168.77.1 dev eth0"),
    MadeRoute("default", "100", 5, 0, "dev eth1"),
    MadeRoute("10.244.0.0/16", "100", 5, 0, "blackhole"),
    MadeRoute("10.244.1.7/32", "100", 5, 0, "prohibit"),
]
VPN_FLOWS = [
    *(Flow(IPv4Address(dst), mark=mark) for dst in ("10.244.1.7", "10.244.1.9", "10.9.9.9") for mark in (0, 0x101)),
    *(Flow(IPv4Address("203.0.113.9"), mark=mark) for mark in (0, 0xCA6C)),
    Flow(IPv4Address("10.244.2.3"), STRANGER, iif="eth0"),
    Flow(IPv4Address("10.244.2.3"), oif="eth1"),
]


@given(
    made_routes(PLACES, hops),
    made_rules(SELECTORS),
    st.lists(FLOWS | INCOMING, min_size=4, max_size=6),
    st.sampled_from([0, 1500]),
    st.sampled_from([0, 80]),
)
@example(VPN_ROUTES, VPNS, VPN_FLOWS, 0, 80)
@bounded
def test_a_packet_goes_where_the_kernel_sends_it(
    made: list[MadeRoute], policy: list[str], packets: list[Flow[Any]], sport: int, dport: int
) -> None:
    flows = [with_ports(flow, sport, dport) for flow in packets]
    setup = [*(route.command("-4") for route in made), *(f"rule add {rule}" for rule in policy)]
    shown, ruled, linked, *answers = in_namespace("-4", setup, flows)
    facts = routes.parse(shown), rules.parse(ruled), links.parse(linked)
    for flow, answer, matched in zip(flows, answers[::2], answers[1::2], strict=True):
        compare(flow, decide(flow, *facts), answer, matched, routes.parse)


@given(
    made_routes(PLACES6, hops6),
    made_rules(SELECTORS6),
    st.lists(FLOWS6, min_size=4, max_size=6),
    st.sampled_from([0, 80]),
)
@bounded
def test_a_packet_of_ipv6_goes_where_the_kernel_sends_it(
    made: list[MadeRoute], policy: list[str], packets: list[Flow[Any]], dport: int
) -> None:
    flows = [with_ports(flow, 0, dport) for flow in packets]
    setup = [*(route.command("-6") for route in made), *(f"rule add {rule}" for rule in policy)]
    shown, ruled, linked, *answers = in_namespace("-6", setup, flows)
    facts = routes.parse6(shown), rules.parse(ruled), links.parse(linked)
    for flow, answer, matched in zip(flows, answers[::2], answers[1::2], strict=True):
        compare(flow, decide(flow, *facts), answer, matched, routes.parse6)
