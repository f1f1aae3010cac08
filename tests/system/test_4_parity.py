"""One spec through both engines: the same networks, volumes, machines, seeds and lab state; then one hands over.

No cluster is made here (the Cluster resource is left out), and no machine is waited for.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import libvirt
import pytest

from hoplab.core.console import PlainProgress
from hoplab.core.paths import LabPaths
from hoplab.engine.embedded import EmbeddedEngine
from hoplab.engine.pulumi_cli import PulumiCli
from hoplab.host import netns
from hoplab.host.machines import connected
from hoplab.infra.context import LabContext, _resolved
from hoplab.lab import lifecycle, state
from hoplab.lab.context import resolve
from hoplab.lab.spec_file import load_spec

SPEC = (
    "config:\n  lab:checkpoint: off\n"
    "  lab:network: 192.168.79.0/24\n  lab:nodes: {workers: 2, worker: {memory: 1GiB}}\n"
)
CLUSTER = "**Cluster**"
# libvirt gives each object its own, or counts them as they fill and age
OWN = {"uuid", "timestamps", "allocation", "physical", "available", "address", "metadata"}
OWN_ATTRIBUTES = {("domain", "id"), ("source", "index")}

pytestmark = [
    pytest.mark.timeout(0),
    pytest.mark.skipif(not shutil.which("pulumi"), reason="no Pulumi CLI: there is no `pulumi` on PATH"),
]


@pytest.fixture(scope="module")
def paths() -> Iterator[LabPaths]:
    """A lab of its own, of which nothing is left."""
    paths = LabPaths("parity")
    paths.spec.write_text(SPEC)
    try:
        lifecycle.destroy(paths, PlainProgress())
        yield paths
        lifecycle.destroy(paths, PlainProgress())
    finally:
        paths.spec.unlink()


@pytest.fixture(scope="module")
def made(paths: LabPaths) -> dict[str, dict[str, Any]]:
    """What each engine makes of the spec."""
    return {name: seen(paths, name) for name in ("embedded", "pulumi")}


def seen(paths: LabPaths, engine: str) -> dict[str, Any]:
    """The lab made by an engine, looked at, and destroyed."""
    context = resolve(load_spec(paths), paths, PlainProgress())
    if engine == "embedded":
        outputs = EmbeddedEngine(paths).up(PlainProgress()).outputs
    else:
        outputs = PulumiCli(paths).up(PlainProgress(), exclude=[CLUSTER]).outputs
    found = {**objects(context), "outputs": outputs, "state": lab_state(context)}
    (EmbeddedEngine(paths) if engine == "embedded" else PulumiCli(paths)).destroy(PlainProgress())
    if engine == "pulumi":  # the Host resource goes as well, which this process has resolved
        assert not netns.exists(context.netns)
        _resolved.clear()
        return found
    with connected(context.uri) as connection:
        left = [*connection.listAllDomains(), *connection.listAllNetworks(), *connection.listAllStoragePools()]
        assert [thing.name() for thing in left if paths.id in thing.name()] == []
    return found


def lab_state(context: LabContext) -> dict[str, Any]:
    image = context.image
    made = state.lab_state(
        context.plan, libvirt_uri=context.uri, netns=context.netns, image=image.digest, image_bin=image.bin
    )
    return asdict(made)


def objects(context: LabContext) -> dict[str, Any]:
    """Every object of the lab as libvirt describes it, without what differs between any two of the same kind."""
    own = context.plan.network.name
    with connected(context.uri) as connection:
        pool = connection.storagePoolLookupByName(own)
        pool.refresh()
        volumes = {volume.name(): volume for volume in pool.listAllVolumes()}
        return {
            "network": plain(connection.networkLookupByName(own).XMLDesc()),
            "pool": plain(pool.XMLDesc()),
            "volumes": {name: plain(volume.XMLDesc()) for name, volume in sorted(volumes.items())},
            "machines": {
                domain.name(): plain(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
                for domain in sorted(connection.listAllDomains(), key=lambda domain: str(domain.name()))
            },
            "running": sorted(domain.name() for domain in connection.listAllDomains() if domain.isActive()),
            "seeds": {name: seed(Path(volume.path())) for name, volume in volumes.items() if name.endswith(".iso")},
        }


def plain(text: str) -> list[str]:
    """An XML description as sorted lines of path, attributes and text, without identities and moments."""
    lines: list[str] = []

    def walk(element: ET.Element, path: str) -> None:
        here = f"{path}/{element.tag}"
        if element.tag in OWN or here == "/network/mac":  # of the bridge
            return
        own = {
            name: value for name, value in sorted(element.attrib.items()) if (element.tag, name) not in OWN_ATTRIBUTES
        }
        lines.append(f"{here} {own} {(element.text or '').strip()}")
        for child in element:
            walk(child, here)

    walk(ET.fromstring(text), "")
    return sorted(lines)


def seed(image: Path) -> dict[str, str]:
    """The files of a seed."""
    with tempfile.TemporaryDirectory() as folder:
        names = ("user-data", "meta-data", "network-config")
        return {
            name: subprocess.run(
                ["isoinfo", "-R", "-x", f"/{name}", "-i", str(image)],
                check=True,
                capture_output=True,
                text=True,
                cwd=folder,
            ).stdout
            for name in names
        }


@pytest.mark.parametrize("what", ["network", "pool", "volumes", "machines", "running", "seeds", "state"])
def test_both_make_the_same(made: dict[str, dict[str, Any]], what: str) -> None:
    assert made["pulumi"][what] == made["embedded"][what]


def test_both_export_the_same(made: dict[str, dict[str, Any]]) -> None:
    def comparable(outputs: dict[str, Any]) -> dict[str, Any]:
        nodes = {name: {**node, "domain": "(its own)"} for name, node in outputs["nodes"].items()}
        return {**outputs, "nodes": nodes, "kubeconfig": None}

    assert comparable(made["pulumi"]["outputs"]) == comparable(made["embedded"]["outputs"])


def test_the_embedded_engine_hands_a_running_lab_over(paths: LabPaths) -> None:
    progress = PlainProgress()
    resolve(load_spec(paths), paths, progress)
    EmbeddedEngine(paths).up(progress)
    EmbeddedEngine(paths).converged()
    lifecycle.adopt(paths)
    changes = PulumiCli(paths).preview(progress, refresh=False)
    assert [change for change in changes if change.op != "same"] == []
    assert {change.type for change in changes} >= {"Domain", "Volume", "Network", "Pool", "CloudInitDisk", "Cluster"}
