"""The tables of inputs in roles/*/README.md, generated from each role's argument_specs.

``python -m hoplab.devtools.roles`` writes them. Roles of the node image have no README, because the image's digest
covers all of their files. docs/image.md describes them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hoplab.core import fs
from hoplab.core.paths import PROJECT
from hoplab.image.disk import ROLES as IMAGE_ROLES

COMMAND = "python -m hoplab.devtools.roles"
BEGIN, END = "<!-- generated: inputs -->", "<!-- end of inputs -->"


def readmes(roles: Path = PROJECT / "roles") -> Iterator[Path]:
    """Yield the READMEs of roles that have one, or should have one."""
    for specs in sorted(roles.glob("*/meta/argument_specs.yml")):
        role = specs.parents[1]
        if role.name not in IMAGE_ROLES:
            yield role / "README.md"


def table(specs: Mapping[str, Any]) -> str:
    """Return a Markdown table of the options of an argument_specs document."""
    rows = ["| input | type | default | what it is |", "|---|---|---|---|"]
    for name, option in specs["argument_specs"]["main"]["options"].items():
        default = "required" if option.get("required") else f"`{_text(option['default'])}`"
        kind = ", ".join(f"`{choice}`" for choice in option.get("choices", ())) or option.get("type", "str")
        described = option["description"]
        text = described if isinstance(described, str) else " ".join(described)
        rows.append(f"| `{name}` | {kind} | {default} | {_marked(text)} |")
    return "\n".join(rows)


def _text(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)


def _marked(text: str) -> str:
    """Return text with Ansible's markup, V(value) and C(code), as Markdown.

    >>> _marked("With V(bgp), C(FELIX) is")
    'With `bgp`, `FELIX` is'
    """
    for markup in ("V(", "C("):
        while markup in text:
            before, _, rest = text.partition(markup)
            inside, _, after = rest.partition(")")
            text = f"{before}`{inside}`{after}"
    return " ".join(text.split())


def regenerated(readme: str, specs: Mapping[str, Any]) -> str:
    """Return a README with its table of inputs regenerated."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table(specs)}\n\n{END}{rest.split(END)[1]}"


def current(readme: Path) -> str:
    """Return a role's README with its table of inputs regenerated from the role's argument_specs."""
    specs = yaml.safe_load((readme.parent / "meta" / "argument_specs.yml").read_text())
    return regenerated(readme.read_text(), specs)


def main() -> None:
    """Regenerate the tables of inputs of all roles."""
    for readme in readmes():
        fs.write(readme, current(readme))


if __name__ == "__main__":
    main()
