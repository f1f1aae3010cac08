"""What nodes count while a request gets no answer: evidence in its failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest

from hoplab.core.errors import LabError
from hoplab.observe.script import Output
from hoplab.observe.ssh import Hosts
from hoplab.verify.claims import ClaimFailed
from hoplab.verify.external import ExternalHost
from hoplab.verify.session import LabSession
from hoplab.verify.traffic import Exchange
from tests.support.recordings import recording
from tests.support.timing import UNSCALED

LAB = recording("flannel-vxlan")
NODES = tuple(node.name for node in LAB.nodes)


class Counting:
    """Nodes of which the second counts checksum errors with each request."""

    def __init__(self, outputs: Mapping[str, Output] | None = None) -> None:
        self.errors, self.requests, self.looks, self.outputs = 7, list[str](), 0, outputs

    def batches(self, commands: Mapping[str, str], *, in_pods: object) -> dict[str, dict[str, Output]]:
        self.looks += 1
        assert list(commands) == ["counters"]
        text = "/proc/net/snmp:Udp: InDatagrams InCsumErrors\n/proc/net/snmp:Udp: {} {}\n"
        counted = {NODES[0]: Output(0, text.format(self.errors, 3)), NODES[1]: Output(0, text.format(9, self.errors))}
        return {node: {"counters": output} for node, output in (self.outputs or counted).items()}

    def batch(self, node: str, commands: Mapping[str, str]) -> dict[str, Output]:
        self.requests.append(commands["it"])
        self.errors += 5
        return {"it": Output(28, "", "curl: (28) timed out")}


def session(hosts: object) -> LabSession:
    external = cast("ExternalHost", None)
    return LabSession(LAB, cast("Hosts", hosts), external, lambda *_: (200, {}), lambda: LAB, timing=UNSCALED)


def exchange(hosts: Counting, code: int = 28) -> Exchange:
    def again() -> tuple[str, ...]:
        return session(hosts).counted_during(lambda: hosts.batch(NODES[0], {"it": "curl"}))

    return Exchange("http://10.244.0.3/", Output(code, "{}", "curl: (28) timed out\n"), (), again=again)


def test_what_a_node_counted_is_said() -> None:
    hosts = Counting()
    failed = exchange(hosts)
    assert failed.why == f"curl: (28) timed out; {NODES[1]} counted 5 UDP checksum errors meanwhile"
    assert (hosts.requests, hosts.looks) == (["curl"], 2)
    with pytest.raises(ClaimFailed, match=r"did not answer: curl: .* counted 5 UDP checksum errors meanwhile"):
        _ = failed.answer


def test_a_request_with_an_answer_costs_no_look() -> None:
    hosts = Counting()
    assert exchange(hosts, 0).why == "" and hosts.looks == 0


def test_counters_that_cannot_be_read_hide_no_failure() -> None:
    assert exchange(Counting({NODES[0]: Output(127, "", "not found")})).why == "curl: (28) timed out"

    class Lost(Counting):
        def batch(self, node: str, commands: Mapping[str, str]) -> dict[str, Output]:
            raise LabError("worker1 can't be reached over SSH")

    assert exchange(Lost()).why == "curl: (28) timed out"
