"""Facts, all of them: no output, however odd, ends in anything but records or a FactError; what is written is read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoplab.core.errors import FactError
from hoplab.observe.facts import Fact, discover
from hoplab.observe.facts.conntrack import CONNTRACK, Direction, Flow
from hoplab.observe.facts.ipam import IPAM, Reservation
from hoplab.observe.facts.ipset import IPSET, IpSet, Member
from hoplab.observe.facts.iptables import IPTABLES, Option, Rule
from hoplab.observe.facts.neighbours import NEIGHBOURS, Neighbour
from hoplab.observe.facts.nftables import NFTABLES
from hoplab.observe.facts.proc_routes import PROC_ROUTES, ProcRoute
from hoplab.observe.facts.routes import ROUTES, Route
from hoplab.observe.facts.sockets import SOCKETS, Socket
from hoplab.observe.facts.sysctls import SYSCTLS
from tests.support.files import CAPTURED
from tests.support.real_outputs import EVERY, captured, real_outputs

pytestmark = pytest.mark.thorough

REAL = real_outputs()
examples = settings(max_examples=20)


def reads(fact: Fact[Any], text: str) -> None:
    with contextlib.suppress(FactError):
        str(fact.parse(text))


def test_there_is_a_real_output_of_every_fact_and_it_is_understood() -> None:
    assert set(REAL) >= set(EVERY)
    for name, fact in EVERY.items():
        assert any([fact.parse(text) for text in REAL[name]]), name


@pytest.mark.parametrize("name", EVERY)
@given(text=st.text())
@examples
def test_no_text_crashes_a_parser(name: str, text: str) -> None:
    reads(EVERY[name], text)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)


def documents(keys: list[str]) -> st.SearchStrategy[Any]:
    """JSON values whose objects have keys that the fact knows."""
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(keys), inner, max_size=4),
        max_leaves=8,
    )


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a JSON document: the list or object it is in, and its index or key there."""
    if isinstance(document, dict | list):
        for key in list(document if isinstance(document, dict) else range(len(document))):
            yield document, key
            yield from places(document[key])


def is_json(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return isinstance(json.loads(text), dict | list)
    return False


JSON = [name for name in EVERY if is_json(REAL[name][0])]
TEXT = [name for name in EVERY if name not in JSON]
KEYS = {
    name: sorted({key for text in REAL[name] for _, key in places(json.loads(text)) if isinstance(key, str)})
    for name in JSON
}


@pytest.mark.parametrize("name", JSON)
@given(data=st.data())
@examples
def test_no_json_crashes_a_parser(name: str, data: st.DataObject) -> None:
    reads(EVERY[name], json.dumps(data.draw(documents(KEYS[name]))))


@pytest.mark.parametrize("name", JSON)
@given(data=st.data())
@examples
def test_a_real_document_with_something_changed_crashes_no_parser(name: str, data: st.DataObject) -> None:
    document = json.loads(data.draw(st.sampled_from(REAL[name])))
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(list(places(document)) or [([None], 0)]))
        if data.draw(st.booleans()):
            del container[key]
        else:
            container[key] = data.draw(documents(KEYS[name]))
    reads(EVERY[name], json.dumps(document))


@pytest.mark.parametrize("name", TEXT)
@given(data=st.data())
@examples
def test_a_real_text_with_something_changed_crashes_no_parser(name: str, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(REAL[name]))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 30)))
        text = text[:start] + data.draw(st.sampled_from(["", " ", "\n", '"', "!", "-", ":", "=", "0"])) + text[end:]
    reads(EVERY[name], text)


def lacking(command: str) -> str:
    """The first tool a command needs and this machine does not have."""
    tool = re.sub(r"^(! command -v |! |\w+=\$\()", "", command).split()[0]
    return "" if shutil.which(tool, path="/usr/sbin:/sbin:/usr/bin:/bin") else tool


@pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root")
@pytest.mark.parametrize("name", sorted({fact.name for fact in (*discover("node"), *discover("pod"))}))
def test_a_command_works_in_a_network_namespace_that_is_empty(name: str) -> None:
    fact = EVERY[name]
    if tool := lacking(fact.command):
        pytest.skip(f"needs {tool}")
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", fact.command], capture_output=True, text=True, timeout=30, check=False
    )
    if fact.name == "cni_config":  # a file that every node has
        return
    assert done.returncode == 0, done.stderr
    fact.parse(done.stdout)


@pytest.mark.skipif(os.geteuid() != 0 or bool(lacking("nft")), reason="needs root and nft")
def test_nft_prints_a_ruleset_of_kube_proxys_shape_in_a_way_that_is_understood() -> None:
    load = f"nft -f {CAPTURED}/nft-kube-proxy.nft && {NFTABLES.command}"
    done = subprocess.run(["unshare", "--net", "sh", "-c", load], capture_output=True, text=True, check=True)
    (here,), (there,) = NFTABLES.parse(done.stdout).tables, NFTABLES.parse(captured("nft-kube-proxy.json")).tables
    assert here.chains == there.chains
    assert {name: set(found.elements) for name, found in here.sets.items()} == {
        name: set(found.elements) for name, found in there.sets.items()
    }


# What is written and read again

words = st.text(alphabet="abcXYZ09-_./:,!\"'\\ ", min_size=1, max_size=10)
plain = st.text(alphabet="abcXYZ09_./:,", min_size=1, max_size=10)
names = st.text(alphabet="abcxyz09.-", min_size=1, max_size=10)
addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
networks = st.builds(
    lambda address, length: IPv4Network((address, length), strict=False), addresses, st.integers(1, 32)
)
ports = st.integers(1, 65535)
options = st.builds(
    Option,
    st.sampled_from(["--dport", "--mark", "-i", "-o", "--ctstate", "--to-destination", "--dst-type"]),
    st.tuples(plain),
    st.booleans(),
) | st.builds(lambda text: Option("--comment", (text,)), words)


@given(
    st.builds(
        Rule,
        chain=st.just("FORWARD"),
        matches=st.lists(options, max_size=4).map(tuple),
        target=st.sampled_from(["ACCEPT", "KUBE-SVC-NPX46M4PTMTKRN6Y", "MASQUERADE"]),
        goto=st.booleans(),
        target_options=st.lists(options, max_size=2).map(tuple),
    )
)
def test_a_rule_survives_being_written_and_read(rule: Rule) -> None:
    found = IPTABLES.parse(f"*filter\n:FORWARD DROP [0:0]\n[7:420] {rule}\nCOMMIT\n").rules("filter", "FORWARD")
    assert found == (rule,)
    assert (found[0].packets, found[0].bytes) == (7, 420)


@given(
    st.lists(
        st.builds(
            IpSet,
            name=names,
            kind=st.sampled_from(["hash:ip", "hash:net", "list:set"]),
            options=st.sampled_from(["", "family inet hashsize 1024"]),
            members=st.lists(
                st.builds(Member, plain, st.sampled_from(["", "nomatch", 'comment "of a b"'])), max_size=3
            ).map(tuple),
        ),
        max_size=3,
        unique_by=lambda ipset: ipset.name,
    )
)
def test_sets_survive_being_written_and_read(sets: list[IpSet]) -> None:
    assert IPSET.parse("".join(f"{ipset}\n" for ipset in sets)) == tuple(sets)


directions = st.builds(Direction, addresses.map(str), addresses.map(str), ports, ports)


@given(
    st.builds(
        Flow,
        st.just("tcp"),
        st.sampled_from(["ESTABLISHED", "SYN_SENT2"]),
        directions,
        directions,
        st.frozensets(st.sampled_from(["ASSURED", "UNREPLIED", "OFFLOAD"])),
        st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
    )
)
def test_a_connection_survives_being_written_and_read(flow: Flow) -> None:
    there, back = (
        f"src={way.src} dst={way.dst} sport={way.sport} dport={way.dport}" for way in (flow.original, flow.reply)
    )
    flags = "".join(f" [{flag}]" for flag in sorted(flow.flags))
    zones = [f" zone-orig={flow.zones[0]}", f" zone-reply={flow.zones[1]}"]
    line = f"tcp      6 117 {flow.state} {there}{zones[0]} {back}{zones[1]}{flags} mark=0 use=1\n"
    assert CONNTRACK.parse(line) == (flow,)


@given(
    st.builds(
        Route,
        dst=networks,
        via=st.none() | addresses,
        dev=names,
        kind=st.sampled_from(["unicast", "local", "broadcast"]),
        table=st.sampled_from(["main", "local", "42"]),
        protocol=st.sampled_from(["", "kernel", "bird"]),
        scope=st.sampled_from(["global", "link", "host"]),
        source=st.none() | addresses,
        metric=st.integers(0, 2**32 - 1),
        flags=st.sampled_from([(), ("onlink",), ("dead", "linkdown")]),
    )
)
def test_a_route_survives_being_written_and_read(route: Route) -> None:
    raw = {
        **{"type": route.kind, "dst": str(route.dst).removesuffix("/32"), "dev": route.dev, "flags": route.flags},
        **{"table": route.table, "protocol": route.protocol, "scope": route.scope, "metric": route.metric},
        **({"gateway": str(route.via)} if route.via else {}),
        **({"prefsrc": str(route.source)} if route.source else {}),
    }
    assert ROUTES.parse(json.dumps([raw])) == (route,)


@given(st.builds(ProcRoute, dev=names, dst=networks, via=st.none() | addresses.filter(int), metric=st.integers(0, 9)))
def test_a_line_of_proc_net_route_survives_being_written_and_read(route: ProcRoute) -> None:
    def reverse(address: IPv4Address) -> str:
        return address.packed[::-1].hex().upper()

    via = route.via or IPv4Address(0)
    line = f"{route.dev}\t{reverse(route.dst.network_address)}\t{reverse(via)}\t0003\t0\t0\t{route.metric}\t"
    assert PROC_ROUTES.parse(f"Iface\n{line}{reverse(route.dst.netmask)}\t0\t0\t0\n") == (route,)


@given(st.builds(Neighbour, addresses, names, st.sampled_from(["", "0a:58:0a:f4:00:01"]), st.just(("REACHABLE",))))
def test_a_neighbour_survives_being_written_and_read(found: Neighbour) -> None:
    raw = {"dst": str(found.address), "dev": found.dev, "lladdr": found.mac, "state": list(found.states)}
    assert NEIGHBOURS.parse(json.dumps([raw])) == (found,)


@given(
    st.builds(
        Socket,
        protocol=st.sampled_from(["tcp", "udp"]),
        address=addresses.map(str) | st.sampled_from(["::", "::1", "*"]),
        dev=st.sampled_from(["", "eth0"]),
        port=ports,
        processes=st.lists(names, max_size=3, unique=True).map(tuple),
    )
)
def test_a_socket_survives_being_written_and_read(socket: Socket) -> None:
    local = str(socket).split()[1]
    users = ",".join(f'("{name}",pid=7,fd=3)' for name in socket.processes)
    line = f"{socket.protocol} LISTEN 0      4096   {local} 0.0.0.0:* {f'users:({users})' if users else ''}  \n"
    assert SOCKETS.parse(line) == (socket,)


@given(st.lists(st.builds(Reservation, names, addresses, names, names), unique_by=lambda taken: taken.address))
def test_reservations_survive_being_written_and_read(taken: list[Reservation]) -> None:
    text = "".join(
        f"/var/lib/cni/networks/{reservation.network}/{reservation.address}:{line}\n"
        for reservation in taken
        for line in (f"{reservation.container}\r", reservation.dev)
    )
    assert IPAM.parse(text) == tuple(taken)


@given(st.dictionaries(st.sampled_from(["net.ipv4.ip_forward", "net.ipv4.conf.all.rp_filter"]), plain))
def test_sysctls_survive_being_written_and_read(values: dict[str, str]) -> None:
    text = "".join(f"/proc/sys/{name.replace('.', '/')}:{value}\n" for name, value in values.items())
    assert SYSCTLS.parse(text) == values
