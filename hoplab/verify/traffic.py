"""Requests in a running lab, with the observations of the nodes and the server."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from hoplab.core.errors import LabError
from hoplab.core.ip import with_port
from hoplab.netfilter.ruleset import Rule
from hoplab.observe import capture
from hoplab.observe.capture import Capture
from hoplab.observe.facts import Facts
from hoplab.observe.facts.conntrack import CONNTRACK, Flow
from hoplab.observe.facts.counters import COUNTERS, rose
from hoplab.observe.facts.iptables import IPTABLES
from hoplab.observe.facts.iptables import Rule as IptablesRule
from hoplab.observe.pcap import CapturedPacket
from hoplab.observe.script import Output
from hoplab.observe.snapshot import Node, Pod
from hoplab.verify import workload
from hoplab.verify.claims import ClaimFailed, listed
from hoplab.verify.external import Reply
from hoplab.verify.observations import Observations, conntrack_command, rule_commands
from hoplab.verify.traced import Request

AGAIN_TIMEOUT = 4  # seconds for the same request again, to see what nodes count
UNANSWERED_TIMEOUT = 4  # seconds for a request from outside that may get no answer
HTTP_TIMEOUT = 30  # seconds for the answer to a request from outside


@dataclass(frozen=True)
class Answer:
    """A request as the server received it."""

    remote: IPv4Address | IPv6Address  # the client's address at the server
    local: IPv4Address | IPv6Address | None  # the server's own address
    node: str  # the server's node
    pod: str  # the server's pod
    host: str = ""  # the Host header
    path: str = ""
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    body: int | None = None  # bytes of the body; None from the pods of a lab that was made before they said so

    @property
    def to(self) -> str:
        """Return the endpoint that answered, in the form of an EndpointSlice."""
        return with_port(self.local, workload.PORT)


def parse_answer(text: str) -> Answer:
    """Return a request from the JSON answer of an echo pod; raise ClaimFailed on any other text."""
    try:
        raw = json.loads(text)
        local = raw.get("local_addr", "").rpartition(":")[0].strip("[]")
        return Answer(
            remote=ip_address(raw["remote_addr"].rpartition(":")[0].strip("[]")),
            local=ip_address(local) if local else None,
            node=raw.get("node", ""),
            pod=raw.get("hostname", ""),
            host=raw.get("host", ""),
            path=raw.get("path", ""),
            headers={name: tuple(values) for name, values in raw.get("headers", {}).items()},
            body=raw.get("body"),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ClaimFailed(f"the answer is not from an echo pod: {text[:80]!r}") from None


NOTHING = Facts("", {})


@dataclass(frozen=True)
class Exchange:
    """A pod's request and its answer, with the node's connections, and where asked for its rules before and after."""

    url: str
    output: Output
    flows: tuple[Flow, ...]
    packets: Mapping[str, tuple[CapturedPacket, ...]] = field(default_factory=dict)  # of each capture, by its name
    before: Facts = NOTHING  # translation rules: the nat table of iptables-save, every table of nft
    after: Facts = NOTHING
    again: Callable[[], tuple[str, ...]] = field(default=tuple, compare=False)  # the failures counted in another one

    @property
    def answered(self) -> bool:
        return self.output.code == 0

    @property
    def why(self) -> str:
        """Return why there was no answer, and what nodes counted while the request was made again; "" with an answer.

        The second request is made when this is first read, so that an answered one costs no look.
        """
        if self.answered:
            return ""
        return "; ".join([self.output.err.strip() or str(self.output.code), *self.again()])

    @property
    def answer(self) -> Answer:
        """Return the answer of an echo pod; raise ClaimFailed when there was none."""
        if not self.answered:
            raise ClaimFailed(f"{self.url} did not answer: {self.why}")
        return parse_answer(self.output.out)

    @property
    def answers(self) -> tuple[Answer, ...]:
        """Return the answers to several requests, one a line."""
        return tuple(parse_answer(line) for line in self.output.out.splitlines())

    def counted(self, rule: Rule) -> int | None:
        """Return the packets that a nat rule counted during the request; None for a rule without a counter.

        kube-proxy and flannel write nftables rules without counters.
        """
        if not isinstance(rule, IptablesRule):
            return None
        return packets(self.after, rule) - packets(self.before, rule)


def packets(found: Facts, rule: IptablesRule) -> int:
    """Return the number of packets in the counter of a nat rule."""
    return sum(known.packets for known in found[IPTABLES].rules("nat", rule.chain) if known == rule)


@dataclass
class Stream:
    """Consecutive requests while something changes."""

    sent: int = 0
    lost: list[str] = field(default_factory=list)  # the outcome of each without an answer 200
    reached: set[str] = field(default_factory=set)  # endpoints


class Traffic(Observations):
    """Requests in a running lab: by pods, and by the host outside of the cluster."""

    # By pods

    def request(
        self, pod: Pod, url: str, captures: Mapping[str, Capture] | None = None, *, rules: bool = False
    ) -> Exchange:
        """Make an HTTP request in a pod's network namespace; with ``rules`` read the node's before and after it.

        A URL that ends in ``[1-24]`` makes 24 requests, each on a connection of its own. ``captures`` run meanwhile.
        """
        self.requests.append(Request.of(pod, url))
        place, listing = capture.new_place(), rule_commands() if rules else {}
        commands = {
            **{f"before-{name}": command for name, command in listing.items()},
            **capture.start(captures or {}, place),
            "answer": in_pod(pod, self.probe.command(url)),
            **capture.stop(captures or {}, place),
            "flows": conntrack_command(pod.address),
            **{f"after-{name}": command for name, command in listing.items()},
        }
        found = self.hosts.batch(pod.node.name, commands)
        before, after = (
            Facts(pod.node.name, {name: found[f"{when}-{name}"] for name in listing}) for when in ("before", "after")
        )
        flows = Facts(pod.node.name, {CONNTRACK.name: found["flows"]})[CONNTRACK]
        command = in_pod(pod, self.probe.command(url, AGAIN_TIMEOUT))

        def again() -> tuple[str, ...]:
            return self.counted_during(lambda: self.hosts.batch(pod.node.name, {"it": command}))

        return Exchange(url, self.probe.read(found["answer"]), flows, capture.read(found), before, after, again)

    def counted_during(self, act: Callable[[], object]) -> tuple[str, ...]:
        """Do something; return the failures that nodes counted: "worker2 counted 5 UDP checksum errors meanwhile".

        It is evidence for another failure: where a node cannot be reached there is none.
        """
        try:
            before = self._counters()
            act()
            after = self._counters()
        except LabError:
            return ()
        risen = {node: rose(counters, after.get(node, {})) for node, counters in before.items()}
        return tuple(f"{node} counted {listed(failures)} meanwhile" for node, failures in risen.items() if failures)

    def _counters(self) -> dict[str, Mapping[str, int]]:
        outputs = self.hosts.batches({COUNTERS.name: COUNTERS.command}, in_pods={})
        return {node: Facts(node, found)[COUNTERS] for node, found in outputs.items()}

    def request_all(self, urls: Mapping[Pod, str], *, rules: bool = False) -> dict[Pod, Exchange]:
        """Make one request from each of several pods, on all their nodes at the same time."""
        with ThreadPoolExecutor() as pool:
            asked = pool.map(lambda pod: self.request(pod, urls[pod], rules=rules), urls)
            return dict(zip(urls, asked, strict=True))

    def run_all(self, pods: Iterable[Pod], command: str) -> dict[Pod, Output]:
        """Run a command in each pod's network namespace with its node's tools, on all nodes at the same time."""

        def run(pod: Pod) -> Output:
            return self.hosts.batch(pod.node.name, {"it": in_pod(pod, command)})["it"]

        clients = tuple(pods)
        with ThreadPoolExecutor() as pool:
            return dict(zip(clients, pool.map(run, clients), strict=True))

    # From outside of the cluster

    def request_from_outside(self, url: str) -> Answer | None:
        """Make an HTTP request from the host end of the lab network; return None without an answer."""
        self.requests.append(Request.of(None, url))
        if not self.probe.paths:
            body = self.external.get(url, UNANSWERED_TIMEOUT)
            return None if body is None else parse_answer(body)
        bodies = self.external.get_all(url, self.probe.paths, UNANSWERED_TIMEOUT)
        return None if bodies is None else parse_answer(self.probe.join(bodies))

    def status_from_outside(self, url: str) -> int:
        """Return the status of the answer to such a request; 0 without an answer."""
        self.requests.append(Request.of(None, url))
        return self.external.fetch(url, IPv4Address(urlsplit(url).hostname), UNANSWERED_TIMEOUT).status

    def http_post(self, url: str, node: Node, size: int) -> Reply:
        """Send a body of ``size`` bytes from outside to a node, without resolving the URL's host."""
        self.requests.append(Request.of(None, url, node.address))
        return self.external.fetch(url, node.address, HTTP_TIMEOUT, self.ca, bytes(size))

    def http_get(self, url: str, node: Node | IPv4Address | None = None) -> Reply:
        """Make a request from outside to a node (by default the first) or an address; nobody resolves its host."""
        to = node if isinstance(node, IPv4Address) else (node or self.snapshot.nodes[0]).address
        self.requests.append(Request.of(None, url, to))
        return self.external.fetch(url, to, HTTP_TIMEOUT, self.ca)

    def app(self, url: str, node: Node | IPv4Address | None = None) -> Answer:
        """Return a request from outside as the app behind the URL received it; raise ClaimFailed without an answer."""
        reply = self.http_get(url, node)
        if reply.status != 200:
            asked = node if isinstance(node, IPv4Address) else (node or self.snapshot.nodes[0]).name
            raise ClaimFailed(f"{url} gets {reply} from {asked}")
        return parse_answer(reply.body)

    def reached(self, url: str, node: Node | None = None) -> str:
        """Return the endpoint that answers a request from outside; "" without an answer."""
        reply = self.http_get(url, node)
        return parse_answer(reply.body).to if reply.status == 200 else ""

    @contextmanager
    def request_stream(self, url: str) -> Iterator[Stream]:
        """Make consecutive requests from outside while the body runs.

        Between two of them is three times the time of an answer, at least 20 ms: on slow machines the requests would
        otherwise take the processor from the changes that they accompany.
        """
        stream, done = Stream(), threading.Event()

        def send() -> None:
            taken = 0.0
            while not done.wait(max(0.02, 3 * taken)):
                began = time.monotonic()
                reply = self.http_get(url)
                taken = time.monotonic() - began
                stream.sent += 1
                if reply.status == 200:
                    stream.reached.add(parse_answer(reply.body).to)
                else:
                    stream.lost.append(str(reply))

        thread = threading.Thread(target=send, name="requests", daemon=True)
        thread.start()
        try:
            yield stream
        finally:
            done.set()
            thread.join()

    def unique_path(self) -> str:
        """Return a path that no request had before."""
        return secrets.token_hex(6)

    # ARP

    def who_has(self, address: IPv4Address) -> dict[Node, tuple[CapturedPacket, ...]]:
        """Return the ARP packets for an address that every node captures while the host end resolves it again."""
        return self._heard[address]

    @cached_property
    def _heard(self) -> dict[IPv4Address, dict[Node, tuple[CapturedPacket, ...]]]:
        """Return the ARP packets for each announced address, by node: captures start slowly, so one hears them all."""
        known = self.announced_addresses
        addresses = [known[name] for name in workload.ANNOUNCED if name in known]
        captures = {str(address): Capture("eth0", f"arp and host {address}") for address in addresses}
        place = capture.new_place()
        started = self.hosts.batches(capture.start(captures, place), in_pods={})
        for address in addresses:
            self.external.flush_neighbour(address)
            self.request_from_outside(f"http://{address}/")
        stopped = self.hosts.batches(capture.stop(captures, place), in_pods={})
        heard = {node: capture.read({**started[node.name], **stopped[node.name]}) for node in self.snapshot.nodes}
        return {address: {node: found[str(address)] for node, found in heard.items()} for address in addresses}

    def arp_reply_from(
        self, node: Node, packets: Iterable[CapturedPacket], address: IPv4Address
    ) -> CapturedPacket | None:
        """Return the ARP reply for the address that the node itself sent."""
        eth0 = node.link("eth0")
        return next(
            (
                packet
                for packet in packets
                if eth0 and (packet.arp_op, packet.src, packet.eth_src) == (2, address, eth0.mac)
            ),
            None,
        )


def in_pod(pod: Pod, command: str) -> str:
    """Return a command that runs in the pod's network namespace with the tools of its node."""
    return f"nsenter --net=/run/netns/{pod.netns} {command}"
