"""What is installed: the two lock files, and a wheel that reads recordings without the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from hoplab import __version__
from hoplab.core.paths import PROJECT

BIN = Path(sys.executable).parent
PACKED = ("hoplab", "tests/lessons", "pyproject.toml", "requirements.in", "README.md", "LICENSE")


def pins(lock: str) -> dict[str, str]:
    """The versions of a lock file by package."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (PROJECT / lock).read_text(), re.MULTILINE))


def test_development_lock_has_all_of_the_run_time_lock() -> None:
    assert pins("requirements.lock").items() <= pins("requirements-dev.lock").items()


def test_run_time_lock_has_no_tools_of_development() -> None:
    assert not pins("requirements.lock").keys() & {
        "ruff",
        "mypy",
        "hypothesis",
        "ansible-lint",
        "paramiko",
        "pytest-cov",
    }


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_lock_has_hashes_and_names_no_index(lock: str) -> None:
    text = (PROJECT / lock).read_text()
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links", text)
    packages = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert [package.split()[0] for package in packages if "--hash=sha256:" not in package] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in PACKED:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT / name, target)
    build = "from setuptools import build_meta; import sys; build_meta.build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build, str(folder)],
        cwd=source,
        check=True,
        capture_output=True,
        timeout=100,
    )
    return next(folder.glob("*.whl"))


def test_wheel_has_every_file_of_the_package_and_the_lessons(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    tracked = {
        str(path.relative_to(PROJECT))
        for path in (PROJECT / "hoplab").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert tracked - packed == set()
    lessons = {path.name for path in (PROJECT / "tests" / "lessons").glob("*.py")}
    data = f"hoplab-{__version__}.data/data/share/hoplab/lessons/"
    assert {name.removeprefix(data) for name in packed if name.startswith(data)} == lessons


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """A virtual environment with the wheel; its dependencies are those of this one."""
    venv = wheel.parent / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=100)
    site = next(venv.glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [str(BIN / "uv"), "pip", "install", "--offline", "--no-deps", "--no-cache", "--quiet"]
    subprocess.run([*install, "--python", str(venv / "bin" / "python"), str(wheel)], check=True, timeout=100)
    return venv / "bin" / "hoplab"


def run(program: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the installed program; PYTHONPATH would let it import a checkout, in which every verb works."""
    return subprocess.run(
        [str(program), *words],
        cwd=program.parent,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},  # it may name a checkout
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_wheel_shows_its_version(installed: Path) -> None:
    done = run(installed, "version")
    assert done.stdout.startswith(f"hoplab {__version__}\n"), done.stderr


def test_wheel_verifies_a_recording(installed: Path) -> None:
    recording = PROJECT / "tests" / "recordings" / "flannel-vxlan.json"
    done = run(installed, "verify", "--recording", str(recording), "-k", "addresses")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✓" in done.stdout


def test_wheel_lists_exercises(installed: Path) -> None:
    assert "a veth pair" in run(installed, "practice").stdout


def test_wheel_names_the_checkout_where_a_verb_needs_it(installed: Path) -> None:
    done = run(installed, "up")
    assert done.returncode == 1
    assert done.stderr == (
        "error: hoplab up needs the project's checkout (roles, playbooks)\n  -> git clone it, then ./lab up\n"
    )
    assert run(installed, "up", "--help").stdout.startswith("Usage: hoplab up [OPTIONS]\n")
