"""Another network for a lab that exists: refused in place, and nothing of the old one left by a reset."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.lab import context, state
from hoplab.lab.spec_file import plan_lab
from hoplab.spec.model import CniSpec, Ipv6Spec, LabSpec
from hoplab.spec.plan import dataplane
from hoplab.trace import nft_trace
from tests.support.labs import MADE, SPEC
from tests.support.progress import RecordingProgress
from tests.support.roles import defaults, render


def test_dataplane_in_words() -> None:
    assert dataplane(SPEC) == MADE.dataplane == "flannel vxlan, kube-proxy iptables"
    own = replace(SPEC, cni=CniSpec("flannel", "host-gw", nftables=True), proxy_mode="nftables")
    assert dataplane(own) == "flannel host-gw with nftables, kube-proxy nftables"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (replace(SPEC, proxy_mode="nftables"), "flannel vxlan, kube-proxy nftables"),
        (replace(SPEC, cni=CniSpec("flannel", "host-gw")), "flannel host-gw, kube-proxy iptables"),
        (replace(SPEC, cni=CniSpec(nftables=True)), "flannel vxlan with nftables, kube-proxy iptables"),
    ],
)
def test_refuse_another_dataplane(asked: LabSpec, words: str) -> None:
    with pytest.raises(LabError) as caught:
        state.refuse_another_dataplane(asked, MADE)
    assert caught.value.message == (
        f"lab 'dev' was made with flannel vxlan, kube-proxy iptables, and its spec now asks for {words}"
    )
    assert caught.value.remedy.endswith("./lab up --recreate --lab dev")


@pytest.mark.parametrize(
    ("made", "asked", "words"),
    [
        (SPEC, replace(SPEC, ipv6=Ipv6Spec()), ("no IPv6", "the IPv6 network fd00:77::/64")),
        (replace(SPEC, ipv6=Ipv6Spec()), SPEC, ("the IPv6 network fd00:77::/64", "no IPv6")),
        (
            replace(SPEC, ipv6=Ipv6Spec()),
            replace(SPEC, ipv6=Ipv6Spec(network=IPv6Network("fd00:78::/64"))),
            ("the IPv6 network fd00:77::/64", "the IPv6 network fd00:78::/64"),
        ),
    ],
)
def test_refuse_another_family(made: LabSpec, asked: LabSpec, words: tuple[str, str]) -> None:
    plan = plan_lab(made, lab_id="dev-0", accel="tcg")
    before = state.lab_state(plan, libvirt_uri="", netns="", image="", image_bin=Path("/bin"))
    state.refuse_another_family(made, before)
    with pytest.raises(LabError) as caught:
        state.refuse_another_family(asked, before)
    assert caught.value.message == f"lab 'dev' was made with {words[0]}, and its spec now asks for {words[1]}"
    assert caught.value.remedy.endswith("./lab destroy --lab dev, then ./lab up --lab dev")


@pytest.mark.parametrize(("made", "asked"), [("1.37.2", "1.36.3"), ("1.36.3", "1.37.2")])
def test_refuse_another_kubernetes(made: str, asked: str) -> None:
    before = replace(MADE, spec=replace(SPEC, kubernetes_version=made))
    with pytest.raises(LabError) as caught:
        state.refuse_another_kubernetes(replace(SPEC, kubernetes_version=asked), before)
    assert caught.value.message == f"lab 'dev' was made with Kubernetes {made}, and its spec now asks for {asked}"
    assert caught.value.remedy == (
        f"keep it by lab:kubernetes.version {made[:4]}, or make the lab anew: "
        "./lab destroy --lab dev, then ./lab up --lab dev"
    )


def test_another_kubernetes_is_refused_before_its_image_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every way to a lab's resources: up, preview, and the Pulumi program."""
    built: list[str] = []
    monkeypatch.setattr("hoplab.infra.context.resolve", lambda spec, *_, **_more: built.append(spec.kubernetes_version))
    paths = LabPaths("dev", tmp_path)
    older = replace(SPEC, kubernetes_version="1.36.3")
    context.resolve(older, paths, RecordingProgress())
    state.save(replace(MADE, spec=SPEC), paths)
    with pytest.raises(LabError, match=r"was made with Kubernetes 1\.37\.2"):
        context.resolve(older, paths, RecordingProgress())
    assert built == ["1.36.3"]


def test_same_dataplane_family_and_kubernetes_are_accepted() -> None:
    asks = replace(SPEC, workers=3, kubernetes_version="1.37.9")  # another patch comes with another table
    for before in (replace(MADE, spec=SPEC), replace(MADE, spec=None), None):
        state.refuse_another_kubernetes(asks, before)
    state.refuse_another_dataplane(replace(SPEC, workers=3), MADE)
    state.refuse_another_family(replace(SPEC, workers=3), MADE)
    state.refuse_another_dataplane(replace(SPEC, proxy_mode="nftables"), replace(MADE, dataplane=""))  # nobody knows


def test_made_before_is_none_without_a_readable_state(tmp_path: Path) -> None:
    paths = LabPaths("dev", tmp_path)
    assert state.made_before(paths) is None
    state.save(MADE, paths)
    assert state.made_before(paths) == MADE
    paths.state.write_text("{")
    assert state.made_before(paths) is None


TOOLS = ("ip", "bridge", "nft", "ipset", "conntrack", "unshare")
ROOTS = ("/etc/cni", "/var/lib/cni", "/run/flannel", "/run/calico", "/var/lib/calico", "/opt/cni", "/run/netns")
FRESH = """
ip link set lo up
ip link add eth0 type bridge; ip address add 192.0.2.20/24 dev eth0; ip link set eth0 up
ip route add default via 192.0.2.1 dev eth0
"""
CLUSTER = """
ip link add cni0 type bridge; ip address add 10.244.1.1/24 dev cni0; ip link set cni0 up
ip link add flannel.1 type bridge; ip link set flannel.1 up
ip link add veth0 type veth peer name veth1; ip link set veth0 master cni0 up
ip route add 10.244.0.0/24 via 10.244.0.0 dev flannel.1 onlink
ip route add 10.244.2.0/24 via 192.0.2.21 dev eth0
bridge fdb add 02:00:00:00:00:01 dev veth0 master static
nft add table ip kube-proxy; nft add chain ip kube-proxy services
nft add table ip nat; nft add chain ip nat KUBE-SERVICES
ipset create pods hash:net; ipset add pods 10.244.0.0/16
mkdir -p ROOT/etc/cni/net.d ROOT/run/flannel ROOT/var/lib/cni/networks/cbr0
touch ROOT/etc/cni/net.d/10-flannel.conflist ROOT/run/flannel/subnet.env ROOT/var/lib/cni/networks/cbr0/10.244.1.2
"""


@pytest.mark.skipif(os.geteuid() != 0 or not all(map(shutil.which, TOOLS)), reason=f"needs root and {TOOLS}")
def test_reset_leaves_what_a_fresh_machine_has(tmp_path: Path) -> None:
    """In a network namespace that stands for a node: made into one of a cluster, reset, and compared."""
    seen = node(tmp_path, f"{FRESH} look fresh; {CLUSTER} look joined; reset; look after")
    joined = set(seen["joined"]) - set(seen["fresh"])
    for word in ("link cni0", "link veth0", "route 10.244.0.0/24 via", "route 10.244.2.0/24", "fdb 02:00", "nft table"):
        assert any(line.startswith(word) for line in joined), word
    assert {"ipset pods", f"file {tmp_path}/etc/cni/net.d/10-flannel.conflist"} <= joined
    assert seen["after"] == seen["fresh"]
    assert any(line.startswith("route default via 192.0.2.1 dev eth0") for line in seen["fresh"])


@pytest.mark.skipif(os.geteuid() != 0 or not all(map(shutil.which, TOOLS)), reason=f"needs root and {TOOLS}")
def test_look_shows_what_reset_does_not_remove(tmp_path: Path) -> None:
    seen = node(tmp_path, f"{FRESH} look fresh; {CLUSTER} ip rule add pref 500 table 500; reset; look after")
    assert set(seen["after"]) ^ set(seen["fresh"]) == {"rule 500:\tfrom all lookup 500"}


@pytest.mark.skipif(os.geteuid() != 0 or not all(map(shutil.which, TOOLS)), reason=f"needs root and {TOOLS}")
def test_look_shows_a_table_of_a_trace_that_has_stayed(tmp_path: Path) -> None:
    """`nft flush ruleset` leaves a table that another process owns."""
    (tmp_path / "commands").write_text(nft_trace.commands(["tcp dport 80"]))
    hold = "mkfifo ROOT/pipe; nft -i <ROOT/pipe >/dev/null & exec 9>ROOT/pipe; cat ROOT/commands >&9"
    there = f"until nft list table inet {nft_trace.TABLE} >/dev/null 2>&1; do sleep 0.02; done"
    seen = node(tmp_path, f"{FRESH} look fresh; {CLUSTER} {hold}; {there}; reset; look after; exec 9>&-")
    left = set(seen["after"]) - set(seen["fresh"])
    assert f"nft table inet {nft_trace.TABLE} {{" in {line.partition(" #")[0] for line in left}


def node(root: Path, script: str) -> dict[str, list[str]]:
    """Run a script in a network namespace; what each `look NAME` in it saw. Files are below a folder of the test's."""
    programs = root / "bin"
    programs.mkdir()
    for name in ("look", "reset"):
        text = render(f"roles/node_reset/templates/{name}.sh.j2", **defaults("node_reset"))
        text = re.sub(rf"(?<![\w/])(?={'|'.join(map(re.escape, ROOTS))})", str(root), text)
        text = re.sub(r"/(etc/hoplab|etc/kubernetes|var/lib/kubelet)", rf"{root}/\1", text)
        (programs / name).write_text(f"#!/bin/sh\n{text}" if name == "reset" else f"#!/bin/sh\nexec >{root}/$1\n{text}")
    (programs / "systemctl").write_text("#!/bin/sh\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    ran = subprocess.run(
        ["unshare", "--net", "sh", "-euc", script.replace("ROOT", str(root))],
        env={"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return {
        name: (root / name).read_text().splitlines() for name in ("fresh", "joined", "after") if (root / name).exists()
    }
