"""Names of ends as people write them, "pod/default/web" or "[fd00::1]:80", and the names near to one; pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from ipaddress import ip_address

from hoplab.core.errors import LabError
from hoplab.core.ip import IPAddress

KINDS = {"pod": "pod", "node": "node", "svc": "service", "service": "service"}  # before a name: "pod/default/web"
FEW = 5  # names in an error message


def kind(text: str) -> tuple[str, str]:
    """Return the kind that a name begins with, "" without one, and the rest."""
    first, slash, rest = text.partition("/")
    return (KINDS[first], rest) if slash and first in KINDS else ("", text)


def with_port(name: str, port: int | None) -> tuple[str, int | None]:
    """Return a name without the port behind it, and that port; an address of IPv6 with a port is in brackets."""
    found, colon, number = name.rpartition(":")
    if name.startswith("[") and name.endswith("]"):
        return name[1:-1], port
    bracketed = found.startswith("[") and found.endswith("]")
    if not colon or (":" in found and not bracketed):
        return name, port
    if not number.isdecimal() or not 0 < int(number) < 65536:
        raise LabError(f"{name!r}: {number!r} is not a port", remedy="a port is a number from 1 to 65535")
    if port and port != int(number):
        raise LabError(f"{name!r} and --port {port} name two ports", remedy="name one of them")
    return found[1:-1] if bracketed else found, int(number)


def address(name: str) -> IPAddress | None:
    """Return the address that a name is, in brackets or not; None for another name."""
    try:
        return ip_address(name.strip("[]"))
    except ValueError:
        return None


def near(text: str, names: list[str]) -> str:
    """Return a remedy with the names that are most like a text."""
    short = {name.rpartition("/")[2]: name for name in names}
    alike = difflib.get_close_matches(text, [*names, *short], n=FEW, cutoff=0.5)
    alike += [name for name in names if text and text in name]
    found = list(dict.fromkeys(short.get(name, name) for name in alike))
    return f"is it one of these? {few(found)}" if found else f"there are {few(names)}"


def few(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    known = list(names)
    more = f" and {len(known) - FEW} more" if len(known) > FEW else ""
    return ", ".join(known[:FEW]) + more
