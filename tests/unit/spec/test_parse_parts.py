"""CNIs, what implements services, and what serves the Gateway API: names, and which of them go together."""

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
        (
            {"ingress": {"gateway": "nginx"}},
            "ingress.gateway: nginx makes a service of type LoadBalancer for each Gateway, and nothing gives it an "
            "address; a load balancer, loadBalancer.name: metallb",
        ),
        (
            {"ingress": {"gateway": "nginx", "gatewayApi": True}, "loadBalancer": {"name": "metallb"}},
            "ingress.gateway: nginx serves the Gateway API, and so does the ingress controller (ingress.gatewayApi); "
            "one of them: gatewayApi: false, or gateway: none",
        ),
        ({"ingress": {"gateway": "envoy"}}, "ingress.gateway: 'envoy' is unknown; one of none, nginx"),
        (
            {"ingress": {"gateway": "nginx"}, "loadBalancer": {"name": "metalb"}},
            "loadBalancer.name: 'metalb' is unknown; did you mean metallb? one of none, metallb",
        ),
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


def test_a_controller_of_the_gateway_api_alone() -> None:
    assert parse().gateway_controller == "none"
    metallb = {"name": "metallb"}
    for controller in ("none", "readable", "nginx", "auto"):
        found = parse(ingress={"controller": controller, "gateway": "nginx"}, loadBalancer=metallb)
        assert (found.gateway_controller, found.gateway_api) == ("nginx", False)
