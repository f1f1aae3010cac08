"""Typed access to JSON documents of other programs: every mismatch is a FactError with its path in the document."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from hoplab.core.errors import FactError
from hoplab.core.ip import REMEDY, Address, Family, Network
from hoplab.observe.facts import T, T_co


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

    def truth(self, key: str, *, missing: bool = False) -> bool:
        return bool(self._typed(key, (bool,), missing))

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(str(entry) for entry in self._typed(key, (list,), []))

    def item(self, key: str) -> Item:
        return Item(self._typed(key, (dict,), {}), f"{self.what}.{key}")

    def items(self, key: str) -> tuple[Item, ...]:
        return tuple(Item(entry, f"{self.what}.{key}") for entry in self.values(key))

    def values(self, key: str) -> list[Any]:
        """Return the entries of a list as they are."""
        values: list[Any] = self._typed(key, (list,), [])
        return values

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """Return an object of strings (labels, annotations, a selector), sorted."""
        return tuple(sorted((name, str(value)) for name, value in self.item(key).raw.items()))

    def of_family(self, key: str, family: Family[Address, Network]) -> Address | None:
        """Return an address of this family; None where there is none, or one of the other family."""
        return self.read(key, family.address) if family.has(self.text(key)) else None

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


def list_of(text: str, what: str) -> list[Any]:
    """Return the JSON list of a text; raise FactError for any other document."""
    raw = document(text, what)
    if not isinstance(raw, list):
        raise FactError(f"{what} should be a list, not {type(raw).__name__}", remedy=REMEDY)
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


@dataclass(frozen=True)
class Unread:
    """An entry that could not be read: it is known to be there, and unknown in what it says."""

    raw: Any = field(compare=False, repr=False)  # as the document has it
    why: str

    def __str__(self) -> str:
        return f"{json.dumps(self.raw)[:SHOWN]}: {self.why}"


class Entries(tuple[T_co, ...]):
    """Records of a fact, beside them the entries of the document that could not be read."""

    unread: tuple[Unread, ...]

    def __new__(cls, records: Iterable[T_co], unread: Iterable[Unread] = ()) -> Entries[T_co]:
        found = super().__new__(cls, records)
        found.unread = tuple(unread)
        return found


def unread(records: Iterable[object]) -> tuple[Unread, ...]:
    """Return the entries that could not be read when these records were."""
    return records.unread if isinstance(records, Entries) else ()


def gather(entries: Iterable[Any], what: str, read: Callable[[Item], Iterable[T]]) -> Entries[T]:
    """Return the records of all entries; one that cannot be read is kept aside.

    Raise the FactError of the first entry where none can be read: then the whole document is of another kind.
    """
    records: list[T] = []
    lost: list[Unread] = []
    readable = 0
    for entry in entries:
        try:
            records += read(Item(entry, what))
            readable += 1
        except FactError as error:
            lost.append(Unread(entry, error.message))
    if lost and not readable:
        raise FactError(lost[0].why, remedy=REMEDY)
    return Entries(records, lost)


def gather_listed(text: str, what: str, read: Callable[[Item], Iterable[T]]) -> Entries[T]:
    """Return the records of a JSON list as `ip -j` prints it: an empty text means none, {} is an object left out."""
    if not text.strip():
        return Entries(())
    return gather((entry for entry in list_of(text, what) if entry != {}), what, read)


def gather_kubernetes(text: str, what: str, read: Callable[[Item], Iterable[T]]) -> Entries[T]:
    """Return the records of the items of a Kubernetes list."""
    return gather(Item(document(text, what), what).values("items"), f"{what}.items", read)


def kubernetes_list(text: str, what: str) -> Iterator[Item]:
    """Yield the items of a Kubernetes list."""
    yield from Item(document(text, what), what).items("items")
