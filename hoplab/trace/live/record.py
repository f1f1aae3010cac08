"""A trace in a file: what was seen of a real packet, to be shown again without a lab."""

from __future__ import annotations

import json
from pathlib import Path

from hoplab.core import fs
from hoplab.core.errors import LabError
from hoplab.core.serialization import from_json, to_json
from hoplab.trace.model import Trace

FORMAT = 1
KEY = "hoplab_trace"


class TraceFileError(LabError):
    """A file that is no recorded trace."""


def save(trace: Trace, file: Path) -> None:
    """Write a trace to a file; raise FileError where that is not possible."""
    fs.write(file, json.dumps({KEY: FORMAT, "trace": to_json(trace, defaults=False)}, separators=(",", ":")) + "\n")


def is_trace(file: Path) -> bool:
    """Return whether a file is a recorded trace, and not a recording of a lab."""
    try:
        with file.open() as opened:
            return f'"{KEY}"' in opened.read(len(KEY) + 8)
    except (OSError, UnicodeDecodeError):
        return False


def load(file: Path) -> Trace:
    """Return a recorded trace; raise TraceFileError for another file."""
    try:
        document = json.loads(file.read_text())
        if document[KEY] != FORMAT:
            raise ValueError(f"its format is {document[KEY]!r}")
        return from_json(Trace, document["trace"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TraceFileError(
            f"{file} is not a recorded trace: {error}", remedy="make one: ./lab trace FROM TO --record FILE"
        ) from None
