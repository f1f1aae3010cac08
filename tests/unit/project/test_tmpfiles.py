"""What a node removes when it boots: the CNI configuration, and only that."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hoplab.core.paths import PROJECT

TEMPLATE = PROJECT / "roles" / "container_runtime" / "templates" / "tmpfiles.conf.j2"
PLACE = "etc/cni/net.d"


@pytest.mark.skipif(shutil.which("systemd-tmpfiles") is None, reason="needs systemd-tmpfiles")
def test_a_boot_removes_the_cni_configuration(tmp_path: Path) -> None:
    """The CNI's DaemonSet writes it anew; what is no configuration of containerd stays."""
    folder, rules = tmp_path / PLACE, tmp_path / "etc" / "tmpfiles.d"
    for made in (folder, rules):
        made.mkdir(parents=True)
    for name in ("10-flannel.conflist", "10-calico.conflist", "calico-kubeconfig"):
        (folder / name).touch()
    (rules / "cni.conf").write_text(TEMPLATE.read_text())
    remove = ["systemd-tmpfiles", f"--root={tmp_path}", "--remove"]
    subprocess.run(remove, check=True)
    assert len(list(folder.iterdir())) == 3, "only a boot removes it"
    subprocess.run([*remove, "--boot"], check=True)
    assert [path.name for path in folder.iterdir()] == ["calico-kubeconfig"]
