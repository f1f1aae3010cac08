"""Discovery of parts: one part is one module with a ``PART`` in the folder of its kind; there is no list to edit.

The folders are packages. A test that extends ``__path__`` of such a package adds parts of its own.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from hoplab.core.errors import LabError
from hoplab.spec.parts import Part


def modules(package: str) -> Iterator[tuple[Part, ModuleType]]:
    """Yield each part of a package with its module, in the order of the modules' names."""
    folder = importlib.import_module(package)
    for found in pkgutil.iter_modules(folder.__path__):
        module = importlib.import_module(f"{package}.{found.name}")
        if isinstance(part := getattr(module, "PART", None), Part):
            yield part, module


def get_module(package: str, name: str, kind: str) -> ModuleType:
    """Return the module of the usable part of that name; LabError with the usable names for any other one."""
    usable = {part.name: module for part, module in modules(package) if part.usable}
    if name not in usable:
        raise LabError(
            f"there is no {kind} {name!r}; known: {', '.join(sorted(usable))}",
            remedy=f"write {package.replace('.', '/')}/{name.replace('-', '_')}.py",
        )
    return usable[name]
