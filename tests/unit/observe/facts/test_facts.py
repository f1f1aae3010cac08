"""Facts: real output in, records out."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from hoplab.core.errors import FactError
from hoplab.observe.facts import Facts, discover
from hoplab.observe.facts.addresses import ADDRESSES
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS
from hoplab.observe.facts.api_ipam_blocks import API_IPAM_BLOCKS, Block
from hoplab.observe.facts.api_nodes import API_NODES
from hoplab.observe.facts.api_pods import API_PODS
from hoplab.observe.facts.api_services import API_SERVICES
from hoplab.observe.facts.bgp import BGP, Session
from hoplab.observe.facts.cni_config import CNI_CONFIG, CniConfig
from hoplab.observe.facts.conntrack import CONNTRACK, Direction
from hoplab.observe.facts.fdb import FDB
from hoplab.observe.facts.ipam import IPAM, Reservation
from hoplab.observe.facts.ipset import IPSET, Member
from hoplab.observe.facts.iptables import IPTABLES, Option
from hoplab.observe.facts.links import LINKS, BridgePort, Vxlan
from hoplab.observe.facts.neighbours import NEIGHBOURS
from hoplab.observe.facts.no_route import NO_ROUTE
from hoplab.observe.facts.proc_routes import PROC_ROUTES, ProcRoute
from hoplab.observe.facts.routes import DEFAULT, ROUTES, Route, lookup
from hoplab.observe.facts.rules import RULES
from hoplab.observe.facts.sockets import SOCKETS, Socket
from hoplab.observe.facts.sysctls import SYSCTLS
from hoplab.observe.facts.wireguard import WIREGUARD
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Snapshot
from tests.support.files import CAPTURED
from tests.support.recordings import recording


@pytest.fixture(scope="module")
def recorded() -> Snapshot:
    return recording("flannel-vxlan")


def test_facts_are_discovered_in_their_places() -> None:
    assert {"links", "routes", "iptables", "conntrack"} <= {fact.name for fact in discover("node")}
    assert {"links", "routes", "addresses", "neighbours"} <= {fact.name for fact in discover("pod")}
    api = {"nodes", "pods", "services", "endpoints", "endpoints6", "ipam_blocks", "ipam_blocks6"}
    assert {*api, "ingresses", "ingress_classes", "pod_states", "corefile", "tls_secrets"} == {
        fact.name for fact in discover("api")
    }


def test_iptables_rules_come_back_as_they_were_recorded(recorded: Snapshot) -> None:
    for node in recorded.nodes:
        text = node.facts.outputs["iptables"].out
        written = [line.partition("] ")[2] for line in text.splitlines() if line.startswith("[")]
        tables = node[IPTABLES].tables.values()
        read = [str(rule) for table in tables for chain in table.values() for rule in chain.rules]
        assert sorted(_unquoted(line) for line in written) == sorted(_unquoted(line) for line in read)
        assert len(read) > 30


def _unquoted(line: str) -> str:
    """iptables quotes some comments that do not need it, and puts two spaces before an nfacct name."""
    return " ".join(line.replace('"', "").split())


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("-A INPUT -j ACCEPT", "not declared"),
        ("-X FORWARD", "neither chain nor rule"),
    ],
)
def test_what_is_no_rule_is_named(line: str, why: str) -> None:
    with pytest.raises(FactError, match=why) as caught:
        IPTABLES.parse(f"*filter\n:FORWARD DROP [0:0]\n{line}\nCOMMIT\n")
    assert line in caught.value.message and caught.value.remedy


def test_a_line_outside_of_a_table_is_refused() -> None:
    with pytest.raises(FactError, match="outside of a table"):
        IPTABLES.parse("-A FORWARD -j ACCEPT\n")


def test_rule_accessors() -> None:
    (counting,) = IPTABLES.parse("*nat\n:X - [0:0]\n-A X -p tcp\nCOMMIT\n").chains("nat")["X"].rules
    assert (str(counting), counting.target, counting.match("-s")) == ("-A X -p tcp", "", None)
    assert IPTABLES.parse("").chains("nat") == {}
    line = "-A X ! -s 10.244.0.0/16 -d 10.96.0.10/32 -p udp -m udp --dport 53 -g KUBE-MARK-MASQ"
    (rule,) = IPTABLES.parse(f"*nat\n:X - [0:0]\n{line}\nCOMMIT\n").rules("nat", "X")
    assert (rule.source, rule.destination) == (None, IPv4Network("10.96.0.10/32"))
    assert rule.match("-s") == Option("-s", ("10.244.0.0/16",), negated=True)
    assert (rule.value("--dport"), rule.value("--sport"), rule.comment, rule.goto) == ("53", "", "", True)
    assert str(rule) == line


def test_links(recorded: Snapshot) -> None:
    node = recorded.nodes[0]
    vtep = node.link("flannel.1")
    assert vtep and vtep.vxlan == Vxlan(1, str(node.address), "eth0", 8472, learning=False)
    assert vtep.mtu == 1450 and vtep.up
    bridge = node.link("cni0")
    assert bridge and bridge.kind == "bridge"
    ports = [link for link in node[LINKS] if link.master == "cni0"]
    assert ports and all(port.kind == "veth" and port.peer_elsewhere and port.peer_index > 1 for port in ports)
    assert f"@if{ports[0].peer_index}" in str(ports[0])
    assert {port.port for port in ports} == {BridgePort("forwarding", hairpin=True)}  # as the CNI configuration asks
    assert bridge.port is None and not ports[0].peer


def test_both_ends_of_a_pair_in_one_namespace_know_each_other_by_name() -> None:
    text = (
        '[{"ifindex":2,"link":"v0","ifname":"v1","flags":["BROADCAST","MULTICAST","M-DOWN"],"mtu":1500,'
        '"address":"12:82:79:80:8c:91","linkinfo":{"info_kind":"veth"}}]'
    )
    (link,) = LINKS.parse(text)
    assert (link.peer, link.peer_index, link.peer_elsewhere, link.up) == ("v0", 0, False, False)
    assert str(link) == "2: v1@v0 veth mtu 1500 down 12:82:79:80:8c:91"


def test_addresses(recorded: Snapshot) -> None:
    node = recorded.nodes[0]
    (own,) = [address for address in node[ADDRESSES] if address.dev == "eth0"]
    assert (own.address, own.network) == (recorded.setting.nodes[node.name], recorded.setting.network)
    assert own.broadcast == recorded.setting.network.broadcast_address
    assert str(own) == f"{own.address}/24 dev eth0"
    assert ADDRESSES.parse('[{"addr_info": [{"family": "inet6", "local": "::1", "prefixlen": 128}]}]') == ()


def test_routes_and_the_longest_prefix(recorded: Snapshot) -> None:
    first, second = recorded.nodes[:2]
    found = lookup(first[ROUTES], second.pod_cidr[9])
    assert found and str(found) == f"{second.pod_cidr} via {second.pod_cidr[0]} dev flannel.1 onlink"
    default = lookup(first[ROUTES], IPv4Address("203.0.113.9"))
    assert default and default.dst == DEFAULT and str(default) == f"default via {recorded.setting.gateway} dev eth0"
    own = lookup(first[ROUTES], first.address)
    assert own and own.kind == "local"
    assert lookup((), first.address) is None
    assert str(Route(IPv4Network("10.0.0.0/26"), kind="blackhole")) == "blackhole 10.0.0.0/26"


def test_the_lower_metric_wins_among_equals() -> None:
    slow, fast = (Route(DEFAULT, dev=dev, metric=metric) for dev, metric in (("eth1", 200), ("eth0", 100)))
    assert lookup((slow, fast), IPv4Address("192.0.2.1")) is fast


def test_proc_routes() -> None:
    text = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t014DA8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
        "cni0\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert PROC_ROUTES.parse(text) == (
        ProcRoute("eth0", DEFAULT, IPv4Address("192.168.77.1"), 100),
        ProcRoute("cni0", IPv4Network("10.244.0.0/24"), None, 0),
    )
    with pytest.raises(FactError, match="is not a line of"):
        PROC_ROUTES.parse("Iface\ncni0 zz")


def test_neighbours_fdb_rules_sysctls(recorded: Snapshot) -> None:
    node, other = recorded.nodes[:2]
    (peer,) = [neighbour for neighbour in node[NEIGHBOURS] if neighbour.dev == "flannel.1"]
    assert peer.address == other.pod_cidr[0] and peer.states == ("PERMANENT",)
    assert str(peer) == f"{peer.address} dev flannel.1 lladdr {peer.mac} PERMANENT"
    (entry,) = [row for row in node[FDB] if row.dev == "flannel.1" and row.dst]
    assert (entry.mac, entry.dst) == (peer.mac, str(other.address))
    assert (entry.state, str(entry)) == ("permanent", f"{peer.mac} dev flannel.1 dst {other.address}")
    (bridged, *_) = [row for row in node[FDB] if row.master == "cni0"]
    assert not bridged.dst and str(bridged) == f"{bridged.mac} dev {bridged.dev}"
    assert [str(rule) for rule in node[RULES]] == [
        "0: from all lookup local",
        "32766: from all lookup main",
        "32767: from all lookup default",
    ]
    assert node[SYSCTLS]["net.ipv4.ip_forward"] == "1"
    assert "Network is unreachable" in node[NO_ROUTE]


def test_policy_rules_read_as_ip_prints_them() -> None:
    found = RULES.parse((CAPTURED / "ip-rule.json").read_text())
    assert [str(rule) for rule in found] == (CAPTURED / "ip-rule.txt").read_text().splitlines()
    (both,) = [rule for rule in found if rule.table == "100"]
    assert (both.source, both.destination, both.mark) == ("10.0.0.0/8", "192.168.0.0/16", "0x1/0xff")
    assert both.others == ("iif lo",) and not both.negated
    assert [rule.priority for rule in found if rule.negated] == [32764]
    assert [rule.action for rule in found if not rule.table] == ["goto 32766", "blackhole"]


def test_a_neighbour_needs_an_address() -> None:
    with pytest.raises(FactError, match="without an address"):
        NEIGHBOURS.parse('[{"dev": "eth0"}]')


def test_sysctl_lines() -> None:
    assert SYSCTLS.parse("/proc/sys/net/ipv4/ip_forward:0\n") == {"net.ipv4.ip_forward": "0"}
    with pytest.raises(FactError, match="not a sysctl"):
        SYSCTLS.parse("ip_forward 1\n")


CONNTRACK_TEXT = """\
tcp      6 117 TIME_WAIT src=10.244.0.5 dst=192.168.77.1 sport=41962 dport=36511 src=192.168.77.1 dst=192.168.77.20 \
sport=36511 dport=16220 [ASSURED] mark=0 use=1
udp      17 27 src=10.244.0.5 dst=10.96.0.10 sport=50123 dport=53 src=10.244.0.2 dst=10.244.0.5 sport=53 dport=50123 \
mark=0 use=1
icmp     1 29 src=10.244.0.5 dst=10.244.1.2 type=8 code=0 id=7 src=10.244.1.2 dst=10.244.0.5 type=0 \
code=0 id=7 mark=0 use=1
"""


def test_conntrack() -> None:
    masked, dns, ping = CONNTRACK.parse(CONNTRACK_TEXT)
    assert (masked.protocol, masked.state) == ("tcp", "TIME_WAIT")
    assert masked.original == Direction("10.244.0.5", "192.168.77.1", 41962, 36511)
    assert masked.source_translated and not masked.destination_translated
    assert dns.destination_translated and not dns.source_translated
    assert not ping.source_translated and str(ping.original) == "10.244.0.5 -> 10.244.1.2"
    assert str(dns) == "udp 10.244.0.5:50123 -> 10.96.0.10:53, replies 10.244.0.2:53 -> 10.244.0.5:50123"
    with pytest.raises(FactError, match="not a conntrack entry"):
        CONNTRACK.parse("tcp 6 src=10.0.0.1 dst=10.0.0.2\n")


def test_conntrack_of_a_lab(recorded: Snapshot) -> None:
    for node in recorded.nodes:
        flows = node[CONNTRACK]
        assert len(flows) == len(node.facts.outputs["conntrack"].out.splitlines()) > 3
        api = [flow for flow in flows if flow.original.dport == 6443 and flow.original.src == str(node.address)]
        assert any(flow.state == "ESTABLISHED" and not flow.source_translated for flow in api)


def test_cni_config(recorded: Snapshot) -> None:
    (found,) = recorded.nodes[0][CNI_CONFIG]
    assert (found.name, found.plugins) == ("cbr0", ("flannel", "portmap"))
    single = '==> /etc/cni/net.d/10-x.conf <==\n{"name": "x", "type": "bridge"}\n'
    assert CNI_CONFIG.parse(single) == (CniConfig("/etc/cni/net.d/10-x.conf", "x", ("bridge",)),)
    with pytest.raises(FactError, match=r"10-x\.conf is not JSON"):
        CNI_CONFIG.parse("==> /etc/cni/net.d/10-x.conf <==\n{\n")


def test_sets() -> None:
    text = (CAPTURED / "ipset.txt").read_text()
    found = {ipset.name: ipset for ipset in IPSET.parse(text)}
    assert "".join(f"{ipset}\n" for ipset in found.values()) == text
    assert found["ipp"].kind == "hash:ip,port,ip"
    assert found["ipp"].members == (Member("10.0.0.1,tcp:80,10.0.0.2"),)
    assert found["nets"].members[0] == Member("192.168.0.0/24", "timeout 3599 nomatch packets 0 bytes 0")
    assert found["cali40s:abc-d_e"].members == ()
    assert IPSET.parse("") == ()


@pytest.mark.parametrize("line", ["create x", "add nowhere 10.0.0.1", "add", "COMMIT", "", "destroy x hash:ip"])
def test_what_is_no_line_of_ipset_is_named(line: str) -> None:
    with pytest.raises(FactError, match="is not a line of `ipset save`") as caught:
        IPSET.parse(f"create set hash:ip\n{line}\n")
    assert repr(line) in caught.value.message and caught.value.remedy


def test_sockets() -> None:
    found = SOCKETS.parse((CAPTURED / "ss.txt").read_text())
    both = ("a", "python3")
    assert Socket("tcp", "127.0.0.1", "", 10248, both) in found
    assert Socket("udp", "127.0.0.53", "lo", 53, both) in found
    assert Socket("tcp", "::1", "", 9, both) in found
    assert Socket("tcp", "*", "", 10256, both) in found  # one socket for IPv4 and IPv6
    assert Socket("udp", "0.0.0.0", "", 8473, ()) in found  # VXLAN: the kernel itself
    ssh = {str(socket) for socket in found if socket.port == 22}
    assert ssh == {"tcp 0.0.0.0:22 a,python3", "tcp [::]:22 a,python3"}
    with pytest.raises(FactError, match=r"'tcp ESTAB 0 0 .*' is not a socket that listens"):
        SOCKETS.parse("tcp ESTAB 0 0 10.0.0.1:22 10.0.0.2:4711\n")


def test_addresses_given_out() -> None:
    text = (CAPTURED / "ipam.txt").read_bytes().decode()
    first, second = IPAM.parse(text)
    assert first == Reservation("cbr0", IPv4Address("10.244.0.2"), "4b8c0e21f3a9", "eth0")
    assert str(second) == "/var/lib/cni/networks/cbr0/10.244.0.3: c17d5502be44 eth0"
    assert IPAM.parse("") == ()  # Calico has an IPAM of its own
    assert IPAM.parse(text.splitlines()[0]) == (Reservation("cbr0", first.address, "4b8c0e21f3a9", ""),)
    with pytest.raises(FactError, match="is not a line of a file of host-local"):
        IPAM.parse("/var/lib/cni/networks/cbr0/lock\n")
    with pytest.raises(FactError, match=r"'10\.244\.0' is not an IPv4 address"):
        IPAM.parse("/var/lib/cni/networks/cbr0/10.244.0:4b8c\n")


def test_blocks_say_who_has_which_address() -> None:
    text = (CAPTURED / "ipam_blocks.json").read_text()
    first, free = API_IPAM_BLOCKS.parse(text)
    assert first == Block(
        IPv4Network("10.244.235.128/26"),
        "worker1",
        {
            IPv4Address("10.244.235.128"): "vxlanTunnelAddress",
            IPv4Address("10.244.235.129"): "hoplab-verify/echo-x7k2p",
            IPv4Address("10.244.235.131"): "",  # whose, nobody wrote down
        },
    )
    assert [str(block) for block in (first, free)] == [
        "10.244.235.128/26 of worker1, 3 taken",
        "10.244.189.64/26 of no node, 0 taken",
    ]
    for broken in ("[0,1,null,9]", "[0,1,null,-1]", "[0,1,null,1.0]", '["0"]'):
        with pytest.raises(FactError, match="is no item of its attributes"):
            API_IPAM_BLOCKS.parse(text.replace("[0,1,null,2]", broken))
    for broken in (f"[{'0,' * 64}0]", "7"):
        with pytest.raises(FactError, match=r"the allocations of 10\.244\.235\.128/26 are not one for each address"):
            API_IPAM_BLOCKS.parse(text.replace("[0,1,null,2]", broken))
    with pytest.raises(FactError, match="a block without a range"):
        API_IPAM_BLOCKS.parse('{"items": [{"spec": {}}]}')


def test_bgp_sessions() -> None:
    good, bad = BGP.parse((CAPTURED / "bgp.txt").read_text())
    assert good == Session("Mesh_192_168_77_21", "up", "Established") and good.established
    assert good.peer == IPv4Address("192.168.77.21")
    assert bad == Session("Mesh_192_168_77_91", "start", "Connect") and not bad.established
    assert [str(session) for session in (good, bad)] == [
        "Mesh_192_168_77_21 up Established",
        "Mesh_192_168_77_91 start Connect",
    ]
    (first,) = BGP.parse("1002-Node_192_168_77_1 BGP      master   start  13:54:34    Active   Socket: Refused  \n")
    assert (first.peer, first.info) == (IPv4Address("192.168.77.1"), "Active   Socket: Refused")
    assert Session("Mesh_1_2_3_400", "up", "").peer is None and Session("upstream", "up", "").peer is None
    assert BGP.parse("") == ()  # no BIRD


def test_the_api_side(recorded: Snapshot) -> None:
    node = recorded.api[API_NODES][0]
    assert node.ready and node.pod_cidr and node.address == recorded.setting.nodes[node.name]
    assert node.kubelet.startswith("v1.") and node.runtime.startswith("containerd://")
    echo = [pod for pod in recorded.api[API_PODS] if pod.label("app") == "echo"]
    assert len(echo) == len(recorded.nodes) and all(pod.running and pod.ready and not pod.host_network for pod in echo)
    services = {str(service): service for service in recorded.api[API_SERVICES]}
    assert [(port.name, port.port, port.protocol) for port in services["kube-system/kube-dns"].ports][:2] == [
        ("dns", 53, "UDP"),
        ("dns-tcp", 53, "TCP"),
    ]
    assert services["hoplab-verify/single"].ports[0].node_port == 30080
    assert services["hoplab-verify/single-local"].external_policy == "Local"
    assert str(echo[0]) == f"hoplab-verify/{echo[0].name}" and not echo[0].label("missing")
    behind = [endpoint for endpoint in recorded.api[API_ENDPOINTS] if endpoint.service == "echo"]
    found = {(endpoint.address, endpoint.port, endpoint.ready) for endpoint in behind}
    assert found == {(pod.address, 8080, True) for pod in echo}


def test_api_oddities() -> None:
    node = '{"items": [{"metadata": {"name": "n"}, "status": {"conditions": []}}]}'
    assert API_NODES.parse(node)[0].why_not_ready == "it never reported"
    headless = '{"items": [{"metadata": {"name": "s", "namespace": "d"}, "spec": {"clusterIP": "None"}}]}'
    assert API_SERVICES.parse(headless)[0].cluster_ip is None
    balanced = '{"items": [{"status": {"loadBalancer": {"ingress": [{"ip": "192.168.77.240"}, {"hostname": "lb"}]}}}]}'
    assert API_SERVICES.parse(balanced)[0].balancer_ips == (IPv4Address("192.168.77.240"),)
    slices = '{"items": [{"addressType": "IPv4", "metadata": {}, "ports": [{"port": 1}], "endpoints": [{}]}]}'
    with pytest.raises(FactError, match="has no address"):
        API_ENDPOINTS.parse(slices)
    assert API_ENDPOINTS.parse('{"items": [{"addressType": "IPv6"}]}') == ()


def test_surprises_in_json_say_where() -> None:
    with pytest.raises(FactError, match="links should be a list, not dict"):
        LINKS.parse("{}")
    with pytest.raises(FactError, match=r"links\.ifindex should not be list"):
        LINKS.parse('[{"ifindex": []}]')
    with pytest.raises(FactError, match=r"routes\.dst: 'here' is not an IPv4 range"):
        ROUTES.parse('[{"dst": "here"}]')
    with pytest.raises(FactError, match="routes should be an object, not int"):
        ROUTES.parse("[1]")
    with pytest.raises(FactError, match="is not an IPv4 address"):
        ADDRESSES.parse('[{"addr_info": [{"family": "inet", "local": "x", "prefixlen": 8}]}]')
    assert ROUTES.parse("") == ROUTES.parse("[{}]") == ()


def test_facts_of_a_place_explain_what_is_missing() -> None:
    here = Facts("worker1", {"routes": Output(2, "", "Cannot open netlink socket\n"), "links": Output(0, "what?")})
    with pytest.raises(FactError, match=r"`ip -4 -d -j route show table all` ended with 2 on worker1: Cannot open"):
        here[ROUTES]
    with pytest.raises(FactError, match="addresses was not looked at on worker1"):
        here[ADDRESSES]
    with pytest.raises(FactError, match="links on worker1: links is not JSON"):
        here[LINKS]


def test_a_node_without_wireguard_has_no_peers() -> None:
    assert WIREGUARD.parse("\n") == ()
