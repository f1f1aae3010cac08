"""helm on a lab: built when it is first asked for, and run where both charts and the lab's API can be reached."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hoplab import image
from hoplab.core import fs, host_network
from hoplab.core.errors import ClusterError
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.host import netns
from hoplab.lab import host_access, state


def run(paths: LabPaths, arguments: Sequence[str], progress: Progress) -> None:
    """Become helm with the lab's kubeconfig; raise LabError where there is no such lab, or it cannot be built.

    The namespace of a lab has no way out, and a chart may come from a registry. So helm runs in the host's network and
    reaches the API by the forwarded port; where none is forwarded, it runs in the namespace, as kubectl does.
    """
    lab = state.load_summary(paths)
    program = image.ensure_program("helm", progress)
    words = ["helm", *arguments]
    try:
        text = host_access.kubeconfig_text(paths)
    except ClusterError:
        with netns.entered(lab.netns):
            os.execve(program, words, lab.environment(paths))
    else:
        file = paths.root / "helm.kubeconfig"
        fs.write(file, text, mode=0o600)
        environment = {**os.environ, "KUBECONFIG": str(file), "KUBECACHEDIR": str(paths.discovery)}
        host_network.run(lambda: os.execve(program, words, environment))
