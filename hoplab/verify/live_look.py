"""One look at a running lab that creates nothing in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from hoplab import image
from hoplab.cluster.api import connect
from hoplab.cluster.guarded_api import GuardedApi
from hoplab.core.paths import LabPaths
from hoplab.lab import state
from hoplab.observe.snapshot import Snapshot
from hoplab.observe.ssh import Hosts
from hoplab.verify.diagnosis import Diagnosis
from hoplab.verify.objects import API_TIMEOUT
from hoplab.verify.partial import PartialLook


def look(paths: LabPaths, say: Callable[[str], None] = lambda _text: None) -> Snapshot:
    """Return a snapshot of a running lab as it is, without the verification workload; parts may not answer."""
    lab = state.load(paths)
    setting = state.built_setting(lab, paths)
    versions = {**image.component_versions(), "image": lab.image[:12], "accel": lab.accel}
    with ExitStack() as stack:
        api = GuardedApi(stack.enter_context(connect(paths, lab.netns, timeout_s=API_TIMEOUT)))
        hosts = Hosts([node.name for node in lab.nodes], paths.ssh_config)
        stack.callback(hosts.close)
        say("looking at the nodes")
        return PartialLook(setting, versions, hosts, Diagnosis(lab, paths, api))()
