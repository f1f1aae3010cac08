"""Commands that one process runs print what each of them prints alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from hoplab.expectations.parts import known_parts
from hoplab.host import netns
from hoplab.observe import grouping
from hoplab.observe.facts import Facts, discover
from hoplab.observe.script import Output, Script
from tests.support.scripts import ran

PARTS = known_parts()
IN_PODS = {fact.name: fact for fact in discover("pod")}
COMMANDS = {name: fact.command_for(PARTS) for name, fact in IN_PODS.items()}


def test_what_is_read_in_every_pod_takes_one_process_for_each_family() -> None:
    families = grouping.groups(COMMANDS)
    assert [group.command.split("\n")[0] for group in families] == [
        f"ip -{family} -d -j -batch - <<'END'" for family in (4, 6)
    ]
    assert {key for group in families for key in group.keys} == set(COMMANDS) - {"proc_routes"}
    assert grouping.cheap(COMMANDS["proc_routes"]) != COMMANDS["proc_routes"]


@pytest.mark.parametrize(
    "command",
    ["ip route add default via 10.0.0.1", "ip -j route get 10.0.0.1", "ip link show", "ip -4 -j route show; true"],
)
def test_what_does_more_than_read_runs_alone(command: str) -> None:
    assert grouping.groups({"a": command, "b": "ip -4 -j rule show"}) == ()
    assert grouping.cheap(command) == command


@pytest.fixture
def space() -> Iterator[str]:
    """A network namespace with something of everything."""
    if os.geteuid() != 0:
        pytest.skip("making network namespaces needs root")
    name = f"hoplab-group{os.getpid()}"
    netns.create(name)
    try:
        for line in (
            "link set lo up",
            "link add eth0 type veth peer name other",
            "link set eth0 addrgenmode none",
            "link set other addrgenmode none",
            "link set eth0 up",
            "link set other up",
            "address add fd00::5/64 dev eth0 nodad",
            "address add 10.244.1.5/24 dev eth0",
            "route add default via 10.244.1.1 mtu 1400",
            "route add blackhole 10.9.0.0/16 table 7",
            "rule add from 10.244.1.5 fwmark 0x4/0xff table 7 priority 50",
            "neigh add 10.244.1.1 lladdr 02:00:00:00:00:01 dev eth0",
        ):
            subprocess.run(["ip", "-n", name, *line.split()], check=True)
        yield name
    finally:
        netns.delete(name)


def test_one_process_says_what_many_say(space: str) -> None:
    with netns.entered(space):
        together = ran(Script(COMMANDS, {}))
        alone = {key: ran(Script({key: command}, {}))[key] for key, command in COMMANDS.items()}
    assert set(together) == set(COMMANDS)
    assert all(output.code == 0 for output in together.values()), together
    for name, fact in IN_PODS.items():
        assert Facts("x", together)[fact] == Facts("x", alone)[fact], name
    assert together["proc_routes"] == alone["proc_routes"]
    assert "mtu" in together["routes"].out and "fwmark" in together["rules"].out


def test_one_that_fails_takes_no_other_with_it() -> None:
    commands = {
        "nothing": "ip -4 -j address show dev nothing",
        "rules": "ip -4 -j rule show",
        "nowhere": "cat /proc/no/such/file",
    }
    found = ran(Script(commands, {}))
    assert found["nothing"] == Output(1, "", 'Device "nothing" does not exist.\n')
    assert found["rules"].code == 0 and found["rules"].err == "" and '"table":"main"' in found["rules"].out
    assert found["nowhere"].code != 0 and "/proc/no/such/file" in found["nowhere"].err
