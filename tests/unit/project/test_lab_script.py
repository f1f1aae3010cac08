"""The script `lab` with programs of ours in place of Python, apt-get and uv: what it does, when, and what it says."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "lab"

# Every stand-in writes its command line to $CALLS. A Python that makes a virtual environment copies itself there.
STAND_INS = {
    "python3": r"""
case "$*" in
  *"import ensurepip"*) exit "${NO_ENSUREPIP:-0}" ;;
  *Python.h*) exit 0 ;;
  "-m venv --clear "*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python" ;;
  *"-m pip install"*) cp "$(dirname "$0")/../../../bin/uv" "$(dirname "$0")/uv" ;;
  *"-m hoplab"*) echo "hoplab: ${*:4}" ;;
esac
""",
    "uv": r"""
[ -z "${UV_FAILS:-}" ] || { echo "no such package"; exit 1; }
[ -z "${UV_WAITS:-}" ] || read -r _ <"$UV_WAITS"
""",
    "dpkg-query": 'cat "$INSTALLED"',
    "apt-get": "",
    "id": 'echo "${AS_USER:-0}"',
}


@dataclass
class Machine:
    """A folder with a project and stand-ins."""

    folder: Path

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def environment(self, **more: str) -> dict[str, str]:
        own = {"CALLS": str(self.folder / "calls"), "INSTALLED": str(self.folder / "installed")}
        return {"PATH": f"{self.folder}/bin:/usr/bin:/bin", "CI": "true", **own, **more}

    def lab(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", str(self.project / "lab"), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=60,
            env=self.environment(**more),
        )

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["/bin/bash", str(self.project / "lab"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(**more),
        )

    def calls(self, program: str) -> list[str]:
        """Command lines of a program since the last time this was asked."""
        log = self.folder / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if line.startswith(f"{program} ")]

    def installed(self, *without: str) -> None:
        names = [name for name in PACKAGES if name not in without]
        (self.folder / "installed").write_text("".join(f"installed {name}\n" for name in names))


def _packages() -> list[str]:
    text = SCRIPT.read_text()
    lines = text[text.index("packages=(") : text.index("\n)")].splitlines()[1:]
    return [word for line in lines for word in line.split("#")[0].split()]


PACKAGES = _packages()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    (tmp_path / "bin").mkdir()
    made.project.mkdir()
    shutil.copy(SCRIPT, made.project / "lab")
    (made.project / "requirements-dev.lock").write_text(
        "click==1 \\\n    --hash=x\n    # via y\nuv==1 \\\n    --hash=z\n"
    )
    for name, body in STAND_INS.items():
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/bash\necho "$(basename "$0") $*" >>"$CALLS"\n{body}')
        program.chmod(0o755)
    made.installed()
    return made


def test_script_sets_up_on_first_use(machine: Machine) -> None:
    done = machine.lab("status", "--lab", "x y")
    assert (done.returncode, done.stdout) == (0, "hoplab: status --lab x y\n"), done.stderr
    assert [line.split(": done")[0] for line in done.stderr.splitlines() if "done in" in line] == [
        "lab: set-up: making .venv",
        "lab: set-up: installing uv",
        "lab: set-up: installing Python packages",
    ]
    assert not machine.calls("apt-get")
    assert (machine.project / ".venv" / "uv.lock").read_text() == "uv==1 \\\n    --hash=z\n"


def test_script_makes_nothing_on_second_use(machine: Machine) -> None:
    machine.lab("a")
    (machine.folder / "calls").unlink()
    done = machine.lab("b")
    assert (done.stdout, done.stderr) == ("hoplab: b\n", "")
    assert len((machine.folder / "calls").read_text().splitlines()) == 1


def test_script_installs_a_changed_lock_into_the_same_environment(machine: Machine) -> None:
    machine.lab("a")
    (machine.folder / "calls").unlink()
    with (machine.project / "requirements-dev.lock").open("a") as lock:
        lock.write("# changed\n")
    assert machine.lab("b").stdout == "hoplab: b\n"
    assert len(machine.calls("uv")) == 1
    assert not [call for call in machine.calls("python3") if "-m venv" in call]


def test_script_starts_an_interrupted_set_up_again(machine: Machine) -> None:
    failed = machine.lab("a", UV_FAILS="1")
    assert failed.returncode == 1
    assert "no such package" in failed.stderr
    assert failed.stderr.splitlines()[-2:] == [
        f"error: set-up failed: installing Python packages (all of its output: {machine.project}/.lab/set-up.log)",
        "  -> is the Python package index reachable?",
    ]
    (machine.folder / "calls").unlink()
    assert machine.lab("b").stdout == "hoplab: b\n"
    assert [call for call in machine.calls("python3") if "-m venv --clear" in call]


def test_two_scripts_at_once_set_up_once(machine: Machine) -> None:
    gate = machine.folder / "gate"
    os.mkfifo(gate)
    first = machine.start("a", UV_WAITS=str(gate))
    with gate.open("w") as opened:  # opens when the first one's uv reads: set-up is under way
        second = machine.start("b", UV_WAITS=str(gate))
        assert second.stderr is not None
        assert second.stderr.readline() == "lab: set-up: another ./lab is at it, waiting\n"
        opened.write("go on\n")
    assert first.communicate(timeout=60)[0] == "hoplab: a\n"
    assert second.communicate(timeout=60)[0] == "hoplab: b\n"
    assert len(machine.calls("uv")) == 1


def test_script_as_root_installs_missing_packages_only(machine: Machine) -> None:
    machine.installed("qemu-utils", "kmod")
    assert machine.lab("a").returncode == 0
    assert machine.calls("apt-get") == [
        "apt-get -q update",
        "apt-get -q -y -o DPkg::Lock::Timeout=600 --no-install-recommends install kmod qemu-utils",
    ]


def test_script_prints_the_command_to_other_users(machine: Machine) -> None:
    machine.installed("qemu-utils", "kmod")
    done = machine.lab("a", AS_USER="1000", NO_ENSUREPIP="1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: system packages are missing: kmod python3-venv qemu-utils\n"
        "  -> sudo apt-get install --no-install-recommends kmod python3-venv qemu-utils\n"
    )
    assert not machine.calls("apt-get")


TOOLS = ("bash", "cat", "cmp", "cp", "cut", "dirname", "basename", "env", "flock", "grep", "mkdir", "mv", "readlink")


def test_script_prints_the_packages_of_another_distribution(machine: Machine) -> None:
    for tool in (*TOOLS, "rm", "sed", "sort", "tail", "tr", "xargs"):
        program = shutil.which(tool)
        assert program
        (machine.folder / "bin" / tool).symlink_to(program)
    (machine.folder / "bin" / "dpkg-query").unlink()
    python = machine.folder / "bin" / "python3"
    body = python.read_text().replace('*"-m hoplab"*)', '*"-m hoplab a"*)')
    python.write_text(body.replace("esac", '  *"-m hoplab.core.packages"*) echo "dnf install x" ;;\nesac'))
    done = machine.lab("a", PATH=str(machine.folder / "bin"))
    assert (done.returncode, done.stdout) == (0, "hoplab: a\n"), done.stderr
    assert done.stderr.splitlines()[0] == (
        "lab: set-up: no Debian packages here; `./lab doctor` says which tools are missing, "
        "and these are all: dnf install x"
    )


def test_script_gives_every_program_one_locale(machine: Machine) -> None:
    machine.lab("a")
    python = machine.project / ".venv" / "bin" / "python"
    python.write_text('#!/bin/bash\necho "$LC_ALL $PYTHONUTF8"\n')
    assert machine.lab("a", LC_ALL="de_DE.ISO-8859-1", LANG="C").stdout == "C.UTF-8 1\n"


def test_script_installs_nothing_for_a_completion(machine: Machine) -> None:
    done = machine.lab("a", _LAB_COMPLETE="bash_complete")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (machine.project / ".venv").exists()
    machine.lab("a")
    assert machine.lab("a", _LAB_COMPLETE="bash_complete").stdout == "hoplab: a\n"


def test_script_refuses_a_python_without_ensurepip(machine: Machine) -> None:
    machine.installed()
    with (machine.folder / "installed").open("a") as installed:
        installed.write("installed python3-venv\n")
    done = machine.lab("a", NO_ENSUREPIP="1")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {machine.folder}/bin/python3 lacks parts of its standard installation\n  -> install python3-venv\n"
    )


def test_script_refuses_old_pythons(machine: Machine) -> None:
    machine.installed()
    with (machine.folder / "installed").open("a") as installed:
        installed.write("installed python3\ninstalled python3-venv\ninstalled python3-dev\n")
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        program = machine.folder / "bin" / name
        program.write_text("#!/bin/bash\nexit 1\n")
        program.chmod(0o755)
    done = machine.lab("a")
    assert done.returncode == 1
    assert done.stderr == (
        "error: Python 3.11 or newer is missing\n  -> install it, for instance Debian 12's python3\n"
    )


def test_script_makes_an_environment_without_python_again(machine: Machine) -> None:
    machine.lab("a")
    (machine.project / ".venv" / "bin" / "python").unlink()
    assert machine.lab("b").stdout == "hoplab: b\n"


def test_script_works_through_a_link(machine: Machine) -> None:
    link = machine.folder / "bin" / "mylab"
    link.symlink_to(machine.project / "lab")
    done = subprocess.run(
        ["mylab", "a"], env=machine.environment(), capture_output=True, text=True, check=False, cwd="/", timeout=60
    )
    assert done.stdout == "hoplab: a\n"
