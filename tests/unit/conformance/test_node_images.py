"""Images go to the nodes that lack them, over SSH."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from hoplab.conformance import node_images
from hoplab.core.errors import LabError
from hoplab.observe.script import Output
from hoplab.observe.ssh import Hosts
from tests.support import fake_e2e
from tests.support.fake_e2e import IMAGE

HEAD = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n"
LINE = f"{IMAGE} application/vnd.oci.image.manifest.v1+json DIGEST 64.0 MiB linux/amd64 -\n"


class Nodes:
    """Nodes by the digest of the image that each has; "" for none."""

    def __init__(self, digests: Mapping[str, str]) -> None:
        self.digests = digests
        self.names = tuple(digests)

    def batches(self, commands: Mapping[str, str], **_: Any) -> dict[str, dict[str, Output]]:
        assert commands == {"images": "ctr --namespace k8s.io images list"}
        printed = {name: HEAD + LINE.replace("DIGEST", digest) * bool(digest) for name, digest in self.digests.items()}
        return {name: {"images": Output(0, text)} for name, text in printed.items()}


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ssh that keeps its words and its input in a file for each node, and fails for "full"."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/words.$5\ncat >> {tmp_path}/words.$5\n'
        '[ "$5" != full ] || { echo "no space left on device" >&2; exit 1; }\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path


def bring(nodes: Nodes, folder: Path, said: list[str]) -> tuple[str, ...]:
    return node_images.bring(cast(Hosts, nodes), folder / "config", fake_e2e.suite(folder), said.append)


def test_nodes_with_other_images_or_none_get_them(ssh: Path) -> None:
    said: list[str] = []
    nodes = Nodes({"worker1": "sha256:aa", "worker2": "sha256:bb", "worker3": ""})
    assert bring(nodes, ssh, said) == ("worker2", "worker3")
    assert said == ["1 images (0 MiB) go to worker2, worker3"]
    for name in ("worker2", "worker3"):
        words = (ssh / f"words.{name}").read_text().splitlines()
        assert words[:2] == ["-F", str(ssh / "config")]
        assert words[-2:] == [
            "sudo ctr --namespace k8s.io images import --local --discard-unpacked-layers -",
            "archive",
        ]
    assert not (ssh / "words.worker1").exists()


def test_nodes_that_have_them_get_nothing(ssh: Path) -> None:
    assert bring(Nodes({"worker1": "sha256:aa"}), ssh, []) == ()


def test_a_node_that_takes_none_is_an_error(ssh: Path) -> None:
    with pytest.raises(LabError, match="full does not take the images of the tests: no space left") as caught:
        bring(Nodes({"full": ""}), ssh, [])
    assert caught.value.remedy.startswith("its disk may be full: ./lab ssh full df -h /")
