"""The tables of every family: what the command lists, and how it is read."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from hoplab.observe.facts.base_chains import BASE_CHAINS, BaseChain
from hoplab.observe.facts.iptables import IPTABLES
from hoplab.observe.facts.nft_expressions import Mark, Match, Other
from hoplab.observe.facts.nft_ruleset import NFT_RULESET
from hoplab.observe.facts.nftables import Nftables
from tests.support.files import CAPTURED


@pytest.fixture(scope="module")
def ruleset() -> Nftables:
    return NFT_RULESET.parse((CAPTURED / "nft-ruleset.json").read_text())


def test_tables_of_every_family_are_read(ruleset: Nftables) -> None:
    assert [(table.family, table.name) for table in ruleset.tables] == [
        ("inet", "firewalld"), ("netdev", "early"), ("bridge", "local")
    ]  # fmt: skip
    firewalld, early, local = ruleset.tables
    (forward,) = firewalld.hooked("forward")
    assert (forward.name, forward.priority, forward.devices) == ("filter_FORWARD", 10, ())
    assert early.hooked("ingress")[0].devices == ()  # nft 1.0.6 leaves them out
    assert [str(rule) for rule in local.rules("forward")] == ["ip daddr 10.244.0.9 drop"]


def test_an_interface_or_several_have_a_chain() -> None:
    for written, read in (('"eth0"', ("eth0",)), ('["eth0", "eth1"]', ("eth0", "eth1"))):
        chain = f'{{"family": "netdev", "table": "t", "name": "c", "hook": "ingress", "prio": 0, "dev": {written}}}'
        table = '{"table": {"family": "netdev", "name": "t"}}'
        (found,) = NFT_RULESET.parse(f'{{"nftables": [{table}, {{"chain": {chain}}}]}}').tables
        assert found.hooked("ingress")[0].devices == read


def test_expressions_of_a_firewall(ruleset: Nftables) -> None:
    rules = ruleset.tables[0].rules("filter_FORWARD")
    (concatenated,) = [rule for rule in rules if "10.96.0.1 . 443" in str(rule)]
    assert concatenated.expressions[0] == Match(("ip daddr", "tcp dport"), "==", ("10.96.0.10 . 53", "10.96.0.1 . 443"))
    (marking,) = [rule.expressions[0] for rule in rules if isinstance(rule.expressions[0], Mark)]
    assert (str(marking), marking) == (
        "meta mark set meta mark & 0xff04ffff | 0x40000", Mark(0x40000, "|", 0xFF04FFFF)
    )  # fmt: skip
    assert marking.applied(0x00FF0001) == 0x00040001
    (limiting,) = [rule for rule in rules if "limit" in str(rule)]
    assert str(limiting) == 'limit rate 10/second burst 5 packets log prefix "filter_FWD_public_REJECT: "'
    assert [part.kind for part in limiting.expressions if isinstance(part, Other)] == ["limit", "log"]


def lists(setup: str) -> Nftables:
    """What is listed in a namespace that was set up with these commands."""
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", f"({setup}) >&2; {NFT_RULESET.command}"],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return NFT_RULESET.parse(done.stdout)


needs_nft = pytest.mark.skipif(
    os.geteuid() != 0 or not all(shutil.which(tool, path="/usr/sbin:/sbin") for tool in ("nft", "iptables")),
    reason="needs root, nft and iptables",
)


@needs_nft
def test_all_tables_are_listed_but_those_of_iptables(ruleset: Nftables) -> None:
    load = f"ip link set lo up; nft -f {CAPTURED}/nft-ruleset.nft; iptables-nft -A FORWARD -j ACCEPT"
    assert [(table.family, table.name) for table in lists(load).tables] == [
        (table.family, table.name) for table in ruleset.tables
    ]


@needs_nft
def test_a_table_that_iptables_cannot_print_is_listed() -> None:
    setup = (
        "iptables-nft -A FORWARD -j ACCEPT; nft add rule ip filter FORWARD tcp dport { 80, 443 } quota 5 mbytes drop"
    )
    (table,) = lists(setup).tables
    assert (table.family, table.name) == ("ip", "filter") and len(table.rules("FORWARD")) == 2


@needs_nft
def test_iptables_names_the_table_that_it_cannot_print() -> None:
    setup = "iptables-nft -A FORWARD -j ACCEPT; nft add rule ip filter FORWARD quota 5 mbytes drop"
    command = f"({setup}) >&2; {IPTABLES.command}"
    done = subprocess.run(["unshare", "--net", "sh", "-c", command], capture_output=True, text=True, check=True)
    assert IPTABLES.parse(done.stdout).incompatible == ("filter",)


@needs_nft
def test_nft_missing_is_an_error() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", NFT_RULESET.command], env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 127 and "nft: not found" in done.stderr


def test_base_chains_have_a_family() -> None:
    chain = '{"chain": {"family": "inet", "table": "firewalld", "name": "f", "hook": "forward", "prio": 10}}'
    assert BASE_CHAINS.parse(f'{{"nftables": [{chain}]}}') == (BaseChain("firewalld", "f", "forward", 10, "inet"),)
    (found,) = BASE_CHAINS.parse(f'{{"nftables": [{chain}]}}')
    assert str(found) == "inet firewalld f { hook forward priority 10 }"
    assert str(BaseChain("nat", "PREROUTING", "prerouting", -100)) == "nat PREROUTING { hook prerouting priority -100 }"
