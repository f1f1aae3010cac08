"""The images of the tests' pods, brought to the containerd of each node: no node image has them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hoplab.core.errors import LabError
from hoplab.image.conformance import BuiltSuite
from hoplab.observe.shell import CONNECT_TIMEOUT
from hoplab.observe.ssh import Hosts

CTR = "ctr --namespace k8s.io images"  # the namespace of the kubelet's images
LIST = f"{CTR} list"
# The layers' archives are not kept once unpacked, as in the node image. A tag of an image that changed is replaced.
IMPORT = f"sudo {CTR} import --local --discard-unpacked-layers -"


def parse_images(text: str) -> dict[str, str]:
    """Return name -> digest from the table that `ctr images list` prints.

    >>> parse_images("REF TYPE DIGEST SIZE PLATFORMS LABELS\\na/b:1 x/y sha256:12 1.0 MiB linux/amd64 -\\n")
    {'a/b:1': 'sha256:12'}
    """
    return {words[0]: words[2] for line in text.splitlines()[1:] if len(words := line.split()) > 2}


def bring(hosts: Hosts, ssh_config: Path, suite: BuiltSuite, say: Callable[[str], None]) -> tuple[str, ...]:
    """Import the images on every node that lacks one of them, on all at once; return these nodes.

    Raise NodeUnreachable where a node can't be reached, LabError where its containerd refuses the archive.
    """
    found = hosts.batches({"images": LIST}, in_pods={})
    lacking = tuple(name for name in hosts.names if not _has(found[name]["images"].out, suite.images))
    if lacking:
        mib = suite.archive.stat().st_size / 2**20
        say(f"{len(suite.images)} images ({mib:.0f} MiB) go to {', '.join(lacking)}")
        with ThreadPoolExecutor(len(lacking)) as pool:
            list(pool.map(lambda name: _import(name, ssh_config, suite.archive), lacking))
    return lacking


def _has(printed: str, images: Mapping[str, str]) -> bool:
    return images.items() <= parse_images(printed).items()


def _import(name: str, ssh_config: Path, archive: Path) -> None:
    argv = ["ssh", "-F", str(ssh_config), "-o", f"ConnectTimeout={CONNECT_TIMEOUT}", name, IMPORT]
    with archive.open("rb") as file:
        done = subprocess.run(argv, stdin=file, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise LabError(
            f"{name} does not take the images of the tests: {done.stderr.strip()[-300:] or 'ssh ended'}",
            remedy=f"its disk may be full: ./lab ssh {name} df -h /; then run the same command again",
        )
