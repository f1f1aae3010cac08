"""Discovery of parts: one part is one module with a ``PART`` in the folder of its kind; there is no list to edit.

The folders are packages. A test that extends ``__path__`` of such a package adds parts of its own.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from types import ModuleType

from hoplab.core.errors import LabError
from hoplab.spec.parts import Part


def modules(package: str) -> tuple[tuple[Part, ModuleType], ...]:
    """Return each part of a package with its module, in the order of the modules' names."""
    return _modules(package, tuple(importlib.import_module(package).__path__))


class UnknownPart(LabError):
    """A part of a cluster without a module: nothing is known of what it leaves on hosts."""


@functools.cache
def _modules(package: str, folders: tuple[str, ...]) -> tuple[tuple[Part, ModuleType], ...]:
    names = (found.name for found in pkgutil.iter_modules(folders))
    imported = (importlib.import_module(f"{package}.{name}") for name in names)
    return tuple((module.PART, module) for module in imported if isinstance(getattr(module, "PART", None), Part))


def get_module(package: str, name: str, kind: str) -> ModuleType:
    """Return the module of the usable part of that name; UnknownPart with the usable names for any other one."""
    usable = {part.name: module for part, module in modules(package) if part.usable}
    if name not in usable:
        raise UnknownPart(
            f"there is no {kind} {name!r}; known: {', '.join(sorted(usable))}",
            remedy=f"write {package.replace('.', '/')}/{name.replace('-', '_')}.py",
        )
    return usable[name]
