"""Upstream's conformance tests of the Gateway API, on a running lab that serves it and has a load balancer.

``python -m hoplab.devtools.gateway_conformance --lab NAME`` builds the suite from its Go module, brings the images of
its workload to the nodes, runs it from the host end of the lab's network, and prints the outcome of each test. With
``--write`` outcomes and report also go into docs/gateway-api.md.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from hoplab.core import fs, proxies
from hoplab.core.console import progress as new_progress
from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT, LabPaths, cache_dir
from hoplab.core.progress import Progress
from hoplab.devtools.marks import between
from hoplab.devtools.programs import main
from hoplab.expectations import gateway
from hoplab.host import netns
from hoplab.image import gobuild, oci
from hoplab.image.commands import run
from hoplab.image.store import Store, digest, tree_digest
from hoplab.lab import state
from hoplab.lab.state import LabSummary
from hoplab.observe.setting import Setting

MODULE = Path(__file__).parent / "go" / "gateway-conformance"  # what is built, and its go.sum
SUITE, SERVER = "gateway.test", "echo-basic"
PACKAGES = {
    SUITE: (["go", "test", "-c"], "sigs.k8s.io/gateway-api/conformance"),
    SERVER: (["go", "build"], "sigs.k8s.io/gateway-api-conformance-images/echo-basic"),
}
SPACE_GIB = 1.0
FOLDER = "gateway-conformance"  # in the cache; not that of node images, whose builds would wait for this one
PROFILE = "GATEWAY-HTTP"
CORE = ("Gateway", "HTTPRoute", "ReferenceGrant")  # its features that every implementation has
# The suite's manifests have these names; both are built from the version that the module proxy serves.
SERVER_IMAGES = tuple(f"registry.k8s.io/gateway-api/conformance/echo-basic:{tag}" for tag in ("v0.1.0", "v0.2.0"))
# Seconds that emulated machines need. MaxTimeToConsistency stays: a conformant implementation has at most 30 s.
PATIENCE = {
    "CreateTimeout": 120,
    "DeleteTimeout": 60,
    "GetTimeout": 60,
    "GatewayStatusMustHaveListeners": 180,
    "GatewayListenersMustHaveConditions": 180,
    "HTTPRouteMustNotHaveParents": 120,
    "HTTPRouteMustHaveCondition": 120,
    "RouteMustHaveParents": 120,
    "NamespacesMustBeReady": 900,
    "LatestObservedGenerationSet": 120,
    "DefaultTestTimeout": 300,
    "DefaultPollInterval": 1,
}
OUTCOME = re.compile(r"^ {4}--- (PASS|FAIL|SKIP): TestConformance/(\w+) \(([\d.]+)s\)$", re.MULTILINE)
ERROR = re.compile(r"^\s+Error:\s+(.+?)\n\s+Test:\s", re.MULTILINE | re.DOTALL)  # of a test that failed
PAGE = PROJECT / "docs" / "gateway-api.md"


def tested_class(setting: Setting) -> str:
    """Return the GatewayClass of a lab.

    Raise LabError where there are no Gateways, or where they have no addresses of their own, which the suite needs.
    """
    server = gateway.of(setting)
    if server is None or setting.load_balancer == "none":
        raise LabError(
            f"the lab {setting.lab} has no Gateways with addresses of their own",
            remedy="a spec with lab:loadBalancer: metallb, and lab:ingress: {controller: readable, gatewayApi: true} "
            "or lab:ingress: {gateway: nginx}",
        )
    return server.CLASS


def build(store: Store, progress: Progress) -> Path:
    """Return the folder with the suite and its server, built or cached; raise ImageError where that fails."""
    key = digest(PACKAGES, tree_digest([MODULE], MODULE))

    def compile_both(output: Path) -> dict[str, Any]:
        log = store.log("go-gateway-conformance")
        log.unlink(missing_ok=True)
        for program, (command, package) in PACKAGES.items():
            progress.task(f"building {program}")
            argv = [*command, "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o", str(output / program), package]
            environment = gobuild.GO_BUILD_ENV | gobuild.ENVIRONMENT | {"CGO_ENABLED": "0"}
            run(argv, f"building {program}", log, cwd=MODULE, env=environment)
        return {}

    with store.locked(progress):
        return store.make("go-gateway-conformance", key, compile_both, space_gib=SPACE_GIB).directory


def write_images(server: Path, archive: Path, scratch: Path) -> None:
    """Write an archive with the server under each name that the suite's manifests have for it."""
    layer = scratch / "layer.tar"
    oci.write_layer(layer, {SERVER: server})
    blob = oci.Blob.of_file(oci.LAYER, layer)
    oci.write_archive(archive, [oci.image(name, [blob], [f"/{SERVER}"]) for name in SERVER_IMAGES])


def bring_images(paths: LabPaths, nodes: Iterable[str], archive: Path) -> None:
    """Import the archive on each node; raise LabError on failure."""
    for node in nodes:
        with archive.open("rb") as file:
            argv = ["ssh", "-F", str(paths.ssh_config), node, "sudo ctr -n k8s.io images import --local - >/dev/null"]
            ran = subprocess.run(argv, stdin=file, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            raise LabError(
                f"the images of the conformance suite cannot be brought to {node}: {ran.stderr.strip()}",
                remedy=f"`./lab status --lab {paths.lab}` shows whether it runs",
            )


def arguments(
    gateway_class: str, report: Path, minutes: int, *, core: bool, emulated: bool, only: str = ""
) -> list[str]:
    """Return the arguments of the suite. ``core`` leaves out what the GatewayClass claims beyond the core features."""
    given = {
        "gateway-class": gateway_class,
        "conformance-profiles": PROFILE,
        "report-output": str(report),
        "organization": "hoplab",
        "project": gateway_class,
        "url": "https://hoplab.local/docs/gateway-api.md",
        "version": "1",
        "contact": "hoplab",
    }
    if core:
        given["supported-features"] = ",".join(CORE)
    if only:
        given["run-test"] = only
    if emulated:
        given["timeout-config-overrides"] = ";".join(f"{name}:{seconds}" for name, seconds in PATIENCE.items())
    own = ["-test.v", "-test.run=^TestConformance$", f"-test.timeout={minutes}m"]
    return [*own, *(f"-{name}={value}" for name, value in given.items())]


def run_suite(lab: LabSummary, paths: LabPaths, argv: list[str], log: Path) -> None:
    """Run the suite from the host end of the lab's network, its output in ``log``, whatever comes of it."""
    environment = lab.environment(paths) | proxies.none()
    with log.open("w") as file, netns.entered(lab.netns):
        subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False)


def outcomes(log: str) -> dict[str, tuple[str, float]]:
    """Return what each test came to ("PASS", "FAIL" or "SKIP") and its seconds, from the output of the suite."""
    return {name: (outcome, float(seconds)) for outcome, name, seconds in OUTCOME.findall(log)}


def section(found: Mapping[str, tuple[str, float]], report: Mapping[str, Any]) -> str:
    """Return a table of the tests that ran, and what of the report matters, in Markdown."""
    words = {"PASS": "passed", "FAIL": "**failed**"}
    rows = [f"| {name} | {words[come]} | {took:.0f} |" for name, (come, took) in sorted(found.items()) if come in words]
    wanted = ("gatewayAPIVersion", "gatewayAPIChannel", "mode", "date", "profiles")
    kept = yaml.safe_dump({name: report[name] for name in wanted if name in report}, sort_keys=False, width=120)
    table = ["| test | | seconds |", "|---|---|---|", *rows]
    return "\n".join([*table, "", "```yaml", kept.rstrip(), "```"])


def with_section(page: str, gateway_class: str, text: str) -> str:
    """Return the page with another generated part, that of this GatewayClass."""
    begin, end = (f"<!-- {what} conformance of {gateway_class} -->" for what in ("generated:", "end of"))
    return between(page, begin, end, f"\n\n{text}\n\n")


def summary(found: Mapping[str, tuple[str, float]]) -> str:
    """Return how many tests passed and failed, and the names of those that failed."""
    count = Counter(outcome for outcome, _ in found.values())
    failed = sorted(name for name, (outcome, _) in found.items() if outcome == "FAIL")
    return f"{count['PASS']} passed, {count['FAIL']} failed{''.join(f'{chr(10)}  {name}' for name in failed)}"


def last_error(log: str) -> str:
    """Return the last error that the suite printed, after a line break; "" where there is none."""
    found = ERROR.findall(log)
    return "\n" + " ".join(found[-1].split()) if found else ""


@click.command(help=__doc__)
@click.option("--lab", "name", default="dev", show_default=True, help="A running lab.")
@click.option("--core", is_flag=True, help="Only the core features of the profile.")
@click.option("--only", default="", metavar="TEST", help="Only this test.")
@click.option("--minutes", type=click.IntRange(1), default=60, show_default=True, help="The longest it may take.")
@click.option("--write", is_flag=True, help=f"Write docs/{PAGE.name}.")
@click.option("--build", "only_build", is_flag=True, help="Only build the suite, for a later run.")
def gateway_conformance(*, name: str, core: bool, only: str, minutes: int, write: bool, only_build: bool) -> int:
    programs = build(Store(cache_dir() / FOLDER), new_progress())
    if only_build:
        return 0
    paths = LabPaths(name)
    lab = state.load(paths)
    gateway_class = tested_class(state.built_setting(lab, paths))
    folder = paths.root / "gateway-conformance"
    folder.mkdir(parents=True, exist_ok=True)
    archive, log, report = folder / "images.tar", folder / "log", folder / "report.yaml"
    report.unlink(missing_ok=True)
    write_images(programs / SERVER, archive, folder)
    bring_images(paths, [node.name for node in lab.nodes], archive)
    given = arguments(gateway_class, report, minutes, core=core, emulated=lab.accel == "tcg", only=only)
    run_suite(lab, paths, [str(programs / SUITE), *given], log)
    printed = log.read_text(errors="replace")
    found = outcomes(printed)
    if not report.exists():
        raise LabError(
            f"the conformance suite ended without a report; {summary(found)}{last_error(printed)}",
            remedy=f"see its output in {log}",
        )
    print(summary(found))
    if write:
        text = section(found, yaml.safe_load(report.read_text()))
        fs.write_if_changed(PAGE, with_section(PAGE.read_text(), gateway_class, text))
    return 1 if any(outcome == "FAIL" for outcome, _ in found.values()) else 0


if __name__ == "__main__":
    main(gateway_conformance)
