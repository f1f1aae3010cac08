"""The lab's components: Lab = LabNetwork + NodeImage + one Node per machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pulumi
from pulumi import ComponentResource, Input, Output, ResourceOptions

from hoplab.core.paths import LabPaths
from hoplab.host.machines import domain_name as domain_name  # noqa: PLC0414 - re-exported
from hoplab.infra import libvirt
from hoplab.infra.cloudinit import CloudInit, render
from hoplab.infra.context import LabContext
from hoplab.spec.plan import NetworkPlan, NodePlan


class LabNetwork(ComponentResource):
    """The bridge of all machines; its host end is their gateway and DNS server."""

    id_: Output[str]
    name: Output[str]

    def __init__(
        self, name: str, plan: NetworkPlan, hosts: dict[str, str], opts: ResourceOptions | None = None
    ) -> None:
        super().__init__("hoplab:lab:LabNetwork", name, {}, opts)
        network = libvirt.nat_network(
            name,
            network=plan.name,
            bridge=plan.bridge,
            cidrs=[str(cidr) for cidr in (plan.cidr, plan.cidr6) if cidr],
            domain=plan.domain,
            hosts=hosts,
            parent=self,
        )
        self.id_, self.name = network.id, network.name
        self.register_outputs({"id": self.id_, "name": self.name})


@dataclass(frozen=True)
class NodeImageArgs:
    """A node image in the cache."""

    digest: str
    disk: Path
    kernel: Path
    initrd: Path
    pool: Input[str]


class NodeImage(ComponentResource):
    """The golden image as volumes: the backing disk of the machines' disks, kernel and initrd."""

    disk: Output[str]
    kernel: Output[str]
    initrd: Output[str]

    def __init__(self, name: str, args: NodeImageArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("hoplab:lab:NodeImage", name, {}, opts)
        mark = args.digest.removeprefix("sha256:")[:12]

        def upload(part: str, source: Path, format: Literal["qcow2", "raw"]) -> Output[str]:
            volume = libvirt.uploaded_volume(
                f"{name}-{part}", volume=f"{part}-{mark}", pool=args.pool, source=source, format=format, parent=self
            )
            return volume.id

        self.disk = upload("disk", args.disk, "qcow2")
        self.kernel = upload("kernel", args.kernel, "raw")
        self.initrd = upload("initrd", args.initrd, "raw")
        self.register_outputs({"disk": self.disk, "kernel": self.kernel, "initrd": self.initrd})


@dataclass(frozen=True)
class NodeArgs:
    """The inputs of one machine."""

    plan: NodePlan
    domain: str
    accel: Literal["kvm", "tcg"]
    cmdline: str
    seed: CloudInit
    console: Path
    pool: Input[str]
    base: Input[str]
    kernel: Input[str]
    initrd: Input[str]
    network: Input[str]
    private: bool = True  # libvirt is the lab's own; else the console log is a volume, where that libvirt may write
    after: tuple[pulumi.Resource, ...] = ()  # resources to complete before a change of this machine


class Node(ComponentResource):
    """A virtual machine: its disk, its seed and the domain itself."""

    domain_id: Output[str]

    def __init__(self, name: str, args: NodeArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("hoplab:lab:Node", name, {}, opts)
        plan = args.plan
        disk = libvirt.overlay_volume(
            f"{name}-disk",
            volume=f"{name}.qcow2",
            pool=args.pool,
            base=args.base,
            size_gib=plan.disk_gib,
            parent=self,
            after=args.after,
        )
        seed = libvirt.seed_disk(f"{name}-seed", volume=f"{name}-seed.iso", pool=args.pool, seed=args.seed, parent=self)
        if not pulumi.runtime.is_dry_run():
            args.console.parent.mkdir(parents=True, exist_ok=True)
            args.console.touch()  # QEMU opens the console's file, but does not create it
        log: Input[str] = str(args.console)
        if not args.private:
            volume = libvirt.uploaded_volume(
                f"{name}-console",
                volume=f"{name}.console",
                pool=args.pool,
                source=args.console,
                format="raw",
                parent=self,
            )
            log = volume.id
        domain = libvirt.domain(
            name,
            domain=args.domain,
            accel=args.accel,
            vcpus=plan.vcpus,
            memory_mib=plan.memory_mib,
            kernel=args.kernel,
            initrd=args.initrd,
            cmdline=args.cmdline,
            disks=[disk.id, libvirt.seed_volume_id(seed)],
            network=args.network,
            mac=plan.mac,
            console=log,
            parent=self,
        )
        self.domain_id = domain.id
        self.register_outputs({"domain": self.domain_id})


# Returns the resource of a worker's membership in the cluster for its name and the id of its machine
Membership = Callable[[str, Input[str], ResourceOptions], pulumi.Resource]


@dataclass(frozen=True)
class LabArgs:
    """A planned lab, with its libvirt and its image."""

    context: LabContext
    pool: Path
    console: Path
    host: pulumi.Resource | None = None  # created before everything else, deleted after it
    member: Membership | None = None
    rolling: bool = False  # for an existing lab: change its workers one after the other

    @staticmethod
    def of(
        context: LabContext,
        paths: LabPaths,
        host: pulumi.Resource | None = None,
        member: Membership | None = None,
        *,
        rolling: bool = False,
    ) -> LabArgs:
        return LabArgs(context, context.pool(paths), paths.console, host, member, rolling)


class Lab(ComponentResource):
    """All resources of one lab."""

    network_name: Output[str]
    nodes: dict[str, dict[str, Input[str]]]
    machines: dict[str, Input[str]]  # name -> id of the machine
    members: list[pulumi.Resource]  # the workers' memberships, where they are resources

    def __init__(self, name: str, args: LabArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("hoplab:lab:Lab", name, {}, opts)
        context, plan = args.context, args.context.plan
        on_host = ResourceOptions(parent=self, depends_on=[args.host] if args.host else None)
        here = ResourceOptions(parent=self, provider=libvirt.provider("libvirt", context.uri, on_host))
        # Resources that can't be recreated: the pool of all disks, and a control plane with etcd's data
        kept = ResourceOptions.merge(here, ResourceOptions(protect=plan.protect or None))
        store = Store("store", plan.network.name, args.pool, opts=kept)
        network = LabNetwork("network", plan.network, {node.name: str(node.address) for node in plan.nodes}, opts=here)
        image = NodeImage(
            "image",
            NodeImageArgs(
                context.image.digest, context.image.disk, context.image.kernel, context.image.initrd, pool=store.name
            ),
            opts=here,
        )
        self.nodes, self.members = {}, []
        done: tuple[pulumi.Resource, ...] = ()
        for node_plan in plan.nodes:
            host = context.keys.host[node_plan.name]
            node = Node(
                node_plan.name,
                NodeArgs(
                    plan=node_plan,
                    domain=domain_name(plan.id, node_plan.name),
                    accel=plan.accel,
                    cmdline=context.cmdline,
                    seed=render(
                        node_plan,
                        plan.network,
                        user_public=context.keys.user_public,
                        host_private=host.private,
                        host_public=host.public,
                    ),
                    console=args.console / f"{node_plan.name}.log",
                    pool=store.name,
                    base=image.disk,
                    kernel=image.kernel,
                    initrd=image.initrd,
                    network=network.id_,
                    private=context.private,
                    after=done if args.rolling else (),
                ),
                opts=kept if node_plan.role == "control-plane" else here,
            )
            self.nodes[node_plan.name] = {
                "address": str(node_plan.address),
                "mac": node_plan.mac,
                "domain": node.domain_id,
            }
            if args.member is not None and node_plan.role == "worker":
                done = (args.member(node_plan.name, node.domain_id, ResourceOptions(parent=node)),)
                self.members += done
        self.machines = {name: node["domain"] for name, node in self.nodes.items()}
        self.network_name = network.name
        self.register_outputs({"network": self.network_name, "nodes": self.nodes})


class Store(ComponentResource):
    """The folder with the lab's disks."""

    name: Output[str]

    def __init__(self, name: str, pool: str, path: Path, opts: ResourceOptions | None = None) -> None:
        super().__init__("hoplab:lab:Store", name, {}, opts)
        self.name = libvirt.pool(name, pool_name=pool, path=path, parent=self).name
        self.register_outputs({"name": self.name})
