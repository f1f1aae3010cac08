"""What `./lab --help` and `./lab status` import: their speed, in a number that is the same on every machine."""

from __future__ import annotations

import pytest

from benchmarks.imports import imported_by

HEAVY = {"ansible_runner", "cryptography", "grpc", "jinja2", "kubernetes", "libvirt", "paramiko", "pulumi", "pydantic"}
HEAVY |= {"pytest", "rich", "supervisor", "testinfra", "yaml"}
NOT_FOR_STATUS = HEAVY - {"libvirt", "yaml"}


def packages(modules: frozenset[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize("words", [("--help",), ("up", "--help"), ("fleet", "up", "--help"), ("verify", "--help")])
def test_help_imports_no_heavy_package(words: tuple[str, ...]) -> None:
    modules = imported_by(*words)
    assert packages(modules) & HEAVY == set()
    assert len([name for name in modules if name.startswith("hoplab")]) <= 20


def test_status_imports_neither_engine_nor_client_library() -> None:
    modules = imported_by("status", "--lab", "no-such-lab")
    assert "hoplab.lab.status" in modules
    assert packages(modules) & NOT_FOR_STATUS == set()
