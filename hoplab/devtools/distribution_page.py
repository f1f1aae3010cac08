"""Writes the tables of docs/distributions.md: ``python -m hoplab.devtools.distribution_page``."""

from __future__ import annotations

from hoplab.core import fs
from hoplab.core.packages import FAMILIES, PACKAGES, SETUP
from hoplab.core.paths import PROJECT
from hoplab.devtools.marks import between

PAGE = PROJECT / "docs" / "distributions.md"
BEGIN, END = "<!-- generated: distributions -->\n", "<!-- end of distributions -->\n"


def page(text: str) -> str:
    """Return the page with its tables made anew."""
    return between(text, BEGIN, END, f"\n{tables()}\n")


def tables() -> str:
    """Return a table of the distributions, and one of packages."""
    lines = ["| distributions | install command | libvirt's services |", "|---|---|---|"]
    for family in FAMILIES:
        services = ", ".join(f"`{service}`" for service in family.services)
        lines.append(f"| {', '.join(family.members)} | `{family.install}` | {services} |")
    lines += ["", f"| for | {' | '.join(family.members[0].split()[0] for family in FAMILIES)} |", "|---" * 5 + "|"]
    for name, row in sorted({**SETUP, **PACKAGES}.items(), key=lambda item: item[0].lower()):
        cells = [str(getattr(row, family.field)) or "none" for family in FAMILIES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    fs.write(PAGE, page(PAGE.read_text(encoding="utf-8")))
