"""Labs that may not be lost: ``lab:protect`` in the spec."""

from __future__ import annotations

import contextlib

from hoplab.core.errors import ProtectedError, SpecError
from hoplab.core.paths import LabPaths
from hoplab.lab.spec_file import load_spec


def refuse_protected(paths: LabPaths) -> None:
    """Raise ProtectedError where the spec protects the lab; a spec that can't be read protects nothing."""
    with contextlib.suppress(SpecError, FileNotFoundError):
        if paths.spec.exists() and load_spec(paths).protect:
            raise ProtectedError(
                f"lab {paths.lab} is protected: {paths.spec.name} says lab:protect",
                remedy="if it is to go: set lab:protect to false, then `lab up` and `lab destroy`",
            )
