"""Writes docs/spec.schema.json and the table of docs/spec.md: ``python -m hoplab.devtools.spec_pages``."""

from __future__ import annotations

import json

from hoplab.core import fs
from hoplab.core.paths import PROJECT
from hoplab.devtools.marks import between
from hoplab.expectations.parts import known_parts
from hoplab.spec.schema import json_schema, markdown_table

PAGE = PROJECT / "docs" / "spec.md"
SCHEMA = PROJECT / "docs" / "spec.schema.json"
BEGIN = "<!-- made by `python -m hoplab.devtools.spec_pages` from hoplab/spec/settings.py -->\n"
END = "<!-- end -->\n"


def page(text: str) -> str:
    """Return the page with the table between its marks regenerated."""
    return between(text, BEGIN, END, f"\n{markdown_table(known_parts())}\n")


def schema() -> str:
    """Return the JSON Schema as text."""
    return json.dumps(json_schema(known_parts()), indent=2) + "\n"


if __name__ == "__main__":
    fs.write(PAGE, page(PAGE.read_text()))
    fs.write(SCHEMA, schema())
