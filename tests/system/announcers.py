"""Which node announces the load balancer's address."""

from __future__ import annotations

from hoplab.expectations.loadbalancer import metallb
from hoplab.observe.snapshot import Node
from hoplab.verify.session import LabSession
from tests.system.faults import wait


def announcer(session: LabSession) -> Node | None:
    """The node that a client outside sends to, once it has asked anew."""
    address = session.announced("announced")
    session.external.flush_neighbour(address)
    session.request_from_outside(f"http://{address}/")
    mac = session.external.neighbour(address)
    return next((node for node in session.snapshot.nodes if (link := node.link("eth0")) and link.mac == mac), None)


def settled(session: LabSession) -> Node:
    """The node that has to announce the address, once it does."""
    name = metallb.announcer(session.announced("announced"), [node.name for node in session.snapshot.nodes])
    (right,) = (node for node in session.snapshot.nodes if node.name == name)
    wait(lambda: announcer(session) is right)
    return right
