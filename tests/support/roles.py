"""Roles read as Ansible reads them: defaults, and templates rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import yaml
from ansible.plugins.filter.core import FilterModule  # type: ignore[import-untyped]  # has no types

from hoplab.core.paths import PROJECT


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def defaults(role: str) -> dict[str, Any]:
    found: dict[str, Any] = load(PROJECT / "roles" / role / "defaults/main.yml")
    return found


def render(path: str, **values: Any) -> str:
    """A template as Ansible renders it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PROJECT),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FilterModule().filters())
    return environment.get_template(path).render(values)


def documents(text: str) -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in yaml.safe_load_all(text)}
