"""The settings of a spec, each declared once: place in the file, type, default, bounds, text for the documentation.

``Reader`` reads by these declarations; the JSON Schema for editors and the table in docs/spec.md are made from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TypeVar, get_args

from hoplab.spec.kinds import (
    Backend,
    Choice,
    Integer,
    KubernetesVersion,
    Names,
    PartChoice,
    Range,
    Setting,
    Size,
    Truth,
)
from hoplab.spec.model import Accel, CniSpec, Engine, Ipv6Spec, Keeping, LabSpec, Merging, Placement, machine_size

Kind = TypeVar("Kind", bound="Setting")
DEFAULT = LabSpec("default")
IPV6 = Ipv6Spec()
CONTROL_PLANE, WORKER = (machine_size(None, role, "kvm") for role in ("control-plane", "worker"))


def _machine(section: str, whose: str, vcpus: int, memory: int, sizes: Mapping[str, int]) -> tuple[Setting, ...]:
    emulated = f"{sizes['vcpus']}, emulated 1" if section.endswith("worker") else str(sizes["vcpus"])
    return (
        Integer(path=f"{section}.vcpus", meaning=f"virtual CPUs of {whose}", low=vcpus, high=64, default_text=emulated),
        Size(path=f"{section}.memory", meaning=f"memory of {whose}", low=memory, default=sizes["memory"]),
        Size(
            path=f"{section}.disk",
            meaning=f"disk of {whose} (it grows as it fills)",
            low=8 * 1024,
            default=sizes["disk"] * 1024,
        ),
    )


def _sizes(role: str) -> dict[str, int]:
    size = CONTROL_PLANE if role == "control-plane" else WORKER
    return {"vcpus": size.vcpus, "memory": size.memory_mib, "disk": size.disk_gib}


DECLARED: tuple[Setting, ...] = (
    Integer(path="nodes.workers", meaning="number of worker machines", low=1, high=1000, default=DEFAULT.workers),
    *_machine("nodes.controlPlane", "a control plane in a machine", 2, 2048, _sizes("control-plane")),
    *_machine("nodes.worker", "a worker", 1, 1024, _sizes("worker")),
    Choice(
        path="controlPlane.placement",
        meaning="in a machine of its own, or natively on the host end of the lab network",
        words=get_args(Placement),
        default=DEFAULT.control_plane_placement,
        default_text="`auto`: `vm` with KVM, `hosted` emulated",
    ),
    Range(
        path="network",
        meaning="the lab network: the machines' addresses, number 1 is the host end",
        default=DEFAULT.network,
        allowed="an IPv4 range with room for the workers, whose addresses begin at number 20",
    ),
    Range(
        path="podCIDR",
        meaning="addresses of pods",
        default=DEFAULT.pod_cidr,
        allowed="an IPv4 range with a /24 for each node",
    ),
    Range(
        path="serviceCIDR",
        meaning="ClusterIPs of services",
        default=DEFAULT.service_cidr,
        allowed="an IPv4 range, /12 to /27",
    ),
    Truth(
        path="ipv6",
        meaning="a second family of addresses (dual-stack)",
        allowed="`true` for the ranges below, or a mapping with others; all of them unique local addresses (fc00::/7)",
    ),
    Range(
        path="ipv6.network",
        meaning="the machines' addresses, with the digits of those of IPv4: 192.168.77.20 is fd00:77::20",
        default=IPV6.network,
        allowed="a /64",
    ),
    Range(
        path="ipv6.podCIDR",
        meaning="addresses of pods",
        default=IPV6.pod_cidr,
        allowed="/48 to /64, with a /64 for each node",
    ),
    Range(
        path="ipv6.serviceCIDR",
        meaning="ClusterIPs of services that ask for both families",
        default=IPV6.service_cidr,
        allowed="/108 to /123",
    ),
    PartChoice(path="cni.name", meaning="the network plugin", parts="cni", default=CniSpec.name),
    Backend(path="cni.backend", meaning="how it carries packets between nodes", default_text="the CNI's first one"),
    Truth(
        path="cni.nftables",
        meaning="the CNI's own rules, MASQUERADE for one, in nftables and not iptables",
        allowed="true, false; of a CNI that can write them (flannel)",
    ),
    Integer(
        path="cni.blockSize",
        meaning="prefix length of the blocks that nodes take of the pod range, of a CNI that has blocks (Calico)",
        low=20,
        high=30,
        default=CniSpec.block_size,
        allowed="20 to 30, with a block for each node",
    ),
    PartChoice(
        path="proxy.mode", meaning="how kube-proxy implements services", parts="proxy", default=DEFAULT.proxy_mode
    ),
    PartChoice(
        path="networkPolicy",
        meaning="what enforces NetworkPolicies beside a CNI that does not; `up` adds and removes it in a running lab",
        parts="policy",
        others=("none",),
        default=DEFAULT.network_policy,
    ),
    PartChoice(
        path="ingress.controller",
        meaning="the ingress controller",
        parts="ingress",
        others=("auto", "none"),
        default=DEFAULT.ingress_controller,
        default_text="`auto`: `nginx` when its image is at hand or, for a new lab, a registry answers within seconds; "
        "else `readable`",
    ),
    Truth(path="ingress.gatewayApi", meaning="whether it serves the Gateway API", allowed="true, false; of `readable`"),
    PartChoice(
        path="ingress.gateway",
        meaning="what serves the Gateway API beside the ingress controller; it needs a load balancer",
        parts="gateway",
        others=("none",),
        default=DEFAULT.gateway_controller,
    ),
    PartChoice(
        path="loadBalancer.name",
        meaning="what gives addresses to services of type LoadBalancer: MetalLB in layer-2 mode",
        parts="load_balancer",
        others=("none",),
        default=DEFAULT.load_balancer,
    ),
    Setting(
        path="loadBalancer.pool",
        meaning="these addresses",
        default_text="the last ten of the lab network that no machine has",
        allowed="addresses of the lab network: `192.168.77.245-192.168.77.254` or `192.168.77.240/29`",
    ),
    KubernetesVersion(path="kubernetes.version", meaning="the version of Kubernetes, with its etcd and coredns"),
    Setting(
        path="libvirt",
        meaning="which libvirt runs the machines",
        default_text=DEFAULT.libvirt,
        allowed="`private`: the lab's own, in a network namespace; `system`; a URI such as `qemu+ssh://user@host/system`",
    ),
    Choice(
        path="accel",
        meaning="how machines run",
        words=get_args(Accel),
        default=DEFAULT.accel,
        default_text="`auto`: KVM where it works",
        allowed="`auto`, `kvm`, `tcg` (emulated)",
    ),
    Choice(
        path="engine",
        meaning="what applies the Pulumi program",
        words=get_args(Engine),
        default=DEFAULT.engine,
        default_text="`auto`: a Pulumi CLI if there is one",
    ),
    Choice(
        path="checkpoint",
        meaning="whether `up` keeps a checkpoint of a new lab, and starts from it when it makes the same lab again",
        words=get_args(Keeping),
        default=DEFAULT.checkpoint,
        default_text="`auto`: kept of labs with a libvirt of their own",
        allowed="`auto`, `take` (starts from one, keeps none), `off`",
    ),
    Setting(
        path="family",
        meaning="labs of one family have the same MACs and DNS domain, so that `up` can fork one from a checkpoint "
        "of another; `fleet up` writes it",
        default_text="none",
        allowed="a name like a lab's",
    ),
    Choice(
        path="kubeconfig",
        meaning="whether `up` adds the lab to your kubeconfig as context `hoplab-<lab>`, until `destroy`",
        words=get_args(Merging),
        default=DEFAULT.kubeconfig,
    ),
    Truth(
        path="protect",
        meaning="the control plane and the lab's disks as a whole are neither deleted nor replaced, by no engine, "
        "until this is false again",
    ),
    Setting(
        path="image.mirror",
        meaning="the Debian mirror that node images are made from",
        default_text="what mmdebstrap uses",
        allowed="an http, https or file URL",
    ),
    Names(
        path="image.components",
        meaning="components whose container images or programs the node image has beside what the lab needs, "
        "see [image.md](image.md)",
        default_text="`[]`",
        allowed="a list of `cni_calico`, `ingress_nginx`, `ingress_traefik`, `ingress_haproxy`, "
        "`ingress_ingress_nginx`, `gateway_nginx`, `cni_cilium`, `node_tools`",
    ),
)


def keys_of(section: str) -> tuple[str, ...]:
    """Return the keys of a section ("nodes"; "" for the namespace itself), in the order of their declaration."""
    prefix = f"{section}." if section else ""
    below = (setting.path.removeprefix(prefix) for setting in DECLARED if setting.path.startswith(prefix))
    return tuple(dict.fromkeys(path.partition(".")[0] for path in below))


SETTINGS = keys_of("")
BY_PATH: Mapping[str, Setting] = {setting.path: setting for setting in DECLARED}


def _declared(kind: type[Kind], path: str) -> Kind:
    """Return the declaration of a setting of this kind."""
    setting = BY_PATH[path]
    assert isinstance(setting, kind)
    return setting


integer_at = partial(_declared, Integer)
size_at = partial(_declared, Size)
choice_at = partial(_declared, Choice)
part_at = partial(_declared, PartChoice)
