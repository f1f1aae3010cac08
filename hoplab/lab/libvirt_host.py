"""Checks of the host of a libvirt that is not the lab's own: the system's, or one on another host over SSH.

What counts is that host: its memory, disk, networks, clock and rules, not those of the machine where `./lab` runs.
"""

from __future__ import annotations

from collections.abc import Callable

from hoplab import engine
from hoplab.core.errors import LabError
from hoplab.core.packages import service_remedy
from hoplab.core.paths import LabPaths
from hoplab.expectations.parts import known_parts
from hoplab.host import firewall, info, machines
from hoplab.host.info import HostFacts
from hoplab.host.look import IMAGES, HostLook, look
from hoplab.host.machines import Capabilities
from hoplab.lab.check import Check
from hoplab.spec.libvirt_uri import remote_host
from hoplab.spec.model import LabSpec
from hoplab.spec.plan import bridge_name

CLOCK_S = 30.0  # certificates are valid from the moment of the clock that made them
APPARMOR_LINE = (
    f"echo '{IMAGES}/hoplab-*/** rwk,' >>/etc/apparmor.d/local/abstractions/libvirt-qemu, or lab:engine embedded"
)


def facts_of(spec: LabSpec, paths: LabPaths) -> HostFacts:
    """Return the figures of the host that runs the machines, without the lab's own network; HostError over SSH."""
    if spec.libvirt == "private":
        return info.host_facts()
    bridges = _lines(machines.network_bridges(spec.libvirt_uri))
    found = look(spec.remote).facts(bridges) if spec.remote else info.host_facts(bridges)
    return found.without(bridge_name(paths.id))


def host_for(paths: LabPaths) -> Callable[[LabSpec], HostFacts]:
    """Return what gives the host of a spec's machines: a spec is checked against it."""
    return lambda spec: facts_of(spec, paths)


def checks(spec: LabSpec, paths: LabPaths) -> list[Check]:
    """Return the checks of a libvirt and of its host; those that rest on a failed one are left out."""
    try:
        seen = look(spec.remote)
        facts = seen.facts()
    except LabError as error:
        return [Check("host of libvirt", False, error.message, error.remedy)]
    found = [*([clock(seen)] if spec.remote else []), memory(facts)]
    answers, has = libvirt_answers(spec.libvirt_uri)
    if has is None:
        return [*found, answers]
    side = firewall.LabSide(
        spec.network,
        bridge_name(paths.id),
        hosted=is_hosted(spec, has.kvm),
        masquerade_hurts=masquerade_hurts(spec),
    )
    rules = [
        Check(one.name, not one.remedy, one.found, one.remedy, needed=one.needed)
        for one in firewall.findings(seen, side, has.version)
    ]
    return [
        *found,
        answers,
        *rules,
        kvm_offered(has.kvm, spec),
        confinement(has.confined_by, seen, by_cli=engine.uses_cli(spec, paths)),
        space(seen),
    ]


def masquerade_hurts(spec: LabSpec) -> str:
    """Return the backend of the spec's CNI if it does not wrap packets between nodes, "" if it does."""
    return spec.cni.backend if spec.cni.backend in known_parts().cni[spec.cni.name].unwrapped_backends else ""


def is_hosted(spec: LabSpec, kvm: bool) -> bool:
    """Return whether the control plane runs on the host, with or without KVM there."""
    if spec.control_plane_placement != "auto":
        return spec.control_plane_placement == "hosted"
    return spec.remote is None and (spec.accel == "tcg" or not kvm)


def libvirt_answers(uri: str) -> tuple[Check, Capabilities | None]:
    """Check that a libvirt answers; return also what it says of itself."""
    try:
        found = machines.capabilities(uri)
    except LabError as error:
        remote = remote_host(uri)
        where = f" on {remote.name}" if remote else ""
        remedy = (
            f"start it{where} ({service_remedy()}) and join the group libvirt (usermod -aG libvirt $USER, then log in "
            "anew), or let the lab have its own (lab:libvirt private)"
        )
        return Check("libvirt", False, error.message, remedy), None
    return Check("libvirt", True, f"{found.number} at {uri}"), found


def clock(seen: HostLook) -> Check:
    """Check the clock of another host beside this one's."""
    ahead = seen.ahead_s
    way = "ahead" if ahead > 0 else "behind"
    if abs(ahead) < CLOCK_S:
        return Check("clock", True, f"{seen.remote} is {abs(ahead):.1f} s {way}")
    found = f"{seen.remote} is {abs(ahead):.0f} s {way}: certificates of one would not be valid at the other"
    return Check("clock", False, found, "timedatectl set-ntp true, there and here")


def kvm_offered(there: bool, spec: LabSpec) -> Check:
    """Report whether libvirt offers KVM; this user's own access to /dev/kvm does not matter."""
    if there:
        return Check("kvm", True, "libvirt offers it")
    if spec.accel != "kvm":
        return Check("kvm", True, "libvirt offers none; machines are emulated, about six times slower")
    remedy = "enable virtualization in that host's firmware, or set lab:accel to auto"
    return Check("kvm", False, "libvirt offers none", remedy)


def confinement(models: tuple[str, ...], seen: HostLook, *, by_cli: bool) -> Check:
    """Check that what confines QEMU lets it read the lab's volumes: AppArmor's profiles, SELinux' labels."""
    name, found = "confinement", ", ".join(models) or "none"
    if "selinux" in models and seen["label"] and "virt_image_t" not in seen["label"]:
        label = seen["label"].split()[0]
        return Check(name, False, f"{found}: {IMAGES} has the label {label}", f"restorecon -R -v {IMAGES}")
    if "apparmor" in models and by_cli:
        found += ": its profiles leave out volumes, as the Pulumi provider names disks"
        return Check(name, False, found, APPARMOR_LINE)
    return Check(name, True, f"{found}; volumes in {IMAGES}")


def space(seen: HostLook, gib: float = 2.0) -> Check:
    """Check the space for volumes on the host of libvirt: image and overlays."""
    free, where = seen.free_gib, f"{IMAGES}{f' of {seen.remote}' if seen.remote else ''}"
    found = f"{free:.1f} GiB free in {where}" + ("" if free >= gib else f", {gib:.0f} are needed")
    return Check("disk for machines", free >= gib, found, "" if free >= gib else "free some space there")


def memory(facts: HostFacts) -> Check:
    """Report the memory of the host that runs the machines; what is required depends on the spec and on what runs."""
    where = f" on {facts.name}" if facts.name else ""
    return Check("memory", True, f"{facts.memory_mib} MiB, {facts.available_memory_mib} available now{where}")


def _lines(bridges: dict[str, str]) -> str:
    return "".join(f"{bridge}\t{name}\n" for bridge, name in bridges.items())
