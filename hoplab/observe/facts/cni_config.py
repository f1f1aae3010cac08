"""The CNI configurations of the container runtime: the files of /etc/cni/net.d that its CNI library loads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from hoplab.core.errors import FactError
from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Item, document

EXTENSIONS = ("conf", "conflist", "json")  # of libcni's ConfFiles; any other file is a backup or of another program
MULTUS = "multus"  # a plugin that calls the plugins of another configuration


@dataclass(frozen=True)
class CniConfig:
    """One configuration file: the container runtime calls its plugins in this order when a pod starts."""

    path: str
    name: str
    plugins: tuple[str, ...]  # "flannel", "portmap"
    problem: str = ""  # why the runtime cannot use it
    delegates: tuple[tuple[str, ...], ...] = ()  # of Multus: the plugins of each network that it calls
    network: str = ""  # of Multus: name or path of the configuration that it calls for every pod


def parse(text: str) -> tuple[CniConfig, ...]:
    """Parse the output of ``tail -v``: each file below a heading ``==> /etc/cni/net.d/10-flannel.conflist <==``.

    Return the files in the order in which the CNI library loads them: by name. Raise FactError where no file is JSON.
    """
    _, *parts = re.split(r"^==> (.+) <==\n", text, flags=re.MULTILINE)
    found = [
        _config(path, body)
        for path, body in zip(parts[::2], parts[1::2], strict=True)
        if _extension(path) in EXTENSIONS
    ]
    if found and all(config.problem for config in found):
        raise FactError(found[0].problem, remedy="look at /etc/cni/net.d on the node")
    return tuple(sorted(found, key=lambda config: config.path))


def called(configs: Sequence[CniConfig]) -> CniConfig:
    """Return the configuration whose plugins connect every pod: the first one, or the one that Multus there calls.

    Raise ValueError where there is no configuration.
    """
    first, *others = configs
    if first.plugins[:1] != (MULTUS,):
        return first
    if first.delegates:
        return CniConfig(first.path, first.name, first.delegates[0], first.problem)
    named = (config for config in others if first.network in (config.name, PurePath(config.path).name))
    return next(named, first if first.network else next(iter(others), first))


def _extension(path: str) -> str:
    """Return what follows the last dot of a file's name; as in Go's filepath.Ext, also that of ``.conf``."""
    return PurePath(path).name.rpartition(".")[2]


def _config(path: str, body: str) -> CniConfig:
    try:
        item = Item(document(body, path), path)
        plugins = item.items("plugins") if _extension(path) == "conflist" else (item,)  # a .conf is a single plugin
        types = tuple(plugin.text("type") for plugin in plugins)
        delegates = tuple(
            tuple(plugin.text("type") for plugin in delegate.items("plugins") or (delegate,))
            for delegate in item.items("delegates")
        )
        network = item.text("clusterNetwork")
    except FactError as error:
        return CniConfig(path, "", (), error.message)
    problem = "" if types and all(types) else f"{path} names no type of a plugin"
    return CniConfig(path, item.text("name"), types, problem, delegates, PurePath(network).name)


# Other files of the folder are not read, they may hold secrets: Calico keeps its kubeconfig there. A pattern without a
# file makes find end with 1.
_FILES = " ".join(f"/etc/cni/net.d/*.{extension}" for extension in EXTENSIONS)
CNI_CONFIG = Fact("cni_config", f"find {_FILES} -maxdepth 0 ! -type d -exec tail -v -n +1 {{}} + || true", parse)
