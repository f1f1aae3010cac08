"""Typed access to JSON documents of other programs: every mismatch is a FactError with its path in the document."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from hoplab.core.errors import FactError
from hoplab.core.ip import REMEDY, V4
from hoplab.observe.facts import T


class Item:
    """One JSON object, read by key and expected type. A missing key is the type's empty value."""

    def __init__(self, raw: Any, what: str) -> None:
        if not isinstance(raw, dict):
            raise FactError(f"{what} should be an object, not {type(raw).__name__}", remedy=REMEDY)
        self.raw: dict[str, Any] = raw
        self.what = what

    def text(self, key: str) -> str:
        return str(self._typed(key, (str, int), ""))

    def number(self, key: str) -> int:
        return int(self._typed(key, (int,), 0))

    def truth(self, key: str) -> bool:
        return bool(self._typed(key, (bool,), False))

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(str(entry) for entry in self._typed(key, (list,), []))

    def item(self, key: str) -> Item:
        return Item(self._typed(key, (dict,), {}), f"{self.what}.{key}")

    def items(self, key: str) -> tuple[Item, ...]:
        return tuple(Item(entry, f"{self.what}.{key}") for entry in self._typed(key, (list,), []))

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """Return an object of strings (labels, annotations, a selector), sorted."""
        return tuple(sorted((name, str(value)) for name, value in self.item(key).raw.items()))

    def address(self, key: str) -> IPv4Address | None:
        return self.read(key, V4.address)

    def network(self, key: str) -> IPv4Network | None:
        return self.read(key, V4.network)

    def read(self, key: str, read: Callable[[str, str], T]) -> T | None:
        """Return a text after ``read``, which also receives its path in the document; None where there is none."""
        return read(text, f"{self.what}.{key}") if (text := self.text(key)) else None

    def _typed(self, key: str, types: tuple[type, ...], empty: Any) -> Any:
        value = self.raw.get(key)
        if value is None:
            return empty
        if not isinstance(value, types):
            raise FactError(f"{self.what}.{key} should not be {type(value).__name__}", remedy=REMEDY)
        return value


SHOWN = 60  # characters of a malformed text in an error
_noted: ContextVar[list[Any] | None] = ContextVar("_noted", default=None)  # documents whose accessed keys are recorded


def document(text: str, what: str) -> Any:
    """Return the JSON document of a text; raise FactError where it is not JSON or nested too deep."""
    noted = _noted.get()
    try:
        raw = json.loads(text, object_hook=None if noted is None else _Noted)
    except (ValueError, RecursionError):
        raise FactError(f"{what} is not JSON: {text[:SHOWN]!r}", remedy=REMEDY) from None
    if noted is not None:
        noted.append(raw)
    return raw


def as_read(parse: Callable[[str], object], text: str) -> str:
    """Return the JSON document of a text reduced to what a parser reads: parsed again, it gives the same.

    >>> as_read(lambda text: document(text, "pod").get("name"), '{"name": "echo", "env": "secret"}')
    '{"name":"echo"}'
    """
    noted: list[Any] = []
    token = _noted.set(noted)
    try:
        parse(text)
    except FactError:  # the parser fails on the whole text in the same way
        text = text[:SHOWN]
    finally:
        _noted.reset(token)
    return json.dumps(_read(noted[0]), separators=(",", ":")) if noted else text


class _Noted(dict[str, Any]):
    """A JSON object that records which of its keys a parser accesses."""

    def __init__(self, raw: dict[str, Any]) -> None:
        super().__init__(raw)
        self.read: set[object] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.read.add(key)
        return super().__contains__(key)

    def items(self) -> Any:
        self.read.update(self)
        return super().items()


def _read(value: Any) -> Any:
    """Return the part of a noted document that was read."""
    match value:
        case _Noted():
            return {key: _read(value[key]) for key in value if key in value.read}
        case list():
            return [_read(item) for item in value]
        case _:
            return value


def listed(text: str, what: str) -> Iterator[Item]:
    """Yield the objects of a JSON list as `ip -j` prints it: an empty text means none, {} is an object left out."""
    if not text.strip():
        return
    raw = document(text, what)
    if not isinstance(raw, list):
        raise FactError(f"{what} should be a list, not {type(raw).__name__}", remedy=REMEDY)
    for entry in raw:
        if entry != {}:
            yield Item(entry, what)


def kubernetes_list(text: str, what: str) -> Iterator[Item]:
    """Yield the items of a Kubernetes list."""
    yield from Item(document(text, what), what).items("items")
