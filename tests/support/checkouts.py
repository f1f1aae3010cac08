"""A copy of the project as on a new machine, for users and systems of the tests' own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from hoplab.core.paths import PROJECT

PASSED_ON = ("PIP_", "UV_", "SSL_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")  # how set-up reaches packages
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".lab", "*.ssh_config", "*.ssh_include", "__pycache__", ".*_cache")


def copy_project(target: Path) -> None:
    """Copy the project without what was made in it."""
    shutil.copytree(PROJECT, target, ignore=NOT_COPIED, symlinks=True)


def give(folder: Path, user: int) -> None:
    """Make a folder and all that is in it a user's own."""
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, user, user, follow_symlinks=False)


def package_settings() -> dict[str, str]:
    """Return the variables of the environment by which set-up reaches packages."""
    return {name: value for name, value in os.environ.items() if name.upper().startswith(PASSED_ON)}
