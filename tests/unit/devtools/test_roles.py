"""The READMEs of roles have the table of their inputs."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from hoplab.devtools import roles
from hoplab.devtools.roles import COMMAND, current, readmes, regenerated, table

pytestmark = pytest.mark.docs

SPECS = {
    "argument_specs": {
        "main": {
            "options": {
                "cni_kubeconfig": {"description": "A kubeconfig.", "required": True},
                "cni_backend": {"description": ["How.", "With V(vxlan) so."], "choices": ["vxlan"], "default": "vxlan"},
                "cni_range": {"description": "A range.", "default": ""},
                "cni_more": {"description": "More.", "type": "dict", "default": {}},
            }
        }
    }
}


@pytest.mark.parametrize("readme", tuple(readmes()), ids=lambda path: path.parent.name)
def test_a_readme_has_the_inputs_and_an_example(readme: Path) -> None:
    text = readme.read_text()
    assert text == current(readme), f"run {COMMAND}"
    assert text.startswith(f"# {readme.parent.name}\n")
    assert f"        name: {readme.parent.name}\n" in text.partition("## Example")[2]


def test_table_of_inputs() -> None:
    assert table(SPECS).splitlines()[2:] == [
        "| `cni_kubeconfig` | str | required | A kubeconfig. |",
        "| `cni_backend` | `vxlan` | `vxlan` | How. With `vxlan` so. |",
        '| `cni_range` | str | `""` | A range. |',
        "| `cni_more` | dict | `{}` | More. |",
    ]


def test_only_the_table_is_replaced() -> None:
    page = regenerated(f"# cni\n\n{roles.BEGIN}\nold\n{roles.END}\nAfter.\n", SPECS)
    assert page.startswith("# cni\n") and page.endswith(f"{roles.END}\nAfter.\n")
    assert "\nold\n" not in page
    assert regenerated(page, SPECS) == page


def test_doctests() -> None:
    assert doctest.testmod(roles).attempted >= 1
