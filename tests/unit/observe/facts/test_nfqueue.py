"""Queues of programs, as /proc shows them."""

from __future__ import annotations

import pytest

from hoplab.core.errors import FactError
from hoplab.observe.facts.nfqueue import NFQUEUE, PacketQueue
from tests.support.files import CAPTURED


def test_queues_of_a_node() -> None:
    (found,) = NFQUEUE.parse((CAPTURED / "nfqueue.txt").read_text())
    assert found.number == 98 and found.port and (found.waiting, found.dropped) == (0, 0)


def test_each_line_is_a_queue() -> None:
    text = "   98  14567     3 2   128     1     2       12  1\n   99 -14568     0 2 65531     0     0        0  1\n"
    found = NFQUEUE.parse(text)
    assert [(queue.number, queue.port, queue.waiting, queue.packets, queue.dropped) for queue in found] == [
        (98, 14567, 3, 12, 3),
        (99, -14568, 0, 0, 0),
    ]
    assert str(found[0]) == "queue 98: 12 packets, 3 wait, 3 found no room"
    assert found[0] == PacketQueue(98, 1), "which socket reads it, and how much, is of the moment"


def test_a_host_without_queues() -> None:
    assert NFQUEUE.parse("") == ()


@pytest.mark.parametrize("line", ["98 1 0 2 128", "98 1 0 2 128 0 0 x 1"])
def test_another_line_is_an_error(line: str) -> None:
    with pytest.raises(FactError, match=f"'{line}' is not a queue of 9 numbers") as failed:
        NFQUEUE.parse(line)
    assert failed.value.remedy == "look at /proc/net/netfilter/nfnetlink_queue on the node"
