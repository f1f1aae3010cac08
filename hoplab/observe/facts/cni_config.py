"""The CNI configuration of the container runtime: the first file of /etc/cni/net.d by name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Item, document


@dataclass(frozen=True)
class CniConfig:
    """One configuration file: the container runtime calls its plugins in this order when a pod starts."""

    path: str
    name: str
    plugins: tuple[str, ...]  # "flannel", "portmap"


def parse(text: str) -> tuple[CniConfig, ...]:
    """Parse the output of ``tail -v``: each file below a heading ``==> /etc/cni/net.d/10-flannel.conflist <==``."""
    _, *parts = re.split(r"^==> (.+) <==\n", text, flags=re.MULTILINE)
    return tuple(_config(path, body) for path, body in zip(parts[::2], parts[1::2], strict=True))


def _config(path: str, body: str) -> CniConfig:
    item = Item(document(body, path), path)
    plugins = item.items("plugins") or (item,)  # a .conf is a single plugin
    return CniConfig(path, item.text("name"), tuple(plugin.text("type") for plugin in plugins))


CNI_CONFIG = Fact("cni_config", "tail -v -n +1 /etc/cni/net.d/*.conf*", parse)
