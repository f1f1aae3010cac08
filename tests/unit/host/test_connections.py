"""Connections whose other end has not heard that they ended: real ones, of this machine to itself."""

from __future__ import annotations

import socket

from hoplab.core.wait import Timing
from hoplab.host import connections

# proc(5): a listening socket, one that is closed while its peer is suspended, and one of another port
LISTED = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7351 1
   1: 014DA8C0:192B 144DA8C0:B2F4 04 00000001:00000000 01:00000014 00000000     0        0 0 2
   2: 014DA8C0:0016 144DA8C0:B2F6 01 00000000:00000000 00:00000000 00000000     0        0 7359 2
"""


def test_the_other_end_has_not_heard() -> None:
    assert connections.not_heard(LISTED, 6443) == ["FIN-WAIT-1"]
    assert connections.not_heard(LISTED, 22) == ["established"]
    assert connections.not_heard(LISTED, 80) == []


def test_a_server_that_ended_and_one_that_did_not() -> None:
    now = iter(range(1000))
    timing = Timing(clock=lambda: float(next(now)), sleep=lambda _s: None, slowness=lambda: 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            here, _ = server.accept()
            with here:
                assert connections.wait_until_ended("", port, timing) is False
            assert connections.wait_until_ended("", port) is True
