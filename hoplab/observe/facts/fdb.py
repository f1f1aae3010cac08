"""Forwarding databases of bridges and VXLAN interfaces, from MAC to port or host: ``bridge -j fdb``."""

from __future__ import annotations

from dataclasses import dataclass

from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Entries, Item, gather_listed


@dataclass(frozen=True)
class FdbEntry:
    """``be:0f:.. dev flannel.1 dst 192.168.77.21 self permanent``"""

    mac: str
    dev: str
    dst: str  # VXLAN: address of the host that decapsulates the frame
    master: str  # bridge port: the bridge
    state: str  # "permanent", "" when learned
    nexthop: int = 0  # VXLAN: id of a next hop object in place of dst; 0 for none
    port: int = 0  # VXLAN: outer UDP port; 0 for the interface's own
    vni: int = 0  # VXLAN: 0 for the interface's own
    via: str = ""  # VXLAN: outgoing interface of the outer packets, where it is not the interface's own
    vlan: int = 0  # bridge port: 0 for none
    flags: tuple[str, ...] = ()  # "self", "extern_learn", ...

    @property
    def is_group(self) -> bool:
        """Return whether frames to many belong to it: a group address, or the zero address for unknown ones."""
        return not self.mac.strip("0:") or self.mac[1:2].lower() in {*"13579bdf"}

    def __str__(self) -> str:
        words = [
            f"{self.mac} dev {self.dev}",
            f"dst {self.dst}" if self.dst else "",
            f"port {self.port}" if self.port else "",
            f"vni {self.vni}" if self.vni else "",
            f"via {self.via}" if self.via else "",
            f"nhid {self.nexthop}" if self.nexthop else "",
        ]
        return " ".join(word for word in words if word)


def parse(text: str) -> Entries[FdbEntry]:
    return gather_listed(text, "fdb", lambda item: (_entry(item),))


def _entry(item: Item) -> FdbEntry:
    return FdbEntry(
        mac=item.text("mac"),
        dev=item.text("ifname"),
        dst=item.text("dst"),
        master=item.text("master"),
        state=item.text("state"),
        nexthop=item.number("nhid"),
        port=item.number("port"),
        vni=item.number("vni"),
        via=item.text("viaIf"),
        vlan=item.number("vlan"),
        flags=item.texts("flags"),
    )


FDB = Fact("fdb", "bridge -j fdb show", parse)
