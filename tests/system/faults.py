"""Faults: one place of a real lab broken by hand, the lessons that have to notice, and the way back.

Each is a pair of shell commands, run on a node (or in the network namespace of one of its pods) with everything filled
in that the lab alone knows. While they are tried, kube-proxy, flanneld and Felix stand still (SIGSTOP) on all nodes:
they would repair within seconds what is broken here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import count
from typing import Any

from hoplab.core.paths import LabPaths
from hoplab.core.wait import NotYet, until
from hoplab.expectations.cni import calico
from hoplab.expectations.cni.flannel import BACKEND_DATA6, vtep_mac
from hoplab.expectations.loadbalancer import metallb
from hoplab.observe.facts import bgp
from hoplab.observe.facts.api_endpointslices import API_ENDPOINTS
from hoplab.observe.snapshot import Node, Pod
from hoplab.verify import session as lab_session
from hoplab.verify import workload
from hoplab.verify.objects import INGRESSES
from hoplab.verify.session import LabSession

PEACE = ("kube-proxy", "flanneld", "calico-node")
SAVED = "/run/hoplab-fault"  # with a number: several faults may be made at once
PATIENCE = 300.0  # seconds until Kubernetes has followed


@dataclass(frozen=True)
class Site:
    """Where things get broken: the node that the pod `single` runs on, and its echo pod."""

    session: LabSession
    node: Node
    pod: Pod
    other: Node

    @classmethod
    def of(cls, session: LabSession) -> Site:
        node = session.client.node
        return cls(session, node, session.client, next(each for each in session.snapshot.nodes if each is not node))

    @property
    def words(self) -> Mapping[str, object]:
        """What commands and sentences are filled in with."""
        service, empty, local = (self.session.service(name) for name in ("echo", "nobody", "single-local"))
        setting = self.session.snapshot.setting
        vxlan = (setting.cni, setting.backend) == ("flannel", "vxlan")
        assert self.pod.host_end
        return {
            "node": self.node.name,
            "address": self.node.address,
            "network": self.session.snapshot.setting.network,
            "prefix": self.session.snapshot.setting.network.prefixlen,
            "gateway": self.session.snapshot.setting.gateway,
            "dns": self.session.snapshot.setting.dns_ip,
            "pods": self.session.snapshot.setting.pod_cidr,
            "own": self.node.pod_cidr,
            "last": self.node.pod_cidr.broadcast_address,
            "bridge": self.node.pod_cidr[1],
            "spare": self.node.pod_cidr[99],
            "pod": self.pod,
            "pod_address": self.pod.address,
            "pod_netns": self.pod.netns,
            "host_end": self.pod.host_end.name,
            "remote": self.other.pod_cidr,
            "half": next(self.other.pod_cidr.subnets()),
            "vtep": self.other.pod_cidr[0],
            "vtep_mac": vtep_mac(self.other) if vxlan else "",
            "own_mac": vtep_mac(self.node) if vxlan else "",
            "single": self.session.single.address,
            "other": self.other.name,
            "announced": self.announced,
            "other_address": self.other.address,
            "service": service,
            "chain": service.chain,
            **(self.calico_words if setting.cni == "calico" else {}),
            **(self.ipv6_words if setting.ipv6 else {}),
            **(self.ingress_words if self.session.snapshot.setting.ingress != "none" else {}),
            "cluster_ip": service.cluster_ip,
            "empty": empty,
            "local": local,
        }

    @property
    def calico_words(self) -> Mapping[str, object]:
        lab = self.session.snapshot
        (own, *_), (block, *_) = (calico.blocks(lab, node) for node in (self.node, self.other))
        return {
            "own_block": own.cidr,
            "block": block.cidr,
            "other_pod": next(pod.address for pod in lab.pods_on(self.other) if pod.api.label("app") == "echo"),
            "mesh": f"Mesh_{self.other.address}".replace(".", "_"),
        }

    @property
    def ipv6_words(self) -> Mapping[str, object]:
        setting, service = self.session.snapshot.setting, self.session.service("echo", ipv6=True)
        assert setting.ipv6
        known = {
            "pod6": self.pod.address6,
            "gateway6": setting.ipv6.network[1],
            "cluster_ip6": service.cluster_ip,
            "chain6": service.chain,
        }
        if setting.cni != "flannel":
            return known
        vxlan = setting.backend == "vxlan"
        return {
            **known,
            "bridge6": self.node.pod_cidr6[1],
            "remote6": self.other.pod_cidr6,
            "vtep6": self.other.pod_cidr6[0],
            "other6": self.other.address6,
            "vtep6_mac": vtep_mac(self.other, BACKEND_DATA6) if vxlan else "",
            "own6_mac": vtep_mac(self.node, BACKEND_DATA6) if vxlan else "",
        }

    @property
    def ingress_words(self) -> Mapping[str, object]:
        fronts = self.session.controller_pods
        return {
            "front": fronts[self.node.name].address,
            "front_netns": fronts[self.node.name].netns,
            "first_front": fronts[self.session.snapshot.nodes[0].name].address,
            "app2": self.session.service(workload.APP2).cluster_ip,
        }

    @property
    def announced(self) -> IPv4Address:
        """The address that the lab's load balancer gave to `announced`; one that leads nowhere where it has none."""
        known = self.session.snapshot.setting.load_balancer != "none"
        return self.session.announced("announced") if known else IPv4Address("203.0.113.1")

    @property
    def announcer(self) -> Node:
        """The node that answers ARP for this address."""
        name = metallb.announcer(self.announced, [self.node.name, self.other.name])
        return self.node if name == self.node.name else self.other

    def run(self, command: str, node: Node | None = None) -> None:
        """A shell command on the node (or another one), as root; it has to end well."""
        text, name = command.format(**self.words), (node or self.node).name
        found = self.session.hosts.batch(name, {"it": f"( set -e; {text}\n)"})["it"]
        assert found.code == 0, f"`{text}` on {name} ended with {found.code}: {found.out}{found.err}"

    @contextmanager
    def still(self) -> Iterator[None]:
        """While the body runs, what would repair the nodes' network stands still."""
        try:
            for node in self.session.snapshot.nodes:
                self.run(f"kill -STOP $(pidof {' '.join(PEACE)})", node)
            yield
        finally:
            for node in self.session.snapshot.nodes:
                self.run(f"kill -CONT $(pidof {' '.join(PEACE)})", node)


@contextmanager
def opened(paths: LabPaths) -> Iterator[Site]:
    """A running lab that can be broken: its kube-proxy, flanneld and Felix stand still until the body ends."""
    with lab_session.opened(paths) as session:
        site = Site.of(session)
        with site.still():
            yield site


Broken = Callable[[Site], AbstractContextManager[None]]  # the site is broken while the context is open
_NUMBERS = count()


def on(where: Callable[[Site], Node]) -> Callable[[str, str], Broken]:
    """Faults that are a command on this node; ``$saved`` is a file of each one's own, for what was there before."""

    def fault(broken: str, repaired: str) -> Broken:
        saved = f"saved={SAVED}-{next(_NUMBERS)}; "

        @contextmanager
        def hurt(site: Site) -> Iterator[None]:
            node = where(site)
            try:
                site.run(saved + broken, node)
                yield
            finally:
                site.run(saved + repaired, node)

        return hurt

    return fault


on_node = on(lambda site: site.node)
on_other = on(lambda site: site.other)
on_first = on(lambda site: site.session.snapshot.nodes[0])  # whom lessons ask where one is as good as another
on_announcer = on(lambda site: site.announcer)
on_silent = on(lambda site: site.other if site.announcer is site.node else site.node)


def in_pod(broken: str, repaired: str) -> Broken:
    """Both commands run in the pod's network namespace, with the node's tools."""
    enter = "nsenter --net=/run/netns/{pod_netns} "
    return on_node(enter + broken, enter + repaired)


def edited(path: str, edit: Callable[[dict[str, Any]], None], noticed: Callable[[LabSession, Node], bool]) -> Broken:
    """An object is another one, and the ingress controller of every node has noticed."""

    @contextmanager
    def hurt(site: Site) -> Iterator[None]:
        with site.session.edited(path, edit):
            for node in site.session.snapshot.nodes:
                wait(lambda node=node: noticed(site.session, node))  # type: ignore[misc]
            yield

    return hurt


def made(
    path: str, body: Callable[[LabSession], dict[str, Any]], noticed: Callable[[LabSession, Node], bool]
) -> Broken:
    """There is an object more, and the ingress controller of every node has noticed."""

    @contextmanager
    def hurt(site: Site) -> Iterator[None]:
        with site.session.created(path, body(site.session)):
            for node in site.session.snapshot.nodes:
                wait(lambda node=node: noticed(site.session, node))  # type: ignore[misc]
            yield

    return hurt


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


def forgotten(path: str) -> Callable[[dict[str, Any]], None]:
    def edit(item: dict[str, Any]) -> None:
        paths = rules_of(item, workload.HOST1)
        paths[:] = [each for each in paths if each["path"] != path]

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
        site.run("kill -STOP $(pgrep -f '[i]ngress/controller.py')", node)
    try:
        _, item = site.session.api("GET", f"{INGRESSES}/apps")
        status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
        code, answer = site.session.api("PUT", f"{INGRESSES}/apps/status", {**item, "status": status})
        assert code == 200, answer
        yield
    finally:
        for node in site.session.snapshot.nodes:
            site.run("kill -CONT $(pgrep -f '[i]ngress/controller.py')", node)


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


def nft(edit: str) -> Broken:
    """kube-proxy's table of nftables goes through a filter (``sed ...``), and is put back as it was."""
    old = "echo delete table ip kube-proxy"
    return on_node(
        f"nft list table ip kube-proxy >$saved; ( {old}; {edit} $saved ) | nft -f -",
        f"( {old}; cat $saved ) | nft -f -; rm $saved",
    )


def rules(table: str, edit: str, iptables: str = "iptables") -> Broken:
    """A whole table of iptables goes through a filter (``sed ...``), and is put back as it was."""
    return on_node(
        f"{iptables}-save -c -t {table} >$saved; {edit} $saved | {iptables}-restore -c",
        f"{iptables}-restore -c <$saved; rm $saved",
    )


def posted(path: str, body: Mapping[str, Any], status: Mapping[str, Any]) -> Broken:
    """An object that nobody made, with a status that nobody reported, on a node whose kubelet stands still."""

    @contextmanager
    def hurt(site: Site) -> Iterator[None]:
        filled = _filled(body, site.words)
        name = filled["metadata"]["name"]
        site.run("kill -STOP $(pidof kubelet)")
        try:
            code, made = site.session.api("POST", path, filled)
            assert code == 201, made
            code, answer = site.session.api(
                "PUT", f"{path}/{name}/status", {**made, "status": _filled(status, site.words)}
            )
            assert code == 200, answer
            yield
        finally:
            site.session.api("DELETE", f"{path}/{name}?gracePeriodSeconds=0")
            site.run("kill -CONT $(pidof kubelet)")

    return hurt


def _filled(value: Any, words: Mapping[str, object]) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(each, words) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, words) for each in value]
    return value.format(**words) if isinstance(value, str) else value


def wait(reached: Callable[[], bool]) -> None:
    """Until it is so; a test fails where that takes beyond all reason."""
    until(lambda: True if reached() else NotYet("it is not so"), PATIENCE, poll_s=0.5)


def moved_service(namespace: str, name: str, address: str) -> Broken:
    """A service has another ClusterIP. (Services can't be changed so: it is deleted and made anew, twice.)"""

    @contextmanager
    def hurt(site: Site) -> Iterator[None]:
        path = f"/api/v1/namespaces/{namespace}/services"
        code, before = site.session.api("GET", f"{path}/{name}")
        assert code == 200, before
        again = {key: value for key, value in before.items() if key != "status"}
        again["metadata"] = {key: before["metadata"].get(key, {}) for key in ("name", "labels", "annotations")}

        def endpoints() -> set[IPv4Address]:
            code, found = site.session.api("GET", API_ENDPOINTS.command)
            assert code == 200, found
            return {
                each.address
                for each in API_ENDPOINTS.parse(json.dumps(found))
                if (each.namespace, each.service) == (namespace, name) and each.ready
            }

        behind = endpoints()

        def replace(to: str) -> None:
            site.session.api("DELETE", f"{path}/{name}")
            spec = {**again["spec"], "clusterIP": to, "clusterIPs": [to]}
            code, answer = site.session.api("POST", path, {**again, "spec": spec})
            assert code == 201, answer
            wait(lambda: endpoints() == behind)

        replace(address)
        try:
            yield
        finally:
            replace(before["spec"]["clusterIP"])

    return hurt


@contextmanager
def not_ready(site: Site) -> Iterator[None]:
    """The API says that the node is not Ready, and its kubelet can't object."""
    path = f"/api/v1/nodes/{site.node.name}"
    site.run("kill -STOP $(pidof kubelet)")
    try:
        _, node = site.session.api("GET", path)
        conditions = [each for each in node["status"]["conditions"] if each["type"] != "Ready"]
        broken = {"type": "Ready", "status": "False", "reason": "Broken", "message": "broken by hand"}
        status = {**node["status"], "conditions": [*conditions, broken]}
        code, answer = site.session.api("PUT", f"{path}/status", {**node, "status": status})
        assert code == 200, answer
        yield
    finally:
        site.run("kill -CONT $(pidof kubelet)")


@dataclass(frozen=True)
class Fault:
    name: str
    broken: Broken
    caught_by: tuple[str, ...]  # exactly these read-only lessons fail, and ...
    says: str  # the first of them (or of the next) says this
    traffic: tuple[str, ...] = ()  # ... of those that send packets, these; others are not tried
    needs: Mapping[str, Any] = field(default_factory=dict)  # what a lab must have, as markers of lessons say it
    alone: bool = False  # not to be made together with others: it bears on what they touch

    @property
    def lessons(self) -> tuple[str, ...]:
        """The lessons that have to fail, first the one that says ``says``."""
        return (*self.caught_by, *self.traffic)

    @property
    def file(self) -> str:
        """The name of its recording: `the-masquerade-rule-is-gone.json`."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower().replace("'", "")) + ".json"


FLANNEL, CALICO = {"cni": "flannel"}, {"cni": "calico"}
FLANNEL_VXLAN = {**FLANNEL, "backend": "vxlan"}
FLANNEL6, FLANNEL6_VXLAN = ({**needs, "ipv6": True} for needs in (FLANNEL, FLANNEL_VXLAN))

FAULTS = (
    Fault(
        "a node's address is in no network",
        on_node(
            "ip route show default >$saved; ip address add {address}/32 dev eth0; "
            "ip address del {address}/{prefix} dev eth0; ip route replace {network} dev eth0 proto kernel scope link "
            "src {address}; ip route replace $(cat $saved)",
            "ip address add {address}/{prefix} brd + dev eth0; ip address del {address}/32 dev eth0; "
            "ip route replace $(cat $saved); rm $saved",
        ),
        ("every_node_has_its_own_address",),
        "{node} has no {address} in {network} on eth0",
    ),
    Fault(
        "a pod has another address than Kubernetes knows",
        in_pod(
            "sh -c 'ip address del {pod_address}/24 dev eth0; ip address add {spare}/24 dev eth0; "
            "ip route add default via {bridge}; ip route add {pods} via {bridge}'",
            "sh -c 'ip address flush dev eth0 scope global; ip address add {pod_address}/24 brd + dev eth0; "
            "ip route add default via {bridge}; ip route add {pods} via {bridge}'",
        ),
        ("every_pod_has_its_own_address",),
        "has {pod_address}, the address of {pod}",
        needs=FLANNEL,
        alone=True,
    ),
    Fault(
        "a pod has a public address",
        in_pod("ip address add 8.8.8.8/32 dev eth0", "ip address del 8.8.8.8/32 dev eth0"),
        ("all_addresses_are_private",),
        "eth0 of {pod} has the public address 8.8.8.8",
    ),
    Fault(
        "a pod has no loopback address",
        in_pod("ip address del 127.0.0.1/8 dev lo", "ip address add 127.0.0.1/8 dev lo"),
        ("every_namespace_has_its_own_loopback",),
        "{pod} has no 127.0.0.1",
    ),
    Fault(
        "a veth that belongs to no pod",
        on_node("ip link add stray type veth peer name stray2", "ip link del stray"),
        ("a_node_has_the_interfaces_of_its_cni",),
        "veths for",
    ),
    Fault(
        "a veth is unplugged",
        on_node("ip link set {host_end} down", "ip link set {host_end} up"),
        ("a_pod_hangs_on_a_veth_pair",),
        "one end of the pair of {pod} is down",
    ),
    Fault(
        "a host end left the bridge",
        on_node(
            "ip link set {host_end} nomaster",
            "ip link set {host_end} master cni0; bridge link set dev {host_end} hairpin on",
        ),
        ("the_host_end_is_a_port_of_the_bridge",),
        "is a port of no bridge, not of cni0",
        traffic=("pods_of_one_node_need_no_gateway",),
        needs=FLANNEL,
    ),
    Fault(
        "a port of the bridge lets nothing out where it came in",
        on_node("bridge link set dev {host_end} hairpin off", "bridge link set dev {host_end} hairpin on"),
        ("the_host_end_is_a_port_of_the_bridge",),
        "{host_end}, the end of {pod} on {node}, has no hairpin mode",
        needs=FLANNEL,
    ),
    Fault(
        "the MTU of cni0 is wrong",
        on_node("ip link set cni0 mtu 1400", "ip link set cni0 mtu 1450"),
        ("encapsulation_leaves_room_in_the_mtu",),
        "cni0 on {node} has the MTU 1400, not 1450",
        needs=FLANNEL_VXLAN,
    ),
    Fault(
        "another CNI's file comes first",
        on_node(
            'echo \'{{"cniVersion": "1.0.0", "name": "x", "type": "ptp"}}\' >/etc/cni/net.d/00-x.conf',
            "rm /etc/cni/net.d/00-x.conf",
        ),
        ("the_runtime_is_told_which_plugin_to_call",),
        "00-x.conf, not 10-flannel.conflist",
        needs=FLANNEL,
    ),
    Fault(
        "IPAM does not know of an address",
        on_node(
            "mv /var/lib/cni/networks/cbr0/{pod_address} $saved",
            "mv $saved /var/lib/cni/networks/cbr0/{pod_address}",
        ),
        ("ipam_gave_each_pod_its_address",),
        "has not given {pod_address} to the eth0 of {pod}",
        needs=FLANNEL,
    ),
    Fault(
        "the route to the node's own pods is gone",
        on_node("ip route del {own} dev cni0", "ip route add {own} dev cni0 proto kernel scope link src {bridge}"),
        ("a_node_routes_its_own_range_to_its_pods", "the_longest_prefix_decides"),
        "{node} has no route {own} dev cni0",
        needs=FLANNEL,
    ),
    Fault(
        "the route to the other node's pods is gone",
        on_node("ip route del {remote}", "ip route add {remote} via {vtep} dev flannel.1 onlink"),
        ("a_node_routes_every_other_range_to_its_node", "the_longest_prefix_decides", "kinds_of_routes"),
        "{node} has no route {remote} via {vtep} dev flannel.1 onlink",
        traffic=("pod_to_pod_is_never_translated",),
        needs=FLANNEL_VXLAN,
    ),
    Fault(
        "an FDB entry is gone",
        on_node(
            "bridge fdb del {vtep_mac} dev flannel.1 dst {other_address} self",
            "bridge fdb add {vtep_mac} dev flannel.1 dst {other_address} self permanent",
        ),
        ("who_unwraps_is_written_down",),
        "{node} has no FDB entry {vtep_mac} dev flannel.1 dst {other_address}",
        traffic=("between_nodes_a_packet_travels_wrapped",),
        needs=FLANNEL_VXLAN,
    ),
    Fault(
        "a neighbour entry is gone",
        on_node(
            "ip neigh del {vtep} dev flannel.1",
            "ip neigh replace {vtep} lladdr {vtep_mac} dev flannel.1 nud permanent",
        ),
        ("who_unwraps_is_written_down",),
        "{node} has no neighbour {vtep} dev flannel.1",
        needs=FLANNEL_VXLAN,
    ),
    Fault(
        "flannel.1 has another MAC than announced",
        on_node(  # the kernel forgets the neighbours of an interface whose MAC changes
            "ip link set flannel.1 address 02:00:00:00:00:01",
            "ip link set flannel.1 address {own_mac}; "
            "ip neigh replace {vtep} lladdr {vtep_mac} dev flannel.1 nud permanent",
        ),
        ("the_announced_mac_is_the_interfaces", "who_unwraps_is_written_down"),
        "but flannel.1 has 02:00:00:00:00:01",
        needs=FLANNEL_VXLAN,
    ),
    Fault(
        "a longer prefix leads astray",
        on_node("ip route add {half} via {gateway} dev eth0", "ip route del {half} via {gateway} dev eth0"),
        ("the_longest_prefix_decides",),
        "by `{half} via {gateway} dev eth0`, not by",
        needs=FLANNEL,
    ),
    Fault(
        "the default route is gone",
        on_node("ip route show default >$saved; ip route del default", "ip route add $(cat $saved); rm $saved"),
        ("a_nodes_gateway_is_the_labs", "kinds_of_routes", "the_longest_prefix_decides"),
        "{node} has the default route None",
    ),
    Fault(
        "another table is asked last",
        on_node("ip rule add pref 40000 table main", "ip rule del pref 40000 table main"),
        ("the_tables_are_asked_in_order",),
        "{node} ends with default and main",
    ),
    Fault(
        "forwarding is off",
        on_node("sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1"),
        ("nodes_forward",),
        "net.ipv4.ip_forward is 0 on {node}",
        traffic=("pod_to_pod_is_never_translated",),
    ),
    Fault(
        "a pod's gateway is not the bridge",
        in_pod("ip route replace default via {spare} dev eth0", "ip route replace default via {bridge} dev eth0"),
        ("a_pods_gateway_is_its_nodes_bridge",),
        "not one via {bridge} dev eth0",
        traffic=("the_outside_sees_the_nodes_address",),
        needs=FLANNEL,
    ),
    Fault(
        "the gateway's MAC is written down, not learned",
        on_node(
            "ip neigh replace {gateway} dev eth0 nud permanent "
            "lladdr $(ip neigh show {gateway} dev eth0 | sed 's/.*lladdr //; s/ .*//')",
            "ip neigh del {gateway} dev eth0",
        ),
        ("a_nodes_gateway_is_the_labs",),
        "{node} has learned no MAC for {gateway}",
    ),
    Fault(
        "a pod reaches its neighbours by the gateway",
        in_pod(
            "sh -c 'ip route add {bridge} dev eth0; ip route replace {own} via {bridge} dev eth0'",
            "sh -c 'ip route replace {own} dev eth0 proto kernel scope link src {pod_address}; "
            "ip route del {bridge} dev eth0'",
        ),
        ("the_same_subnet_goes_direct",),
        "{pod} does not reach {own} directly",
        needs=FLANNEL,
    ),
    Fault(
        "a pod's address is of another node's range",
        posted(
            "/api/v1/namespaces/default/pods",
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "stray"},
                "spec": {
                    "nodeName": "{node}",
                    "automountServiceAccountToken": False,
                    "containers": [{"name": "echo", "image": workload.IMAGE, "imagePullPolicy": "Never"}],
                },
            },
            {
                "phase": "Running",
                "hostIP": "{address}",
                "hostIPs": [{"ip": "{address}"}],
                "podIP": "10.244.200.9",
                "podIPs": [{"ip": "10.244.200.9"}],
            },
        ),
        (
            "pods_are_in_their_nodes_range",
            "every_pod_has_its_own_address",
            "a_node_has_the_interfaces_of_its_cni",
        ),
        "default/stray",
    ),
    Fault(
        "the range's last address is not for broadcast",
        on_node(
            "ip route del table local broadcast {last} dev cni0",
            "ip route add table local broadcast {last} dev cni0 proto kernel scope link src {bridge}",
        ),
        ("a_nodes_range_has_its_ends",),
        "is no broadcast address",
        needs=FLANNEL,
    ),
    Fault(
        "kube-dns has another ClusterIP",
        moved_service("kube-system", "kube-dns", "10.96.0.11"),
        (
            "services_have_a_range_of_their_own",
            "only_rules_know_a_cluster_ip",
            "marked_packets_are_masked",
            "a_service_leads_to_its_endpoints",
            "every_endpoint_gets_the_same_share",
        ),
        "kube-system/kube-dns has 10.96.0.11, not 10.96.0.10",
        alone=True,
    ),
    Fault(
        "an interface has a ClusterIP",
        on_node("ip address add {dns}/32 dev lo", "ip address del {dns}/32 dev lo"),
        ("no_interface_owns_a_cluster_ip",),
        "lo of {node} has {dns}, a ClusterIP",
    ),
    Fault(
        "the MASQUERADE rule is gone",
        rules("nat", "grep -vE -- '-A FLANNEL-POSTRTG -s .* ! -d 224.*MASQUERADE'"),
        ("what_leaves_the_pod_range_is_masqueraded",),
        "to {gateway} ends in ACCEPT, not MASQUERADE",
        traffic=("the_outside_sees_the_nodes_address",),
        needs={**FLANNEL, "cni_nftables": False},
    ),
    Fault(
        "flannel's table of nftables masks nothing",
        on_node(
            "nft list table ip flannel-ipv4 >$saved; "
            "( echo delete table ip flannel-ipv4; sed '/masquerade/d' $saved ) | nft -f -",
            "( echo delete table ip flannel-ipv4; cat $saved ) | nft -f -; rm $saved",
        ),
        ("what_leaves_the_pod_range_is_masqueraded",),
        "to {gateway} ends in ACCEPT, not MASQUERADE",
        traffic=("the_outside_sees_the_nodes_address",),
        needs={**FLANNEL, "cni_nftables": True},
    ),
    Fault(
        "pod to pod is masqueraded",
        on_node(
            "iptables -t nat -I POSTROUTING -s {pods} -d {pods} -j MASQUERADE",
            "iptables -t nat -D POSTROUTING -s {pods} -d {pods} -j MASQUERADE",
        ),
        ("what_leaves_the_pod_range_is_masqueraded",),
        "is translated",
        traffic=("pod_to_pod_is_never_translated", "a_cluster_ip_is_a_pod_chosen_per_connection"),
    ),
    Fault(
        "DNS is dropped",
        on_node("iptables -I FORWARD -p udp --dport 53 -j DROP", "iptables -D FORWARD -p udp --dport 53 -j DROP"),
        (),
        "asked {dns} for kubernetes.default.svc.cluster.local and got",
        traffic=("kube_dns_answers_a_pod",),
    ),
    Fault(
        "nobody calls KUBE-SERVICES in PREROUTING",
        rules("nat", "grep -vE -- '-A PREROUTING .*KUBE-SERVICES'"),
        (
            "kube_proxy_hooks_in_its_chains",
            "a_service_leads_to_its_endpoints",
            "marked_packets_are_masked",
            "node_ports_come_last",
            "every_endpoint_gets_the_same_share",
            "a_local_service_stays_on_its_node",
            "a_sticky_service_remembers_its_clients",
        ),
        "PREROUTING of nat on {node} never calls KUBE-SERVICES",
        needs={"proxy": "iptables"},
    ),
    Fault(
        "the rules of a KUBE-SVC chain are flushed",
        on_node(
            "iptables-save -c -t nat >$saved; iptables -t nat -F {chain}",
            "iptables-restore -c <$saved; rm $saved",
        ),
        ("a_service_leads_to_its_endpoints", "every_endpoint_gets_the_same_share", "marked_packets_are_masked"),
        "{service} leads to nothing",
        traffic=("a_cluster_ip_is_a_pod_chosen_per_connection",),
        needs={"proxy": "iptables"},
    ),
    Fault(
        "an endpoint gets nearly all connections",
        rules("nat", "sed -E 's/--probability 0\\.[0-9]+/--probability 0.99000000022/'"),
        ("every_endpoint_gets_the_same_share",),
        "0.99 for",
        needs={"proxy": "iptables"},
    ),
    Fault(
        "KUBE-MARK-MASQ does not mark",
        rules("nat", "grep -vE -- '-A KUBE-MARK-MASQ '"),
        ("marked_packets_are_masked", "node_ports_come_last"),
        "is not marked",
        traffic=("a_node_port_answers_on_every_node", "a_load_balancers_address_reaches_the_pods"),
        needs={"proxy": "iptables"},
    ),
    Fault(
        "what came from outside to a Local service is masked too",
        on_node(
            "iptables -t nat -I POSTROUTING -s {gateway} -p tcp --dport 8080 -j MASQUERADE",
            "iptables -t nat -D POSTROUTING -s {gateway} -p tcp --dport 8080 -j MASQUERADE",
        ),
        (),
        "not {gateway}",
        traffic=("the_local_policy_keeps_the_clients_address",),
    ),
    Fault(
        "what came to an announced address of a Local service is masked too",
        on_node(
            "iptables -t nat -I POSTROUTING -s {gateway} -p tcp --dport 8080 -j MASQUERADE",
            "iptables -t nat -D POSTROUTING -s {gateway} -p tcp --dport 8080 -j MASQUERADE",
        ),
        (),
        "not {gateway}",
        traffic=("a_local_service_is_announced_where_its_pod_is",),
        needs={"load_balancer": "metallb"},
    ),
    Fault(
        "two nodes answer ARP for a balancer's address",  # one by its kernel: an interface has it
        on_silent("ip address add {announced}/32 dev lo", "ip address del {announced}/32 dev lo"),
        ("the_load_balancer_gives_addresses_of_its_pool",),
        "{announced} of hoplab-verify/announced is the address of lo of",
        traffic=("one_node_answers_arp_for_a_balancers_address",),
        needs={"load_balancer": "metallb"},
    ),
    Fault(
        "what comes to a balancer's address is dropped",
        on_announcer(
            "iptables -t raw -I PREROUTING -d {announced} -j DROP",
            "iptables -t raw -D PREROUTING -d {announced} -j DROP",
        ),
        (),
        "{announced} does not answer from outside",
        traffic=("an_announced_address_reaches_the_pods",),
        needs={"load_balancer": "metallb"},
    ),
    Fault(
        "the speaker of the only node with a pod stands still",
        on_node("kill -STOP $(pidof metallb-speaker)", "kill -CONT $(pidof metallb-speaker)"),
        (),
        "no node answers ARP for",
        traffic=("a_local_service_is_announced_where_its_pod_is",),
        needs={"load_balancer": "metallb"},
    ),
    Fault(
        "KUBE-NODEPORTS is never reached",
        rules("nat", "grep -vE -- '-A KUBE-SERVICES .*-j KUBE-NODEPORTS'"),
        ("node_ports_come_last", "a_local_service_stays_on_its_node"),
        "is not for the node's own addresses",
        needs={"proxy": "iptables"},
    ),
    Fault(
        "the userspace proxy is back",
        on_node("iptables -t nat -N KUBE-PORTALS-HOST", "iptables -t nat -X KUBE-PORTALS-HOST"),
        ("portals_are_gone",),
        "has KUBE-PORTALS-HOST",
        needs={"proxy": "iptables"},
    ),
    Fault(
        "a service without endpoints is not rejected",
        rules("filter", "grep -vE -- 'has no endpoints.*REJECT'"),
        ("a_service_without_endpoints_rejects", "only_rules_know_a_cluster_ip"),
        "for hoplab-verify/nobody",
        traffic=("a_refused_service_says_so_at_once",),
        needs={"proxy": "iptables"},
    ),
    Fault(
        "a node does not know a ClusterIP",
        rules("nat", "grep -vE -- '-A KUBE-SERVICES .*default/kubernetes:https'"),
        (
            "only_rules_know_a_cluster_ip",
            "a_service_leads_to_its_endpoints",
            "marked_packets_are_masked",
            "every_endpoint_gets_the_same_share",
        ),
        "the rules of {node} lack",
        needs={"proxy": "iptables"},
    ),
    Fault(
        "something stops what the policy denies",
        on_node("iptables -I FORWARD -s {pod_address} -j DROP", "iptables -D FORWARD -s {pod_address} -j DROP"),
        (),
        "does not answer {pod}",
        traffic=("a_policy_that_nobody_enforces_stops_nothing",),
        needs=FLANNEL,
    ),
    Fault(
        "what another node translated does not arrive",
        on_node(
            "iptables -I FORWARD -d {single} -s {remote} -j DROP", "iptables -D FORWARD -d {single} -s {remote} -j DROP"
        ),
        (),
        "does not answer",
        traffic=("the_destination_changes_on_the_way",),
    ),
    Fault(
        "a Local service is not dropped where it has no pod",
        on_other(
            "iptables-save -c -t filter >$saved; grep -v 'has no local endpoints' $saved | iptables-restore -c",
            "iptables-restore -c <$saved; rm $saved",
        ),
        ("a_local_service_stays_on_its_node",),
        "{other}, without a pod of {local}, ends port 30081 in ACCEPT",
        needs={"proxy": "iptables"},
    ),
    Fault(
        "nobody remembers where a client was sent",
        rules("nat", "grep -v -- '--rcheck'"),
        ("a_sticky_service_remembers_its_clients",),
        "keeps clients by nothing",
        traffic=("a_client_stays_with_its_endpoint",),
        needs={"proxy": "iptables"},
    ),
    Fault(
        "the route to a host-gw neighbour's pods is gone",
        on_node("ip route del {remote}", "ip route add {remote} via {other_address} dev eth0"),
        ("a_node_routes_every_other_range_to_its_node", "the_longest_prefix_decides", "kinds_of_routes"),
        "{node} has no route {remote} via {other_address} dev eth0",
        traffic=("pod_to_pod_is_never_translated",),
        needs={"backend": "host-gw"},
    ),
    Fault(
        "what is for other nodes' pods is not given to WireGuard",
        on_node("ip route del {pods} dev flannel-wg", "ip route add {pods} dev flannel-wg scope link"),
        ("a_node_routes_every_other_range_to_its_node", "the_longest_prefix_decides", "kinds_of_routes"),
        "{node} has no route {pods} dev flannel-wg",
        traffic=("pod_to_pod_is_never_translated",),
        needs={"backend": "wireguard"},
    ),
    Fault(
        "WireGuard does not know whose a range is",
        on_node(
            "wg set flannel-wg peer $(wg show flannel-wg peers) allowed-ips 203.0.113.0/24",
            "wg set flannel-wg peer $(wg show flannel-wg peers) allowed-ips {remote}",
        ),
        ("who_decrypts_is_written_down",),
        "{node} has no peer of flannel-wg, endpoint {other_address}:51820, allowed ips {remote}",
        traffic=("between_nodes_a_packet_travels_wrapped",),
        needs={"backend": "wireguard"},
    ),
    Fault(
        "the kernel does not call kube-proxy's table before routing",
        nft("sed '/type nat hook prerouting/d'"),
        (
            "kube_proxys_table_is_called_by_the_kernel",
            "a_service_leads_to_its_endpoints",
            "every_endpoint_gets_the_same_share",
            "marked_packets_are_masked",
            "node_ports_come_last",
            "a_local_service_stays_on_its_node",
            "a_sticky_service_remembers_its_clients",
        ),
        "{node} has no chain `nat-prerouting",
        traffic=("a_cluster_ip_is_a_pod_chosen_per_connection",),
        needs={"proxy": "nftables"},
    ),
    Fault(
        "a service is in no map",
        on_node(
            "nft delete element ip kube-proxy service-ips '{{ {cluster_ip} . tcp . 80 }}'",
            "nft add element ip kube-proxy service-ips '{{ {cluster_ip} . tcp . 80 : goto {chain} }}'",
        ),
        (
            "a_service_is_found_in_a_map",
            "a_service_leads_to_its_endpoints",
            "every_endpoint_gets_the_same_share",
            "only_rules_know_a_cluster_ip",
        ),
        "service-ips on {node} does not lead {cluster_ip} . tcp . 80 to {chain}",
        traffic=("a_cluster_ip_is_a_pod_chosen_per_connection",),
        needs={"proxy": "nftables"},
    ),
    Fault(
        "a number that no endpoint has is drawn too",
        nft("sed 's/numgen random mod 2/numgen random mod 3/'"),
        (
            "one_rule_draws_one_of_the_endpoints",
            "a_service_leads_to_its_endpoints",
            "every_endpoint_gets_the_same_share",
        ),
        "does not choose by `numgen random mod 2`",
        needs={"proxy": "nftables"},
    ),
    Fault(
        "the rule that marks is gone",
        nft("sed '/masquerade clusterIP traffic/d'"),
        ("marked_packets_are_masked",),
        "is not marked",
        needs={"proxy": "nftables"},
    ),
    Fault(
        "nothing that is marked is masked",
        nft("sed '/meta mark & 0x00004000 != 0x00000000/d'"),
        ("marked_packets_are_masked",),
        "not masquerading",
        traffic=("a_node_port_answers_on_every_node", "a_load_balancers_address_reaches_the_pods"),
        needs={"proxy": "nftables"},
    ),
    Fault(
        "NodePorts are not looked up",
        nft("sed '/vmap @service-nodeports/d'"),
        ("node_ports_come_last", "a_local_service_stays_on_its_node"),
        "is not for the node's own addresses",
        traffic=("a_node_port_answers_on_every_node",),
        needs={"proxy": "nftables"},
    ),
    Fault(
        "a Local service is not dropped by nftables where it has no pod",
        on_other(
            "nft list table ip kube-proxy >$saved; nft flush map ip kube-proxy no-endpoint-nodeports",
            "( echo delete table ip kube-proxy; cat $saved ) | nft -f -; rm $saved",
        ),
        ("a_local_service_stays_on_its_node",),
        "{other}, without a pod of {local}, ends port 30081 in ACCEPT",
        needs={"proxy": "nftables"},
    ),
    Fault(
        "lots are drawn before anybody remembers a client",
        nft("sed '/ip saddr @affinity-/d'"),
        ("a_sticky_service_remembers_its_clients",),
        "keeps clients by nothing",
        traffic=("a_client_stays_with_its_endpoint",),
        needs={"proxy": "nftables"},
    ),
    Fault(
        "the map of services without endpoints is empty",
        on_node(
            "nft list table ip kube-proxy >$saved; nft flush map ip kube-proxy no-endpoint-services",
            "( echo delete table ip kube-proxy; cat $saved ) | nft -f -; rm $saved",
        ),
        ("only_rules_know_a_cluster_ip",),
        "the rules of {node} lack",
        needs={"proxy": "nftables"},
    ),
    Fault(
        "nothing rejects what is for a ClusterIP that leads nowhere",
        nft("sed '/jump service-endpoints-check/d; /jump cluster-ips-check/d'"),
        ("kube_proxys_table_is_called_by_the_kernel", "a_service_without_endpoints_rejects"),
        "on {node} calls",
        traffic=("a_refused_service_says_so_at_once",),
        needs={"proxy": "nftables"},
    ),
    Fault(
        "rules of kube-proxy's other mode are left",
        on_node("iptables -t nat -N KUBE-SVC-NPX46M4PTMTKRN6Y", "iptables -t nat -X KUBE-SVC-NPX46M4PTMTKRN6Y"),
        ("iptables_knows_no_service",),
        "nat of iptables on {node} has KUBE-SVC-NPX46M4PTMTKRN6Y",
        needs={"proxy": "nftables"},
    ),
    Fault(
        "a node is not Ready",
        not_ready,
        ("nodes_are_ready_with_a_range_each",),
        "{node} is not Ready: broken by hand",
        alone=True,
    ),
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
    Fault(
        "a host leads to the other service",
        edited(f"{INGRESSES}/apps", led_astray, answered_by(workload.APP1, f"http://{workload.HOST2}/")),
        (),
        "answers for app2.yash.com, which is no pod of app2-service",
        traffic=("the_host_decides", "the_configuration_is_the_rules", "kubectl_shows_address_and_rules"),
    ),
    Fault(
        "a path has no rule",
        edited(f"{INGRESSES}/apps", forgotten("/login"), answered_by(workload.APP1, f"http://{workload.HOST1}/login")),
        (),
        "answers for app1.yash.com/login, which is no pod of app2-service",
        traffic=("the_path_decides", "the_configuration_is_the_rules", "kubectl_shows_address_and_rules"),
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
        (),
        "https://app1.yash.com/ gets no answer",
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
    Fault(
        "a bridge beside Calico",
        on_node("ip link add br0 type bridge", "ip link del br0"),
        ("calico_has_no_bridge",),
        "{node} has 1 bridge: br0",
        needs=CALICO,
    ),
    Fault(
        "a pod has no route of its own",
        on_node(  # with its metric, which only Felix knows
            "ip route show {pod_address} >$saved; ip route del {pod_address} dev {host_end}",
            "ip route add $(cat $saved); rm $saved",
        ),
        ("a_node_routes_its_own_range_to_its_pods", "the_longest_prefix_decides"),
        "{node} has no route {pod_address}/32 dev {host_end}",
        needs=CALICO,
    ),
    Fault(
        "BIRD does not know its own block",
        on_node(bgp.ask("disable static1"), bgp.ask("enable static1")),
        (
            "an_address_that_no_pod_has_leads_nowhere",
            "a_node_routes_every_other_range_to_its_node",
            "the_longest_prefix_decides",
            "kinds_of_routes",
        ),
        "{node} has no route blackhole {own_block} proto bird",
        needs={**CALICO, "backend": "bgp"},
    ),
    Fault(
        "a BGP session is closed by hand",
        on_node(bgp.ask("disable {mesh}"), bgp.ask("enable {mesh}")),
        (
            "bgp_tells_the_nodes_of_each_other",
            "a_node_routes_every_other_range_to_its_node",
            "the_longest_prefix_decides",
            "kinds_of_routes",
        ),
        "is not established: Mesh_",  # at either end; the first node in the list is named
        needs={**CALICO, "backend": "bgp"},
    ),
    Fault(
        "what is for a pod elsewhere goes by eth0 and is not wrapped",
        on_node("ip route add {other_pod} via {other_address} dev eth0", "ip route del {other_pod} dev eth0"),
        ("the_longest_prefix_decides",),
        "by `{other_pod}/32 via {other_address} dev eth0`, not by `{block} via {other_address} dev tunl0",
        needs={**CALICO, "backend": "ipip"},
    ),
    Fault(
        "vxlan.calico has another MAC than announced",
        on_node(  # the kernel forgets the neighbours of an interface whose MAC changes
            "cat /sys/class/net/vxlan.calico/address >$saved; ip neigh show dev vxlan.calico >$saved.neigh; "
            "ip link set vxlan.calico address 02:00:00:00:00:01",
            "ip link set vxlan.calico address $(cat $saved); "
            "while read -r ip _ mac _; do ip neigh replace $ip lladdr $mac dev vxlan.calico nud permanent; done "
            "<$saved.neigh; rm $saved $saved.neigh",
        ),
        ("the_announced_mac_is_the_interfaces", "who_unwraps_is_written_down"),
        "but vxlan.calico has 02:00:00:00:00:01",
        needs={**CALICO, "backend": "vxlan"},
    ),
    Fault(
        "a host end answers for nobody",
        on_node("sysctl -qw net.ipv4.conf.{host_end}.proxy_arp=0", "sysctl -qw net.ipv4.conf.{host_end}.proxy_arp=1"),
        ("calicos_gateway_is_nobodys_address",),
        "{host_end} of {node} answers for no other",
        needs=CALICO,
    ),
    Fault(
        "somebody owns 169.254.1.1",
        on_node("ip address add 169.254.1.1/32 dev lo", "ip address del 169.254.1.1/32 dev lo"),
        ("calicos_gateway_is_nobodys_address", "all_addresses_are_private"),
        "169.254.1.1 is on lo of {node}",
        needs=CALICO,
    ),
    Fault(
        "a pod has no address of IPv6",
        in_pod("ip -6 address del {pod6}/64 dev eth0", "ip -6 address add {pod6}/64 dev eth0 nodad"),
        ("everybody_has_an_address_of_each_family",),
        "{pod} has no {pod6} on its eth0",
        needs=FLANNEL6,
    ),
    Fault(
        "a pod has no way out by IPv6",
        in_pod("ip -6 route del default", "ip -6 route add default via {bridge6} dev eth0"),
        ("a_pods_way_out_by_ipv6",),
        "not one via {bridge6} dev eth0",
        traffic=("the_outside_sees_the_nodes_ipv6_address",),
        needs=FLANNEL6,
    ),
    Fault(
        "the route of IPv6 to the other node's pods is gone",
        on_node("ip -6 route del {remote6}", "ip -6 route add {remote6} via {vtep6} dev flannel-v6.1 onlink"),
        ("nodes_route_ipv6_as_they_route_ipv4",),
        "{node} has no route {remote6} via {vtep6} dev flannel-v6.1 onlink",
        traffic=("pods_of_two_nodes_talk_by_ipv6",),
        needs=FLANNEL6_VXLAN,
    ),
    Fault(
        "forwarding of IPv6 is off",
        on_node("sysctl -qw net.ipv6.conf.all.forwarding=0", "sysctl -qw net.ipv6.conf.all.forwarding=1"),
        ("nodes_route_ipv6_as_they_route_ipv4",),
        "net.ipv6.conf.all.forwarding is 0 on {node}",
        traffic=("pods_of_two_nodes_talk_by_ipv6",),
        needs={"ipv6": True},
    ),
    Fault(
        "an FDB entry of IPv6 is gone",
        on_node(
            "bridge fdb del {vtep6_mac} dev flannel-v6.1 dst {other6} self",
            "bridge fdb add {vtep6_mac} dev flannel-v6.1 dst {other6} self permanent",
        ),
        ("who_unwraps_ipv6_is_written_down",),
        "{node} has no FDB entry {vtep6_mac} dev flannel-v6.1 dst {other6}",
        traffic=("pods_of_two_nodes_talk_by_ipv6",),
        needs=FLANNEL6_VXLAN,
    ),
    Fault(
        "the rules of a ClusterIP of IPv6 are flushed",
        on_node(
            "ip6tables-save -c -t nat >$saved; ip6tables -t nat -F {chain6}",
            "ip6tables-restore -c <$saved; rm $saved",
        ),
        ("a_service_of_both_families_has_two_addresses",),
        "leads to ACCEPT",
        traffic=("an_ipv6_cluster_ip_is_a_pod",),
        needs={"ipv6": True, "proxy": "iptables"},
    ),
    Fault(
        "nothing masks IPv6",
        rules("nat", "grep -vE -- '-A FLANNEL-POSTRTG -s .* ! -d ff.*MASQUERADE'", "ip6tables"),
        ("what_leaves_the_ipv6_pod_range_is_masqueraded",),
        "to {gateway6} ends in ACCEPT, not MASQUERADE",
        traffic=("the_outside_sees_the_nodes_ipv6_address",),
        needs=FLANNEL6,
    ),
)


def together(faults: Iterable[Fault]) -> list[tuple[Fault, ...]]:
    """The faults in groups to be made at once: those with the same needs that only read-only lessons notice, none of
    which is another one's too. Each other fault is a group of its own."""
    groups: list[list[Fault]] = []
    for fault in faults:
        fitting = [group for group in groups if all(_independent(fault, other) for other in group)]
        if fitting:
            fitting[0].append(fault)
        else:
            groups.append([fault])
    return [tuple(group) for group in groups]


def _independent(one: Fault, other: Fault) -> bool:
    return not (
        one.alone
        or other.alone
        or one.traffic
        or other.traffic
        or one.needs != other.needs
        or {*one.caught_by} & {*other.caught_by}
    )
