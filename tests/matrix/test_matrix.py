"""One lab after the other on the same machines: the lessons in every combination of CNI, backend and kube-proxy mode.

Each one but the first begins with a refusal, then `up --recreate`, which resets the nodes and proves that nothing of
the old network is left on them. Those with IPv6 need machines of their own, those with Calico its container images in
the folder of archives.

HOPLAB_RECORD=1 writes the recording of each, and one that is broken, into tests/recordings.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from hoplab.core.console import clock
from hoplab.core.paths import LabPaths
from hoplab.image import missing_images
from hoplab.lab import state
from hoplab.trace import needs
from hoplab.verify import live_look, requirements
from hoplab.verify.session import LabSession, opened
from tests.matrix.combinations import COMBINATIONS, Combination
from tests.support import traced_packets
from tests.system import recordings
from tests.system.conftest import LabCommand
from tests.system.faults import FAULTS, Fault, Site, together
from tests.system.faults.trial import try_faults

pytestmark = pytest.mark.timeout(0)  # every command that is run has a bound of its own

LAB = "matrix"
HOPS = 0.95  # of the hops of all packets are seen
MISSING = {
    component: missing
    for component in dict.fromkeys(combination.component for combination in COMBINATIONS)
    if (missing := missing_images(component))
}
# cni_flannel is in every image
AT_HAND = sorted({combination.component for combination in COMBINATIONS} - set(MISSING) - {"cni_flannel"})
USUAL: dict[str, Any] = {
    "cni": "flannel",
    "backend": "vxlan",
    "cni_nftables": False,
    "proxy_mode": "iptables",
    "ipv6": None,
    "network_policy": "none",
}


@dataclass
class Figures:
    """What each combination took, printed at the end."""

    rows: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        head = (
            f"{'combination':<45} {'up':>7} {'verify':>7} {'passed':>7} {'skipped':>8} {'hops seen':>12} {'faults':>7}"
        )
        return "\n".join(["", head, *self.rows])


@pytest.fixture(scope="module")
def figures() -> Iterator[Figures]:
    found = Figures()
    yield found
    print(found, file=sys.stderr, flush=True)


@pytest.fixture(scope="module")
def paths() -> LabPaths:
    return LabPaths(LAB)


@pytest.fixture(scope="module")
def lab(paths: LabPaths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCommand]:
    command = LabCommand(tmp_path_factory.mktemp("matrix-logs"), paths)
    paths.spec.write_text(COMBINATIONS[0].spec())
    command("destroy")
    yield command
    command("destroy")
    paths.spec.unlink()


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda combination: combination.name)
def test_the_lessons_hold(combination: Combination, lab: LabCommand, paths: LabPaths, figures: Figures) -> None:
    if missing := MISSING.get(combination.component):
        pytest.skip(f"needs `./lab image add` with archives of {', '.join(missing)}")
    before = state.made_before(paths)
    paths.spec.write_text(combination.spec(AT_HAND))
    if before:
        assert "and its spec now asks for" in lab("up", expect=1).out
    if before and bool(before.network6) != combination.ipv6:
        assert "./lab destroy" in lab("up", "--recreate", expect=1).out
        lab("destroy")
        before = None
    began = time.monotonic()
    lab("up", *(["--recreate"] if before else []))
    up = time.monotonic() - began
    report = lab("verify", "--json").json()
    assert report["failed"] == 0, [claim for claim in report["claims"] if claim["outcome"] == "failed"]
    hops = traced(paths)
    tried = faults_of(paths)
    if os.environ.get("HOPLAB_RECORD") and combination is not COMBINATIONS[0]:  # the usual lab has many broken ones
        recordings.main(LAB)
    figures.rows.append(
        f"{combination.name:<45} {clock(up):>7} {clock(report['seconds']):>7} {report['passed']:>7} "
        f"{report['skipped']:>8} {hops:>12} {tried:>7}"
    )


def traced(paths: LabPaths) -> str:
    """Send a packet of every kind through the lab; say how many hops were seen of how many, all as predicted."""
    with live_look.opened(paths, without=needs.others(ipv6=True)) as look:
        lab = look()
    trial = traced_packets.Trial()
    for name in traced_packets.packets_of(lab):
        print(trial.send(name, paths, lab), file=sys.stderr, flush=True)
    trial.require(HOPS)
    return f"{trial.seen} of {trial.hops}"


def faults_of(paths: LabPaths) -> int:
    """Try the faults that the usual lab can't have, and this one can; their number. tests/system tries the others."""
    with opened(paths) as session:
        usual = replace(session.snapshot, setting=replace(session.snapshot.setting, **USUAL))
        own = [
            fault
            for fault in FAULTS
            if requirements.skip_reason(usual, **fault.needs)
            and not requirements.skip_reason(session.snapshot, **fault.needs)
        ]
        if own:
            try_all(own, session)
    return len(own)


def try_all(faults: list[Fault], session: LabSession) -> None:
    site = Site.of(session)
    with site.still():
        for group in together(faults):
            try_faults(group, site)


def test_what_a_reset_leaves_is_noticed(lab: LabCommand) -> None:
    """A rule that the cluster's network did not make, and that reset knows nothing of, is named."""
    lab("ssh", "worker1", "sudo ip rule add pref 500 table 500")
    ran = lab("reset", expect=1)
    assert "the network is not what it was before the node joined" in ran.out
    assert "rule 500:" in ran.out
    lab("ssh", "worker1", "sudo ip rule del pref 500")
    lab("reset")
