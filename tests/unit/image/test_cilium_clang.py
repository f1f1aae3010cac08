"""The compiler that cilium-agent calls: it goes on when its caller is killed, and compiles the same once."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hoplab.core.paths import PROJECT
from hoplab.core.wait import NotYet, until

PROGRAM = PROJECT / "hoplab/image/cilium/clang.sh"
REAL = """#!/bin/sh
echo began >>"$0.began"
until test -e "$0.go"; do sleep 0.05; done # stands for a compiler that takes long
test ! -e "$0.bad" || { echo "an error" >&2; exit 1; }
echo "made of $*"
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def real(tmp_path: Path) -> Path:
    file = tmp_path / "real"
    file.write_text(REAL)
    file.chmod(0o755)
    return file


@pytest.fixture
def start(real: Path, tmp_path: Path) -> Start:
    headers = tmp_path / "run/globals"
    headers.mkdir(parents=True)
    (headers / "node_config.h").write_text("#define SIZE 1\n")

    def begin(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [PROGRAM, f"-I{headers}", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/bin:/bin", "CLANG": str(real), "GENERATED": str(tmp_path / "run")},
        )

    return begin


def beginnings(real: Path) -> int:
    file = Path(f"{real}.began")
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_it_goes_on_when_its_caller_gives_up(real: Path, start: Start) -> None:
    first = start("-c", "bpf_lxc.c", "-o", "-")
    until(lambda: beginnings(real) or NotYet("nothing is compiled"), 10, poll_s=0.05)
    first.kill()
    with first:
        assert first.wait(timeout=10) == -signal.SIGKILL
    second = start("-c", "bpf_lxc.c", "-o", "-")
    Path(f"{real}.go").touch()
    out, err = second.communicate(timeout=10)
    assert second.returncode == 0 and out.startswith("made of ") and not err
    assert beginnings(real) == 1
    out, _ = start("-c", "bpf_lxc.c", "-o", "-").communicate(timeout=10)
    assert out.startswith("made of ") and beginnings(real) == 1


def test_the_same_headers_in_another_folder_are_compiled_once(real: Path, start: Start, tmp_path: Path) -> None:
    Path(f"{real}.go").touch()
    for name in ("one", "other"):
        folder = tmp_path / "run/templates" / name
        folder.mkdir(parents=True)
        (folder / "ep_config.h").write_text("#define ENABLE_ROUTING 1\n")
        out, _ = start(f"-I{folder}", "-c", "bpf_lxc.c", "-o", "-").communicate(timeout=10)
        assert out.startswith("made of ")
    assert beginnings(real) == 1


def test_another_header_is_compiled_anew(real: Path, start: Start, tmp_path: Path) -> None:
    Path(f"{real}.go").touch()
    start("-c", "bpf_lxc.c", "-o", "-").communicate(timeout=10)
    (tmp_path / "run/globals/node_config.h").write_text("#define SIZE 2\n")
    start("-c", "bpf_lxc.c", "-o", "-").communicate(timeout=10)
    start("-c", "bpf_host.c", "-o", "-").communicate(timeout=10)
    assert beginnings(real) == 3


def test_an_error_is_the_compilers_own_and_is_not_kept(real: Path, start: Start) -> None:
    for name in ("go", "bad"):
        Path(f"{real}.{name}").touch()
    ended = start("-c", "bpf_lxc.c", "-o", "-")
    out, err = ended.communicate(timeout=10)
    assert ended.returncode == 1 and not out and err.startswith("an error")
    Path(f"{real}.bad").unlink()
    out, err = start("-c", "bpf_lxc.c", "-o", "-").communicate(timeout=10)
    assert out.startswith("made of ") and not err


def test_what_compiles_nothing_is_passed_on(real: Path, start: Start) -> None:
    Path(f"{real}.go").touch()
    out, _ = start("--version").communicate(timeout=10)
    assert out.startswith("made of ") and not list(real.parent.glob("run/compiled/*"))
