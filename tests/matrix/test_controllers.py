"""One ingress controller after the other in the same lab: the lessons of ingress hold with each whose image is at hand.

`up` changes the controller in place. The node image has the images of all of them, so that the machines stay.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest
import yaml

from hoplab.core.console import clock
from hoplab.core.paths import LabPaths
from hoplab.expectations.ingress import get_controller
from hoplab.expectations.parts import known_parts
from hoplab.image import ingress_controllers, missing_images
from hoplab.spec.parts import usable
from tests.system.conftest import LabCommand

pytestmark = pytest.mark.timeout(0)  # every command that is run has a bound of its own

LAB = "ways"
LESSONS = "08_ingress or 08_limits"
PARTS = known_parts().ingress
NAMES = usable(PARTS)


def spec(name: str) -> str:
    brought = [PARTS[known].role for known in NAMES if known in ingress_controllers() and known != "readable"]
    config = {
        "lab:nodes": {"workers": 2},
        "lab:ingress": {"controller": name},
        "lab:image": {"components": brought},
        "lab:engine": "embedded",
        "lab:checkpoint": "off",
    }
    return yaml.safe_dump({"config": config}, sort_keys=False)


@pytest.fixture(scope="module")
def paths() -> LabPaths:
    return LabPaths(LAB)


@pytest.fixture(scope="module")
def lab(paths: LabPaths, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabCommand]:
    command = LabCommand(tmp_path_factory.mktemp("ways-logs"), paths)
    paths.spec.write_text(spec(NAMES[0]))
    command("destroy")
    yield command
    command("destroy")
    paths.spec.unlink()


@pytest.mark.parametrize("name", NAMES)
def test_the_lessons_of_ingress_hold(name: str, lab: LabCommand, paths: LabPaths) -> None:
    if missing := missing_images(PARTS[name].role):
        pytest.skip(f"needs `./lab image add` with archives of {', '.join(missing)}")
    paths.spec.write_text(spec(name))
    began = time.monotonic()
    lab("up")
    up = time.monotonic() - began
    report = lab("verify", "-k", LESSONS, "--json").json()
    assert report["failed"] == 0, [claim for claim in report["claims"] if claim["outcome"] == "failed"]
    there = lab("kubectl", "get", "namespaces", "-l", "hoplab.local/ingress", "-o", "name").out.split()
    assert there == [f"namespace/{get_controller(name).NAMESPACE}"], "nothing is left of the one before"
    seconds = clock(report["seconds"])
    print(f"{name:<16} up {clock(up):>7}, verify {seconds:>7}, {report['passed']} hold", file=sys.stderr, flush=True)
