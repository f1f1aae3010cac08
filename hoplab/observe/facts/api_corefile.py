"""CoreDNS's configuration, the Corefile, in its ConfigMap: its server blocks, and to whom they forward."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hoplab.observe.facts import Fact
from hoplab.observe.facts._json import Item, document

NAME = "coredns"  # of the ConfigMap, in kube-system
DNS_PORT = 53


@dataclass(frozen=True)
class Forward:
    """One ``forward FROM TO...`` of a server block."""

    port: int  # of the server block
    zone: str  # the names that it is for, "." for all
    to: tuple[str, ...]  # addresses with or without a port, or files like /etc/resolv.conf


@dataclass(frozen=True)
class Corefile:
    """A Corefile."""

    forwards: tuple[Forward, ...]
    ports: frozenset[int]  # of all server blocks


def parse(text: str) -> Corefile | None:
    """Return the Corefile; None where no ConfigMap has that name."""
    for item in Item(document(text, "corefile"), "corefile").items("items"):
        return read(item.item("data").text("Corefile"))
    return None


def read(text: str) -> Corefile:
    """Return the forwards of a Corefile. Its blocks are in braces, a comment ends with its line."""
    depth, ports, found, served = 0, [DNS_PORT], list[Forward](), set[int]()
    for line in text.splitlines():
        words = re.sub(r"(^|\s)#.*", "", line).split()
        if depth == 0 and words and words != ["{"]:
            ports = sorted({_port(word) for word in words if word not in ("{", "}")}) or [DNS_PORT]
            served |= set(ports)
        elif depth == 1 and words[:1] == ["forward"] and len(words) > 2:
            to = tuple(word for word in words[2:] if word != "{")
            found += [Forward(port, words[1], to) for port in ports]
        depth += words.count("{") - words.count("}")
    return Corefile(tuple(found), frozenset(served))


def _port(key: str) -> int:
    """Return the port of a server block's name: ``.:53``, ``cluster.local``, ``dns://.:1053``."""
    found = re.search(r":(\d{1,5})$", key.rstrip(","))
    return int(found[1]) if found else DNS_PORT


# A list with at most one item: a cluster without it is not an error.
PATH = f"/api/v1/namespaces/kube-system/configmaps?fieldSelector=metadata.name%3D{NAME}"
API_COREFILE = Fact("corefile", PATH, parse, frozenset({"api"}))
