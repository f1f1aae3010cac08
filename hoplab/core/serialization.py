"""Frozen dataclasses as JSON values and back, by pydantic.

pydantic is imported at the first use: it takes longer to import than most verbs take to run.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


_adapters: dict[object, TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _adapters:
        from pydantic import TypeAdapter  # noqa: PLC0415 -- see above

        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def to_json(value: Any, *, exclude: Collection[str] = (), defaults: bool = True) -> Any:
    """Return a dataclass as ``json.dumps`` takes it, without the fields in ``exclude`` or those with their defaults."""
    return _adapter(type(value)).dump_python(value, mode="json", exclude=set(exclude), exclude_defaults=not defaults)


def from_json(kind: type[T], value: Any) -> T:
    """Return the dataclass in what ``json.loads`` read; ValueError names every field that does not fit, in one line."""
    from pydantic import ValidationError  # noqa: PLC0415 -- see above

    try:
        made: T = _adapter(kind).validate_python(value)
    except ValidationError as error:
        places = (("".join(f"{part}." for part in found["loc"]), found["msg"]) for found in error.errors())
        raise ValueError("; ".join(f"{place.rstrip('.')}: {text}" for place, text in places)) from None
    return made
