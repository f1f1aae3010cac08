"""Looks at a running lab that create nothing in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from hoplab import image
from hoplab.cluster.api import connect
from hoplab.cluster.guarded_api import GuardedApi
from hoplab.core.errors import LabError
from hoplab.core.paths import LabPaths
from hoplab.lab import state
from hoplab.observe.snapshot import Snapshot
from hoplab.observe.ssh import Hosts
from hoplab.verify.diagnosis import Diagnosis
from hoplab.verify.objects import API_TIMEOUT
from hoplab.verify.partial import PartialLook


@contextmanager
def opened(
    paths: LabPaths, nodes: Collection[str] = (), *, without: frozenset[str] = frozenset()
) -> Iterator[PartialLook]:
    """Connect to a running lab and yield a function that takes a look at some of its nodes, at all by default.

    The facts of the names ``without`` are not looked at. Raise LabError for a node that the lab does not have.
    """
    lab = state.load(paths)
    names = [node.name for node in lab.nodes]
    for name in nodes:
        if name not in names:
            raise LabError(f"there is no machine {name!r} in lab {paths.lab}", remedy=f"one of: {', '.join(names)}")
    chosen = [name for name in names if name in nodes or not nodes]
    setting = state.built_setting(lab, paths)
    if nodes:
        setting = replace(setting, nodes={name: setting.nodes[name] for name in chosen})
    versions = {**image.versions_of(lab.image), "image": lab.image[:12], "accel": lab.accel}
    with ExitStack() as stack:
        api = GuardedApi(stack.enter_context(connect(paths, lab.netns, timeout_s=API_TIMEOUT)))
        hosts = Hosts(chosen, paths.ssh_config)
        stack.callback(hosts.close)
        yield PartialLook(setting, versions, hosts, Diagnosis(lab, paths, api), without=without)


def look(paths: LabPaths, say: Callable[[str], None] = lambda _text: None) -> Snapshot:
    """Return a snapshot of a running lab as it is, without the verification workload; parts may not answer."""
    with opened(paths) as look_at_all:
        say("looking at the nodes")
        return look_at_all()
