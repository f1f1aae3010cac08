"""Fleets: several labs of one spec, for example one for every student of a course.

    Pulumi.course.yaml, --count 3  ->  course-s1, course-s2, course-s3

A member differs from its spec only in its name, its lab network and its forwarded ports. Its
spec is a generated file, so every verb works on it: ``./lab ssh --lab course-s2 worker1``.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Literal

import yaml
from jinja2 import Environment, StrictUndefined

from hoplab.core import fs, host_network
from hoplab.core.errors import LabError, SpecError, SpecIssue, StateError
from hoplab.core.paths import PROJECT, LabPaths
from hoplab.core.progress import Progress
from hoplab.expectations.parts import known_parts
from hoplab.host.info import HostFacts
from hoplab.lab import libvirt_host, state
from hoplab.lab import status as lab_status
from hoplab.lab.context import node_image
from hoplab.lab.doctor import LAB_GIB
from hoplab.lab.spec_file import load_spec
from hoplab.spec.changes import changed_settings
from hoplab.spec.model import NAME_LENGTH, LabSpec
from hoplab.spec.parse import parse_spec
from hoplab.spec.plan import LabPlan

MAX_LABS = 99  # members: their names have two digits
HOSTED_MIB = 1024  # memory of a busy hosted control plane
WRITTEN = "# written by `lab fleet up {}`"
CLOCK = re.compile(r"^\[ *\w+\] ")  # the time at the front of a line of plain progress
SHEETS: tuple[Literal["md", "html"], ...] = ("md", "html")
HERE = Path(__file__).resolve().parent


class FleetError(LabError):
    """A failure to make or remove one or more labs of a fleet; the others succeeded."""


@dataclass(frozen=True)
class Row:
    """The present state of one lab of a fleet."""

    lab: str
    network: str
    machines: str  # "2 of 2 running"
    kubernetes: str  # "2 of 2 Ready"
    healthy: bool


@dataclass(frozen=True)
class Fleet:
    """All labs of one spec."""

    spec: str  # the spec's name; "course" for Pulumi.course.yaml
    project: Path = PROJECT

    @property
    def folder(self) -> Path:
        """Return the folder of sheets and logs: <project>/.lab/fleet/<spec>/"""
        return self.project / ".lab" / "fleet" / self.spec

    def member(self, number: int) -> LabPaths:
        return LabPaths(f"{self.spec}-s{number}", self.project)

    def log(self, member: LabPaths) -> Path:
        return self.folder / f"{member.lab}.log"

    def made(self) -> tuple[LabPaths, ...]:
        """Return the existing members by number: those with a spec that a fleet wrote."""
        numbers = [
            int(found[1])
            for path in self.project.glob(f"Pulumi.{self.spec}-s*.yaml")
            if (found := re.fullmatch(rf"Pulumi\.{re.escape(self.spec)}-s([1-9][0-9]?)\.yaml", path.name))
            and self._is_ours(path)
        ]
        return tuple(self.member(number) for number in sorted(numbers))

    def _is_ours(self, path: Path) -> bool:
        return path.read_text(encoding="utf-8", errors="replace").startswith(WRITTEN.format(self.spec))


def networks(spec: LabSpec, count: int) -> list[IPv4Network]:
    """Return the lab network of every member: the spec's and those after it, without the ranges of pods and services.

    >>> [str(network) for network in networks(LabSpec("course"), 2)]
    ['192.168.77.0/24', '192.168.78.0/24']
    """
    found: list[IPv4Network] = []
    step, address = spec.network.num_addresses, int(spec.network.network_address)
    while len(found) < count:
        if address + step > 2**32 or not (network := IPv4Network((address, spec.network.prefixlen))).is_private:
            right = f"a network with room for {count} after it, for instance 10.100.0.0/{spec.network.prefixlen}"
            raise SpecError(
                f"Pulumi.{spec.lab}.yaml",
                [SpecIssue("network", f"private networks of this size from {spec.network} on are {len(found)}", right)],
            )
        if not network.overlaps(spec.pod_cidr) and not network.overlaps(spec.service_cidr):
            found.append(network)
        address += step
    return found


def member_text(spec: str, config: Mapping[str, Any], network: IPv4Network) -> str:
    """Return the spec of a member: the fleet's, with a network of its own, and not kept unless the fleet's says so."""
    body = yaml.safe_dump({"config": {"lab:checkpoint": "off", **config, "lab:network": str(network)}}, sort_keys=False)
    return f"{WRITTEN.format(spec)}; change Pulumi.{spec}.yaml instead\n{body}"


def write_specs(fleet: Fleet, count: int) -> tuple[LabPaths, ...]:
    """Write the spec of every member, in place of an earlier run's; write nothing where one has errors."""
    base = load_spec(LabPaths(fleet.spec, fleet.project))
    longest = fleet.member(count).lab
    if len(longest) > NAME_LENGTH:
        raise LabError(
            f"{longest} is too long for the name of a lab, which has at most {NAME_LENGTH} characters",
            remedy=f"give the spec {fleet.spec!r} a shorter name",
        )
    stack = yaml.safe_load(LabPaths(fleet.spec, fleet.project).spec.read_text(encoding="utf-8")) or {}
    config: dict[str, Any] = stack.get("config") or {}
    texts: dict[Path, str] = {}
    members = tuple(fleet.member(number) for number in range(1, count + 1))
    ours = set(fleet.made())
    for member, network in zip(members, networks(base, count), strict=True):
        if member.spec.exists() and member not in ours:
            raise LabError(
                f"{member.spec.name} is there already and was not written by a fleet",
                remedy="rename that lab, or give the fleet's spec another name",
            )
        text = member_text(fleet.spec, config, network)
        parse_spec(member.lab, yaml.safe_load(text)["config"], member.spec.name, known_parts())
        texts[member.spec] = text
    for path, text in texts.items():
        fs.write(path, text)
    return members


def need_mib(plan: LabPlan) -> int:
    """Return the memory of a lab in MiB when all of its machines use their full memory."""
    return sum(node.memory_mib for node in plan.nodes) + (HOSTED_MIB if plan.placement == "hosted" else 0)


def check_host(fleet: Fleet, plans: Mapping[LabPaths, LabPlan], host: HostFacts) -> list[str]:
    """Return warnings; raise HostError where the machines' host is too small for the members to be made."""
    new = {member: plan for member, plan in plans.items() if not member.state.exists()}
    host.require_memory(sum(need_mib(plan) for plan in new.values()))
    if not host.name:  # of another host each `up` looks at the space
        host.require_disk(fleet.project, LAB_GIB * len(new))
    emulated = sum(len(plan.nodes) for plan in plans.values() if plan.accel == "tcg")
    if emulated > host.cpus:
        return [f"{emulated} emulated machines share {host.cpus} processors: everything takes longer"]
    return []


def up(fleet: Fleet, count: int, parallel: int, progress: Progress) -> tuple[LabPaths, ...]:
    """Bring up every member, some at a time; when all have ended, raise FleetError naming the failed ones."""
    with progress.phase("specs"):
        members = write_specs(fleet, count)
    with progress.phase("node image"):  # once, before all members need it
        plans = {member: node_image(load_spec(member), member, progress)[0] for member in members}
    for warning in check_host(fleet, plans, libvirt_host.facts_of(load_spec(members[0]), members[0])):
        progress.note(f"warning: {warning}")
    for extra in (member for member in fleet.made() if member not in members):
        progress.note(f"{extra.lab} is beyond --count {count} and stays")
    with progress.phase("labs"):
        run_all(fleet, members, "up", parallel, progress)
    with progress.phase("sheets"):
        write_sheets(fleet, plans)
    return members


def destroy(fleet: Fleet, parallel: int, progress: Progress) -> list[str]:
    """Remove every member with its spec, log and sheets; return the removed ones. A failed removal keeps the spec."""
    members = fleet.made()
    with progress.phase("labs"):
        run_all(fleet, members, "destroy", parallel, progress)
    for member in members:
        member.spec.unlink()
    removed = [f"lab {member.lab}" for member in members]
    if fleet.folder.exists():
        shutil.rmtree(fleet.folder)
        removed.append(f"folder {fleet.folder}")
    return removed


def chosen(fleet: Fleet, names: Iterable[str]) -> tuple[LabPaths, ...]:
    """Return the members of these names, ``s2`` or ``course-s2``, each once; raise FleetError for any other name."""
    made = {member.lab: member for member in fleet.made()}
    wanted = dict.fromkeys(name if name in made else f"{fleet.spec}-{name}" for name in names)
    if missing := [name for name in wanted if name not in made]:
        raise FleetError(
            f"the fleet of {fleet.spec!r} has no {' and no '.join(missing)}",
            remedy=f"its labs are {', '.join(made)}" if made else f"make one: ./lab fleet up {fleet.spec} --count 3",
        )
    return tuple(made[name] for name in wanted)


def reset(
    fleet: Fleet, names: Sequence[str], parallel: int, progress: Progress, *, yes: bool = False
) -> tuple[LabPaths, ...]:
    """Make members anew, from their kept checkpoints where they have some.

    Raise FleetError without ``yes``, as what is in them is lost; and at the end, naming the failed ones.
    """
    members = chosen(fleet, names)
    if not yes:
        labs = ", ".join(member.lab for member in members)
        raise FleetError(
            f"the present state of {labs} would be lost",
            remedy=f"if that is what you want: ./lab fleet reset {fleet.spec} {' '.join(names)} --yes",
        )
    for member in members:
        if load_spec(member).checkpoint == "off":
            progress.note(
                f"{member.lab} has no kept checkpoint and is made from nothing: lab:checkpoint: auto in "
                f"Pulumi.{fleet.spec}.yaml keeps one of each lab at the next `fleet up`"
            )
    with progress.phase("old labs"):
        run_all(fleet, members, "destroy", parallel, progress)
    with progress.phase("labs"):
        run_all(fleet, members, "up", parallel, progress)
    return members


def status(fleet: Fleet) -> list[Row]:
    """Return a row for every lab, including those not made yet."""
    rows = []
    for member in fleet.made():
        try:
            network = str(state.built_setting(state.load(member), member).network)
            seen = lab_status.status(member)
        except StateError as error:
            network = str(load_spec(member).network)
            rows.append(Row(member.lab, network, error.message, "-", healthy=False))
            continue
        nodes = seen["nodes"]
        running = f"{sum(node['machine'] == 'running' for node in nodes)} of {len(nodes)} running"
        ready = f"{sum(bool(node['ready']) for node in nodes)} of {len(nodes)} Ready"
        rows.append(Row(member.lab, network, running, ready, healthy=seen["healthy"]))
    return rows


def notices(fleet: Fleet) -> list[str]:
    """Return a line for each spec that was edited after ``fleet up``: a member's own, and the fleet's."""
    found = []
    changed: dict[str, None] = {}
    with contextlib.suppress(LabError):
        base = load_spec(LabPaths(fleet.spec, fleet.project))
        for made in _made_from(fleet):
            changed |= dict.fromkeys(changed_settings(made, _as_of(made, base)))
    if changed:
        found.append(f"Pulumi.{fleet.spec}.yaml has changed since `fleet up`: {', '.join(changed)}")
    for member in fleet.made():
        with contextlib.suppress(StateError):
            found.append(state.spec_notice(state.load(member), member))
    return list(filter(None, found))


def _as_of(member: LabSpec, base: LabSpec) -> LabSpec:
    """Return the fleet's spec with what a member has of its own."""
    return replace(base, lab=member.lab, network=member.network, checkpoint=member.checkpoint)


def _made_from(fleet: Fleet) -> Iterator[LabSpec]:
    """Yield the spec that each member was made from, where known."""
    for member in fleet.made():
        lab = state.made_before(member)
        if lab and lab.spec:
            yield lab.spec


class _Running:
    """The running labs' processes: an interrupt reaches each of them once, also one that starts at that moment."""

    def __init__(self) -> None:
        self._processes: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self.interrupted = False

    def add(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            self._processes.add(process)
            if self.interrupted:
                process.send_signal(signal.SIGINT)

    def discard(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            self._processes.discard(process)

    def interrupt(self) -> None:
        """End each process cleanly, as after Ctrl-C on its own terminal."""
        with self._lock:
            self.interrupted = True
            for process in self._processes:
                process.send_signal(signal.SIGINT)


def run_all(fleet: Fleet, members: Iterable[LabPaths], verb: str, parallel: int, progress: Progress) -> None:
    """Run ``./lab VERB`` on every member, each as a process with its own log; raise FleetError when some failed."""
    waiting = tuple(members)
    private_folder(fleet.folder)
    running = _Running()
    done: list[str] = []

    def run(member: LabPaths) -> str:
        if running.interrupted:
            return ""
        error = _run(fleet, member, verb, progress, running)
        if not error:
            done.append(member.lab)
            progress.note(f"{member.lab}: {verb} is done ({len(done)} of {len(waiting)})")
        return error

    with ThreadPoolExecutor(parallel) as pool:
        try:
            failed = {member.lab: error for member, error in zip(waiting, pool.map(run, waiting), strict=True) if error}
        except KeyboardInterrupt:
            running.interrupt()
            raise
    if failed:
        lines = "\n".join(f"  {lab}: {error}" for lab, error in failed.items())
        raise FleetError(
            f"{len(failed)} of {len(waiting)} labs failed:\n{lines}",
            remedy="run the same command again to continue with them",
            log=str(fleet.folder),
        )


def _run(fleet: Fleet, member: LabPaths, verb: str, progress: Progress, running: _Running) -> str:
    """Run the verb for one member; return its error, "" where it succeeded."""
    start = partial(
        subprocess.Popen,
        [str(fleet.project / "lab"), verb, "--lab", member.lab],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=fleet.project,
        start_new_session=True,  # run_all passes Ctrl-C on, once
    )
    process = host_network.run(start)  # of which each moves to the lab's by itself
    running.add(process)
    error = ""
    assert process.stdout is not None
    with process, process.stdout, fleet.log(member).open("w") as log:
        for line in process.stdout:
            log.write(line)
            log.flush()
            if line.startswith("error: "):
                error = line.removeprefix("error: ").strip()
            elif CLOCK.match(line):
                progress.task(f"{member.lab}: {CLOCK.sub('', line).strip()}")
    running.discard(process)
    return "" if process.returncode == 0 else error or f"ended with {process.returncode}"


def private_folder(folder: Path) -> None:
    """Make a folder that only its owner can read: sheets name key files, logs hold errors."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def write_sheets(fleet: Fleet, plans: Mapping[LabPaths, LabPlan]) -> list[Path]:
    """Write a sheet of access data for every member, as Markdown and as HTML; return the files."""
    private_folder(fleet.folder)
    written = []
    for kind in SHEETS:
        for member, plan in plans.items():
            written.append(fleet.folder / f"{member.lab}.{kind}")
            fs.write(written[-1], sheet(member, plan, kind))
    return written


def sheet(member: LabPaths, plan: LabPlan, kind: Literal["md", "html"]) -> str:
    """Return a student's sheet: machines, addresses, how to log in. It names files with secrets and holds none."""
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=kind == "html",
    )
    template = environment.from_string((HERE / f"fleet_sheet.{kind}.j2").read_text(encoding="utf-8"))
    return template.render(paths=member, plan=plan)
