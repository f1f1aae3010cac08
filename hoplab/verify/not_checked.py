"""Claims that are not checked: what they depend on could not be looked at.

Such a claim is neither failed nor passed. For pytest it is skipped, with the reason and a property of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hoplab.core.errors import UnavailableError
from hoplab.observe.snapshot import Snapshot
from hoplab.verify.claims import listed

PROPERTY = "not_checked"


@contextmanager
def skipping(item: pytest.Item, lab: Snapshot | None) -> Iterator[None]:
    """Skip the lesson where the body depends on what could not be looked at.

    A lesson that breaks on a lab with outages is skipped too: it has met a lab that it was not written for. A claim
    that fails there fails.
    """
    try:
        yield
    except UnavailableError as error:
        why = error.message
    except (AssertionError, pytest.skip.Exception, pytest.fail.Exception, pytest.exit.Exception):
        raise
    except Exception as error:
        if not lab or not lab.outages:
            raise
        why = f"{lab.outages[0].problem} (without it the lesson ends with {type(error).__name__}: {error})"
    else:
        return
    item.user_properties.append((PROPERTY, why))
    pytest.skip(f"not checked: {why}")


def gap(lab: Snapshot) -> str:
    """Return what an observation of all nodes leaves out, to be appended to it; "" where all were looked at."""
    return f"; not looked at: {listed(lab.lost_nodes)}" if lab.lost_nodes else ""
