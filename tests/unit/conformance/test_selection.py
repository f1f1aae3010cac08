"""Which specs run on which lab, and why others do not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from hoplab.conformance import selection
from hoplab.core.errors import LabError
from hoplab.observe import setting
from hoplab.observe.setting import Setting
from tests.support.fake_e2e import BASIC, MORE, NAMES, NODE_PORT, POLICY, SKIPPED
from tests.support.files import CAPTURED
from tests.support.labs import PLAN

LAB = setting.of_plan(PLAN)


def select(
    focus: str = "",
    *,
    quick: bool = False,
    lab: Setting = LAB,
    enforces: bool = False,
    emulated: bool = False,
    names: tuple[str, ...] = NAMES,
) -> selection.Selection:
    return selection.select(names, lab, focus=focus, quick=quick, enforces_policies=enforces, emulated=emulated)


def test_specs_are_read_from_the_list_of_e2e_test() -> None:
    text = "The following spec names can be used with 'ginkgo run':\n    ../network/dns.go:55: [a] b: c\n\n"
    assert selection.parse_list(text) == ("[a] b: c",)


def test_upstreams_list_has_47_specs_for_conformance_and_each_quick_one_once() -> None:
    """The list of e2e.test 1.37.2, without most of the specs that are not for conformance of the network."""
    names = selection.parse_list((CAPTURED / "e2e_tests.txt").read_text())
    chosen = select(names=names)
    assert (len(chosen.run), chosen.impossible) == (47, {})
    quick = select(quick=True, names=names).run
    assert [sum(part in name for name in quick) for part in selection.QUICK] == [1] * len(quick) == [1] * 5


def test_without_a_focus_the_network_specs_for_conformance_run() -> None:
    assert select() == selection.Selection((BASIC, MORE, NODE_PORT), {})


def test_a_focus_also_finds_specs_that_no_cluster_has_to_pass() -> None:
    assert select("two nodes").run == (SKIPPED,)


def test_quick_is_a_part_of_the_conformance_specs() -> None:
    names = tuple(f"[sig-network] {part} {end}" for part in selection.QUICK for end in ("[Conformance]", "[Slow]"))
    assert select(quick=True, names=names).run == names[::2]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Services should work after restarting kube-proxy [Disruptive]", "it stops parts of the cluster"),
        ("DNS should support configurable pod resolv.conf", "a CoreDNS"),
        ("Conntrack proxy implementation should not be vulnerable to the invalid conntrack state bug", "regression"),
        ("Networking should provide Internet connection [Feature:Networking-IPv4]", "hosts of the internet"),
        ("[Feature:IPv6DualStack] should have ipv4 and ipv6", "no IPv6 (lab:ipv6)"),
        ("Netpol NetworkPolicy should deny", "flannel, enforces no NetworkPolicy"),
    ],
)
def test_a_spec_that_cannot_run_is_left_out_with_the_reason(name: str, reason: str) -> None:
    name = f"[sig-network] {name}"
    found = select("should", names=(name, BASIC))
    assert found.run == (BASIC,)
    assert reason in found.impossible[name]


def test_what_a_lab_has_is_not_left_out() -> None:
    names = ("[sig-network] LoadBalancers [Feature:LoadBalancer] should work",)
    assert select(".", enforces=True, names=(POLICY,)).run == (POLICY,)
    assert select(".", lab=replace(LAB, load_balancer="metallb"), names=names).run == names
    assert "lab:loadBalancer" in select(".", lab=replace(LAB, load_balancer="none"), names=names).impossible[names[0]]


def test_policies_for_sctp_are_left_out_on_emulated_machines_only() -> None:
    name = (
        "[sig-network] Netpol [Feature:SCTPConnectivity] [LinuxOnly] NetworkPolicy should enforce policy based on Ports"
    )
    other = "[sig-network] Networking Granular Checks: should function for pod-pod: sctp [Feature:SCTPConnectivity]"
    assert select(".", enforces=True, names=(name, other)).run == (name, other)
    chosen = select(".", enforces=True, emulated=True, names=(name, other))
    assert chosen.run == (other,) and "closes at once" in chosen.impossible[name]


def test_an_expression_that_is_none_is_refused() -> None:
    with pytest.raises(LabError, match=r"--focus '\(' is no regular expression") as caught:
        select("(")
    assert "NodePort" in caught.value.remedy


def test_a_focus_without_a_spec_is_refused() -> None:
    with pytest.raises(LabError, match="none of the 7 network specs matches --focus 'sig-storage'") as caught:
        select("sig-storage")
    assert "docs/conformance.md" in caught.value.remedy
    with pytest.raises(LabError, match="none of the 1 network specs is one for conformance"):
        select(names=(SKIPPED,))


def test_the_focus_of_ginkgo_matches_the_chosen_names_alone() -> None:
    """It is searched for in the suite's name and the spec's."""
    expression = selection.focus_expression([BASIC, "[sig-network] DNS (a|b) a.b/c+ [Slow]"])
    assert re.search(expression, f"Kubernetes e2e suite {BASIC}")
    assert re.search(expression, "Kubernetes e2e suite [sig-network] DNS (a|b) a.b/c+ [Slow]")
    assert not re.search(expression, f"Kubernetes e2e suite {MORE}")
    assert "\\ " not in expression and "\\/" not in expression  # Go refuses these
