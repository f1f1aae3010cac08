"""The golden node image: a disk, a kernel and an initrd that boot as a Kubernetes node with nothing left to install.

    components.toml -> Go programs   -\\
                    -> Debian systems -+-> container images -> node disk (roles over a chroot, images baked in)

Every arrow is a stage. The store keeps it under a digest of its input, so a build makes only what changed.
docs/image.md has the details.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from hoplab.core import paths
from hoplab.core.progress import Progress
from hoplab.image import archives, commands, conformance, containers, debian, disk, gobuild, initrd, registry, wanted
from hoplab.image.archives import Kept
from hoplab.image.outdated import Version, compare
from hoplab.image.store import Stage, Store, remove_tree
from hoplab.spec.catalog import ArchivedImage, Components, components, tables

# The kernel command line. mitigations=off: the machines run only the lab's programs, and on an emulated CPU every
# switch has a cost. lsm: no AppArmor or SELinux, whose hooks have no policy here. No fsck: the file
# system is new. rcu_expedited: a boot waits for many grace periods, one after the other.
KERNEL_CMDLINE = (
    "root=/dev/vda rootfstype=ext4 rw fsck.mode=skip console=ttyS0 net.ifnames=0 mitigations=off lsm=capability"
    " audit=0 nowatchdog rcupdate.rcu_expedited=1 cryptomgr.notests loglevel=4 panic=-1"
)

# QEMU 7.2 computes wrong flags for cmpxchg16b, which the kernel's allocator runs all the time. An interrupt at the
# wrong moment is then a double fault, and the machine restarts. Without it the kernel has a sequence of its own.
EMULATED_CMDLINE = "clearcpuid=cx16"

BUILDERS = 2  # builds at the same time; each compiles on all cores

INGRESS = "hoplab.local/ingress-"  # prefix of the names of ingress controllers' images
INGRESS_ROLE = "ingress_"  # prefix of the names of their roles

# Programs of a build on the host; gcc is for flannel's udp backend
HOST_PROGRAMS = ("go", "gcc", "mmdebstrap", "mke2fs", "qemu-img", "unshare", "setpriv", "tar")


@dataclass(frozen=True)
class NodeImage:
    """A finished image in the cache."""

    digest: str
    directory: Path
    disk: Path  # qcow2
    kernel: Path
    initrd: Path
    bin: Path  # static programs, which also run on this host (hosted control plane); CNI plugins in bin/cni
    size_gib: int  # virtual size of the disk
    versions: dict[str, str]
    archives: dict[str, str] = field(default_factory=dict)  # added or pulled images: name -> digest
    beside: dict[str, Path] = field(default_factory=dict)  # role -> archive of images that the lab's nodes import


def kernel_cmdline(accel: Literal["kvm", "tcg"]) -> str:
    """Return the kernel command line of a machine."""
    return f"{KERNEL_CMDLINE} {EMULATED_CMDLINE}" if accel == "tcg" else KERNEL_CMDLINE


def component_versions() -> dict[str, str]:
    """Return component -> version, from the table alone (nothing is built): ``{"kubernetes": "1.37.2", ...}``."""
    return components().versions()


def other_versions() -> dict[str, dict[str, str]]:
    """Return minor of Kubernetes -> what differs with it: ``{"1.36": {"kubernetes": "1.36.3", ...}}``."""
    usual = component_versions()
    every = {minor: table.versions() for minor, table in tables().items()}
    return {minor: dict(versions.items() - usual.items()) for minor, versions in every.items() if versions != usual}


def versions_of(digest: str) -> dict[str, str]:
    """Return component -> version for a lab with this node image: the table's for what no image of the cache says."""
    store = _store()
    stage = store.find("node", digest)
    return component_versions() | (store.manifest(stage.directory)["versions"] if stage else {})


def archived_components() -> dict[str, tuple[ArchivedImage, ...]]:
    """Return component -> the images it needs that can't be built here: ``{"cni_calico": (...), ...}``."""
    entries = components().archives
    return {entry.component: components().archives_of([entry.component]) for entry in entries}


def missing_images(component: str) -> tuple[str, ...]:
    """Return the names of a component's images that are not in the local folder; () for a component built here."""
    return tuple(entry.name for entry in archives.missing(components().archives_of([component])))


def add_archive(archive: Path) -> tuple[list[tuple[ArchivedImage, Kept]], list[str]]:
    """Add the images of an archive to the local folder; return them, and the names that no component needs."""
    return archives.add(archive, components().archives)


def list_archives() -> list[tuple[ArchivedImage, Kept | None]]:
    """Return each archived image of the table with its file in the local folder, None where there is none."""
    return [(entry, next(iter(archives.find([entry])), None)) for entry in components().archives]


def ingress_controllers() -> tuple[str, ...]:
    """Return the ingress controllers whose images are built here or in the local folder: ``("readable",)``."""
    names = (image.name for image in components().images)
    built = [name[len(INGRESS) :].partition(":")[0] for name in names if name.startswith(INGRESS)]
    roles = [role for role in archived_components() if role.startswith(INGRESS_ROLE) and not missing_images(role)]
    return (*built, *(role.removeprefix(INGRESS_ROLE).replace("_", "-") for role in roles))


def offered_ingress_controllers(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of these ingress controllers whose images are not all here, and whose registries answer in time."""
    roles = {name: f"{INGRESS_ROLE}{name.replace('-', '_')}" for name in names}
    absent = {name: missing_images(role) for name, role in roles.items()}
    return tuple(name for name, images in absent.items() if images and all(map(registry.answers, images)))


def pull_images(component: str, progress: Progress) -> None:
    """Pull the images of a component that are not in the local folder; raise ImageError where one can't be had."""
    store, table = _store(), components()
    _check_host()
    with store.locked(progress):
        containerd = gobuild.build(table.go["containerd"], store, progress)
        archives.pull(table.archives_of([component]), containerd.directory, store, progress)


def ensure_boot_files(progress: Progress, mirror: str = "") -> tuple[Path, Path]:
    """Return kernel and initrd of the nodes, built or cached. The test of KVM in `up` boots only these."""
    store, table = _store(), components().shared
    stage = _find_stages(table, store).get("boot")
    if stage is None:
        _check_host()
        with store.locked(progress):
            stage = _build_boot(table, store, progress, mirror)["boot"]
    return stage.directory / debian.KERNEL, stage.directory / initrd.INITRD


def ensure_image(
    accel: Literal["kvm", "tcg"],
    progress: Progress,
    mirror: str = "",
    needs: Collection[str] = (),
    kubernetes: str = "",
) -> NodeImage:
    """Return the image for machines of this acceleration: the cached one, or a new one with changed stages rebuilt.

    ``needs`` are components (names of roles). Their images that can't be built here come from the local folder or a
    container registry. Those that are built only for them are in no other node image: in this one where the table says
    so, else in archives beside it. The image has the table's default Kubernetes, or that of the minor of
    ``kubernetes``.
    """
    found = _ensure_disk(accel, progress, mirror, needs, kubernetes)
    asked = [role for role in sorted(needs) if role in components().wanted and role not in components().baked]
    beside = {role: wanted.archive(role, components(), _store(), progress, mirror) for role in asked}
    return replace(found, beside=beside)


def ensure_program(verb: str, progress: Progress) -> Path:
    """Return the program that this verb runs on the host, built when it is first asked for."""
    return wanted.programs(verb, components(), _store(), progress) / verb


def _ensure_disk(
    accel: Literal["kvm", "tcg"], progress: Progress, mirror: str, needs: Collection[str], kubernetes: str
) -> NodeImage:
    store, table = _store(), components(kubernetes).shared
    needed = table.archives_of(needs)
    stages, brought = _find_stages(table, store), archives.find(needed)
    baked = [wanted.Wanted.of(role, components(kubernetes)) for role in sorted(needs) if role in table.baked]
    whole = _complete(table, stages) and len(brought) == len(needed)
    for it in baked:
        cached = it.find(store)
        whole = whole and it.is_whole(cached)
        stages |= cached
    if whole and (found := store.find("node", disk.key(accel, stages, brought))):
        return _image(store, found.directory)
    _check_host()
    with store.locked(progress):
        if archives.missing(needed):  # before the long steps, as a pull can fail
            containerd = gobuild.build(table.go["containerd"], store, progress)
            archives.pull(needed, containerd.directory, store, progress)
            brought = archives.find(needed)
        stages = _build_boot(table, store, progress, mirror)
        programs = {f"go.{name}": partial(gobuild.build, module, store, progress) for name, module in table.go.items()}
        systems = {
            f"debian.{name}": partial(debian.build, system, store, progress, mirror)
            for name, system in table.debian.items()
        }
        stages |= _at_once({**programs, **systems})
        stages["containers"] = containers.build(table.images, stages, store, progress)
        versions = table.versions()
        for it in baked:
            stages |= it.build(store, progress, mirror)
            versions |= {module.name: module.version for module in it.go}
        order = disk.Order(accel, disk.key(accel, stages, brought), stages, versions, brought)
        built = disk.build(order, store, progress)
    return _image(store, built.directory)


def _build_boot(table: Components, store: Store, progress: Progress, mirror: str) -> dict[str, Stage]:
    """Build kernel and initrd of the nodes; return them with their two input stages."""
    stages = {
        "go.initrd": gobuild.build(table.go["initrd"], store, progress),
        "debian.node": debian.build(table.debian["node"], store, progress, mirror),
    }
    return {**stages, "boot": initrd.build(stages, store, progress)}


def _at_once(builds: Mapping[str, Callable[[], Stage]]) -> dict[str, Stage]:
    """Run independent builds at the same time: while one downloads or links, another compiles.

    Raise the first failure, and start no build after it.
    """
    pool = ThreadPoolExecutor(BUILDERS)
    futures = {name: pool.submit(build) for name, build in builds.items()}
    try:
        done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)
    return {name: future.result() for name, future in futures.items()}


def list_images() -> list[NodeImage]:
    """Return the images in the cache, oldest first."""
    store = _store()
    found = sorted(store.stages.glob("node-*"), key=lambda directory: directory.stat().st_mtime)
    return [_image(store, directory) for directory in found]


def prune_images(keep: set[str]) -> list[str]:
    """Remove other images, and stages that neither kept images nor the next build need; return the removed ones.

    Those of every Kubernetes and of upstream's tests stay while they are of the present table.
    """
    store = _store()
    needed = {stage.name for table in tables().values() for stage in _find_stages(table.shared, store).values()}
    needed |= {stage.name for stage in conformance.wanted().find(store).values()}
    needed |= {stage.name for stage in wanted.cached(components(), store)}
    needed |= {f"node-{digest}" for digest in keep}
    for directory in store.stages.glob("node-*"):
        if directory.name in needed:
            needed |= set(store.manifest(directory)["stages"])
    removed = []
    with store.locked(_Silent()):
        for directory in sorted(store.stages.glob("*")):
            if directory.name not in needed:
                size = sum(file.stat().st_size for file in directory.rglob("*") if file.stat().st_nlink == 1)
                # Renamed first: an interrupted removal must not leave an incomplete stage under its name.
                store.work.mkdir(exist_ok=True)
                remove_tree(directory.rename(store.work / f"removed-{directory.name}"))
                removed.append(f"{directory.name} ({size / 2**20:.0f} MiB)")
    return removed


def versions_and_newest() -> tuple[list[Version], list[str]]:
    """Return all versions in the table and in cached Debian systems beside the newest, and the systems not cached."""
    return compare(components(), _store(), older=[table for table in tables().values() if table != components()])


class _Silent:
    """Progress without output, for short work."""

    def phase(self, title: str) -> AbstractContextManager[None]:
        return nullcontext()

    def task(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...


def _store() -> Store:
    return Store(paths.cache_dir() / "image")


def _check_host() -> None:
    commands.require(HOST_PROGRAMS)
    commands.require_short(paths.cache_dir())


def _find_stages(table: Components, store: Store) -> dict[str, Stage]:
    """Return the cached stages below the node's."""
    found: dict[str, Stage | None] = {}
    for name, component in table.go.items():
        found[f"go.{name}"] = store.find(f"go-{name}", gobuild.key(component))
    for name, system in table.debian.items():
        found[f"debian.{name}"] = debian.find(system, store)
    stages = {name: stage for name, stage in found.items() if stage}
    if {"go.initrd", "debian.node"} <= set(stages) and (boot := store.find("boot", initrd.key(stages))):
        stages["boot"] = boot
    if set(found) <= set(stages) and (built := store.find("containers", containers.key(table.images, stages))):
        stages["containers"] = built
    return stages


def _complete(table: Components, stages: dict[str, Stage]) -> bool:
    return len(stages) == len(table.go) + len(table.debian) + len(("boot", "containers"))


def _image(store: Store, directory: Path) -> NodeImage:
    manifest = store.manifest(directory)
    return NodeImage(
        digest=manifest["key"],
        directory=directory,
        disk=directory / disk.DISK,
        kernel=directory / debian.KERNEL,
        initrd=directory / initrd.INITRD,
        bin=directory / disk.BIN,
        size_gib=manifest["size_gib"],
        versions=manifest["versions"],
        archives=manifest.get("archives", {}),
    )
