"""CNIs and what implements services in a spec: names, and which of them go together."""

from __future__ import annotations

from typing import Any

import pytest

from hoplab.core.errors import SpecError
from hoplab.spec.model import CniSpec, LabSpec
from hoplab.spec.parse import parse_spec
from tests.support.specs import PARTS, VERSIONS


def parse(**config: Any) -> LabSpec:
    return parse_spec("dev", {f"lab:{key}": value for key, value in config.items()}, "x", PARTS, versions=VERSIONS)


@pytest.mark.parametrize(
    ("config", "issue"),
    [
        (
            {"cni": {"name": "flanel"}},
            "cni.name: 'flanel' is unknown; did you mean flannel? one of flannel, calico, cilium",
        ),
        ({"cni": {"name": "cilium", "backend": "geneve"}}, "cni.backend: 'geneve' is unknown; one of vxlan, native"),
        (
            {"proxy": {"mode": "ipvs"}},
            "proxy.mode: ipvs is deprecated in Kubernetes; one of iptables, nftables, cilium",
        ),
        (
            {"proxy": {"mode": "cilium"}, "cni": {"name": "calico"}},
            "proxy.mode: cilium is the work of the CNI cilium, and this lab has calico; "
            "one of iptables, nftables, or cni.name: cilium",
        ),
        ({"proxy": {"mode": "cilium"}, "cni": {"name": "caliko"}}, "cni.name: 'caliko' is unknown"),
    ],
)
def test_one_issue(config: dict[str, Any], issue: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(**config)
    (found,) = caught.value.issues
    assert f"{found.path}: {found.problem}; {found.hint}".startswith(issue)


def test_cilium_does_the_work_of_kube_proxy() -> None:
    spec = parse(cni={"name": "cilium"}, proxy={"mode": "cilium"})
    assert (spec.cni, spec.proxy_mode) == (CniSpec("cilium", "vxlan"), "cilium")
