"""A resource monitor that registers nothing and keeps every registration."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from hoplab.engine.monitor import Registered, Registration


class Recorder:
    """Answers every registration as if it had been made, and keeps them by URN."""

    def __init__(self) -> None:
        self.seen: dict[str, Registration] = {}
        self.outputs: dict[str, Any] = {}

    def register(self, wanted: Registration) -> Registered:
        self.seen[wanted.urn] = wanted
        return Registered(f"id-of-{wanted.name}" if wanted.custom else "", {})

    def stack_outputs(self, outputs: dict[str, Any]) -> None:
        self.outputs = outputs

    def phase(self, title: str) -> AbstractContextManager[None]:
        return nullcontext()

    def task(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...
