"""A stage's RECIPE names what its code makes: code that changed is code that somebody has looked at again."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from types import ModuleType

import pytest

from hoplab.image import containers, disk, initrd, oci

# module -> its RECIPE, and the digest of its code when that RECIPE was given
SEEN = {
    containers: ("d1edcc81", "8c2cff37"),
    disk: ("d74e2c22", "4dcc5487"),
    initrd: ("e52715e4", "662f5f23"),
    oci: ("5222af04", "3cd97063"),
}


def code_digest(module: ModuleType) -> str:
    """Digest of a module's code without its docstrings, comments, imports and RECIPE."""
    assert module.__file__
    tree = ast.parse(Path(module.__file__).read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            node.body = [statement for statement in node.body if not _is_left_out(statement)] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:8]


def _is_left_out(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == "RECIPE" for target in statement.targets)
    is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_text or isinstance(statement, (ast.Import, ast.ImportFrom))


@pytest.mark.parametrize("module", SEEN, ids=lambda module: module.__name__.rpartition(".")[2])
def test_code_that_changed_has_another_recipe(module: ModuleType) -> None:
    recipe, code = SEEN[module]
    assert module.RECIPE.startswith(recipe), "write the new RECIPE here, with the digest of the code below"
    assert code_digest(module) == code, (
        f"the code of {module.__name__} changed: where it makes another image now, change its RECIPE; "
        f"then write {code_digest(module)!r} beside it here"
    )
