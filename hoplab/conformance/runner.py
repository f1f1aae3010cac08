"""A run of upstream's tests on a running lab: build them, bring their images to the nodes, run, clean up."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hoplab import image as images
from hoplab.cluster.api import connect
from hoplab.conformance import namespaces, node_images, program, selection
from hoplab.conformance.ginkgo import Event, SpecResult, parse_report
from hoplab.conformance.ginkgo import Progress as Followed
from hoplab.conformance.report import Run, short
from hoplab.conformance.selection import Selection
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.core.wait import Timing, slowness
from hoplab.expectations.parts import known_parts
from hoplab.image import conformance
from hoplab.image.conformance import BuiltSuite
from hoplab.lab import state
from hoplab.lab.state import LabState
from hoplab.observe.setting import Setting
from hoplab.observe.ssh import Hosts
from hoplab.spec.catalog import minor_of

API_S = 30.0  # for one answer of the API server of a busy lab


@dataclass(frozen=True)
class Ended:
    """A run that is over: what it showed, whether Ctrl-C ended it, and what could not be cleaned up."""

    run: Run
    interrupted: bool = False
    left: LabError | None = None


def run(paths: LabPaths, progress: Progress, *, focus: str = "", quick: bool = False) -> Ended:
    """Run the network specs that match on a lab; see ``selection.select`` for which these are.

    Raise LabError where the tests can't be built, chosen or begun. No namespace of theirs is left.
    """
    lab = state.load(paths)
    setting = state.built_setting(lab, paths)
    folder = paths.root / "conformance"
    folder.mkdir(exist_ok=True)
    refuse_another_minor(lab)
    with progress.phase("upstream's tests"):
        suite = conformance.ensure_suite(progress, lab.spec.image_mirror if lab.spec else "")
        progress.task("listing the specs")
        program.require_images(suite, program.listed(suite, "images", folder))
        names = selection.parse_list(program.listed(suite, "tests", folder))
        enforces = setting.network_policy != "none" or known_parts().cni[setting.cni].enforces_policies
        emulated = lab.accel == "tcg"
        chosen = selection.select(
            names, setting, focus=focus, quick=quick, enforces_policies=enforces, emulated=emulated
        )
    for name, reason in chosen.impossible.items():
        progress.note(f"left out  {short(name)}: {reason}")
    if (own := _kubernetes_of(lab)) != suite.version:
        progress.note(f"the lab has Kubernetes {own}, and the tests are those of {suite.version}")
    if not chosen.run:
        return Ended(Run(_about(lab, setting, suite), (), chosen.impossible, 0.0, folder / "e2e.log"))
    with progress.phase("images on the nodes"):
        hosts = Hosts([node.name for node in lab.nodes if node.role == "worker"], paths.ssh_config)
        try:
            node_images.bring(hosts, paths.ssh_config, suite, progress.task)
        finally:
            hosts.close()
    with progress.phase("namespaces of earlier runs"):
        clean_up(paths, lab, progress)
    return _run(paths, lab, setting, suite, chosen, folder, progress)


def refuse_another_minor(lab: LabState) -> None:
    """Raise LabError where the tests are of another minor of Kubernetes than the lab: upstream supports their own."""
    own, tested = _kubernetes_of(lab), conformance.wanted().go[0].version
    if own != "?" and minor_of(own) != minor_of(tested):
        raise LabError(
            f"lab {lab.lab!r} has Kubernetes {own}, and upstream's tests can be built of {tested}",
            remedy=f"run them on a lab of {minor_of(tested)}, one without lab:kubernetes.version in its spec",
        )


def clean_up(paths: LabPaths, lab: LabState, progress: Progress) -> None:
    """Delete the namespaces of the tests, also of a run that was killed."""
    with connect(paths, lab.netns, timeout_s=API_S) as api:
        for name in namespaces.remove(api, progress.task, Timing(slowness=partial(slowness, lab.accel))):
            progress.note(f"removed the namespace {name}")


def _run(
    paths: LabPaths,
    lab: LabState,
    setting: Setting,
    suite: BuiltSuite,
    chosen: Selection,
    folder: Path,
    progress: Progress,
) -> Ended:
    report, log = folder / "report.json", folder / "e2e.log"
    report.unlink(missing_ok=True)
    screen = _Screen(chosen, progress)
    argv = program.command(
        suite,
        focus=selection.focus_expression(chosen.run),
        kubeconfig=paths.kubeconfig,
        kubectl=Path(lab.image_bin) / "kubectl",
        report=report,
        output=folder,
    )
    began, left, interrupted = time.monotonic(), None, True
    with progress.phase(f"{len(chosen.run)} specs"):
        try:
            interrupted = program.run(
                argv,
                netns=lab.netns,
                environment=lab.environment(paths),
                folder=folder,
                log=log,
                on_line=screen.line,
                on_interrupt=lambda: progress.note("ending the running spec; Ctrl-C again kills it"),
            )
        except KeyboardInterrupt:  # the second one
            progress.note("killed")
        seconds = time.monotonic() - began
        try:
            clean_up(paths, lab, progress)
        except LabError as error:
            left = error
    results = _results(report, chosen, screen, log)
    return Ended(Run(_about(lab, setting, suite), results, chosen.impossible, seconds, log), interrupted, left)


def _results(report: Path, chosen: Selection, screen: _Screen, log: Path) -> tuple[SpecResult, ...]:
    """Return the results from the report or, where e2e.test was killed before it wrote one, from what it printed."""
    if report.exists():
        return parse_report(report.read_text(errors="replace"), chosen.run)
    if not screen.ended:
        last = " ".join(log.read_text(errors="replace")[-300:].split())
        raise LabError(f"e2e.test ended without a result: {last}", remedy="its output is in the log", log=str(log))
    missing = [name for name in chosen.run if name not in screen.ended]
    return (*screen.ended.values(), *(SpecResult(name, "not run") for name in missing))


class _Screen:
    """Shows the running spec, and a line for each that ended."""

    def __init__(self, chosen: Selection, progress: Progress) -> None:
        self._followed = Followed(chosen.run)
        self._number = len(chosen.run)
        self._progress = progress
        self.ended: dict[str, SpecResult] = {}

    def line(self, line: str) -> None:
        """Take a line that e2e.test printed."""
        event = self._followed.feed(line)
        if event is None:
            return
        if not event.ended:
            self._progress.task(f"{len(self.ended) + 1}/{self._number} {short(event.name)}")
            return
        self.ended[event.name] = _result(event)
        self._progress.note(f"{event.mark:<7} {event.seconds:7.1f} s  {short(event.name)}")


def _result(event: Event) -> SpecResult:
    match event.mark:
        case "ok":
            return SpecResult(event.name, "passed", event.seconds)
        case "skipped":
            return SpecResult(event.name, "skipped", event.seconds)
        case "ended":
            return SpecResult(event.name, "not run", event.seconds, "interrupted")
        case _:
            return SpecResult(event.name, "failed", event.seconds, event.state.lower())


def _kubernetes_of(lab: LabState) -> str:
    """Return the version of Kubernetes in the lab's node image; "?" where the image is not in the cache any more."""
    found = [built for built in images.list_images() if built.digest == lab.image]
    return found[0].versions["kubernetes"] if found else "?"


def _about(lab: LabState, setting: Setting, suite: BuiltSuite) -> str:
    cni = f"{setting.cni} {setting.backend}".strip()
    policies = () if setting.network_policy == "none" else (setting.network_policy,)
    return f"lab {lab.lab}: Kubernetes {suite.version}, {', '.join((cni, setting.proxy, *policies, lab.accel))}"
