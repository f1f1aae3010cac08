"""Plans, settings and folders of a lab that no machine is made for."""

from __future__ import annotations

from pathlib import Path

from hoplab.core.paths import LabPaths
from hoplab.image import NodeImage
from hoplab.infra.context import LabContext
from hoplab.lab import state
from hoplab.lab.spec_file import plan_lab
from hoplab.pki.keys import HostKey, LabKeys
from hoplab.spec.model import LabSpec

PLAN = plan_lab(LabSpec("dev"), lab_id="dev-0", accel="tcg")


class ShortRun(LabPaths):
    """A lab whose /run folder is below the test's own folder."""

    @property
    def run(self) -> Path:
        return self.project / "run"


SPEC = LabSpec("dev")
MADE = state.lab_state(
    plan_lab(SPEC, lab_id="dev-0", accel="tcg"), libvirt_uri="", netns="", image="", image_bin=Path("/bin")
)

IMAGE = NodeImage("c" * 64, Path("/i"), Path("/i/disk"), Path("/i/vmlinuz"), Path("/i/initrd"), Path("/i/bin"), 20, {})
HOST_KEY = HostKey("PRIVATE\n", "ssh-ed25519 AAAA node")


def lab_context(accel: str, paths: LabPaths, *, protect: bool = False, netns: str = "lab-ns") -> LabContext:
    plan = plan_lab(LabSpec("dev", protect=protect), lab_id="dev-1a2b3c", accel=accel)  # type: ignore[arg-type]
    keys = LabKeys(
        paths.keys / "id", "ssh-ed25519 AAAA lab", {n.name: HOST_KEY for n in plan.nodes}, paths.keys / "known"
    )
    return LabContext(plan, IMAGE, "qemu:///system", netns, keys, "root=/dev/vda rw")
