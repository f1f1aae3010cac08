"""What node_reset remembers of a machine's network, looked at in a namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.roles import defaults, render

TOOLS = ("unshare", "ip", "bridge", "nft", "ipset")
missing = [tool for tool in TOOLS if shutil.which(tool, path="/usr/sbin:/sbin:/usr/bin:/bin") is None]
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or bool(missing), reason=f"needs root and {', '.join(missing) or 'nothing else'}"
)
CLUSTER = """
ip link set lo up
ip link add eth0 address 02:00:00:00:00:20 type veth peer name wire address 02:00:00:00:00:21
ip address add 192.0.2.20/24 dev eth0
ip link set eth0 up
ip neighbour add 192.0.2.1 lladdr 02:00:00:00:00:01 dev eth0
ip link add cni0 address 02:00:00:00:00:30 type bridge
ip link add veth1 address 02:00:00:00:00:31 type veth peer name veth2 address 02:00:00:00:00:32
ip link set veth1 master cni0
ip address add 198.51.100.1/24 dev cni0
ip link set cni0 up
ip neighbour add 198.51.100.7 lladdr 02:00:00:00:00:07 dev cni0
ip route add 203.0.113.0/24 via 198.51.100.9 dev cni0 proto 80 onlink
ip rule add from 203.0.113.0/24 table 77
nft add table ip hoplab-test
nft add chain ip hoplab-test one
nft add rule ip hoplab-test one counter accept
"""


def looked(tmp_path: Path, made: str) -> list[str]:
    inputs = defaults("node_reset") | {"node_reset_uplink": "eth0", "node_reset_directories": [str(tmp_path)]}
    script = made + render("roles/node_reset/templates/look.sh.j2", **inputs)
    ran = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=True)
    # other tests make namespaces meanwhile
    return [line for line in ran.stdout.splitlines() if not line.startswith(("namespace ", "mount "))]


def test_everything_of_a_cluster_is_seen(tmp_path: Path) -> None:
    (tmp_path / "10-flannel.conflist").touch()
    seen = looked(tmp_path, CLUSTER)
    assert {
        "link cni0 DOWN",
        "link veth1 DOWN",
        "address cni0 198.51.100.1/24",
        "address eth0 192.0.2.20/24",
        "neighbour 198.51.100.7 dev cni0 lladdr 02:00:00:00:00:07 PERMANENT",
        "route 203.0.113.0/24 via 198.51.100.9 dev cni0 proto 80 onlink linkdown",
        "rule 32765:\tfrom 203.0.113.0/24 lookup 77",
        "nft table ip hoplab-test {",
        "nft \t\tcounter packets N bytes N accept",
        f"file {tmp_path}/10-flannel.conflist",
    } <= {line.rstrip() for line in seen}
    assert seen == sorted(seen)
    text = "\n".join(seen)
    assert "192.0.2.1 " not in text, "the uplink's neighbours come and go"
    assert "fe80" not in text, "a kernel takes its time for those"
    assert "= link" not in text


def test_two_looks_at_the_same_are_equal(tmp_path: Path) -> None:
    assert looked(tmp_path, CLUSTER) == looked(tmp_path, CLUSTER)
