"""One look at the host of a libvirt: this one, and another one by an ssh that the tests have in its place."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hoplab.core.errors import HostError
from hoplab.host import look
from hoplab.spec.libvirt_uri import RemoteHost

RACK = RemoteHost("rack7", "ann")
FarHost = Callable[[str], None]


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FarHost:
    """Put a script in the place of ssh; it gets ssh's arguments."""

    def answers(script: str) -> None:
        (tmp_path / "ssh").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "ssh").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")

    return answers


def test_this_host() -> None:
    found = look.look(None)
    assert set(found.outputs) >= {"meminfo", "addresses", "routes", "rules", "space", "bridged", "filter", "end"}
    facts = found.facts()
    assert 0 < facts.available_memory_mib <= facts.memory_mib and facts.cpus >= 1 and facts.name == ""
    assert found.ahead_s == 0.0


def test_another_host_is_looked_at_by_the_same_script(ssh: FarHost, tmp_path: Path) -> None:
    ssh(f'echo "$@" >{tmp_path}/arguments; sed "s/^say clock.*/say clock; echo $(($(date +%s) + 100)).0/" | sh')
    found = look.look(RACK)
    assert (tmp_path / "arguments").read_text() == "-o BatchMode=yes -l ann -T -- rack7 sh\n"
    assert found.facts().name == "ann@rack7"
    assert 90 < found.ahead_s < 110


def test_memory_disk_and_networks_are_those_of_the_other_host(ssh: FarHost) -> None:
    sections = {
        "clock": f"{time.time():.3f}",
        "meminfo": "MemTotal: 4194304 kB\nMemAvailable: 2097152 kB",
        "cpus": "64",
        "addresses": '[{"ifname": "docker0", "addr_info": '
        '[{"family": "inet", "local": "172.17.0.1", "prefixlen": 16}]}]',
        "routes": "[]",
        "rules": "[]",
        "space": "Filesystem 1-blocks Used Available Capacity Mounted on\n/dev/vda 9 9 3221225472 50% /var",
        "end": "",
    }
    text = "\n".join(f"\n=== {title}\n{output}" for title, output in sections.items())
    ssh(f"cat <<'EOF'\n{text}\nEOF")
    found = look.look(RACK)
    facts = found.facts()
    assert (facts.memory_mib, facts.available_memory_mib, facts.cpus) == (4096, 2048, 64)
    assert [used.by for used in facts.used] == ["Docker's network docker0"]
    assert found.free_gib == 3.0


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'ann@rack7: Permission denied (publickey).' >&2; exit 255", "Permission denied (publickey)."),
        ("exit 255", "ssh gave no reason"),
        ("echo; echo '=== clock'; exit 0", "ssh gave no reason"),
    ],
)
def test_a_host_that_ssh_does_not_reach(ssh: FarHost, script: str, why: str) -> None:
    ssh(script)
    with pytest.raises(HostError) as caught:
        look.look(RACK)
    assert caught.value.message.startswith("the host of the lab's libvirt can't be reached over SSH: ann@rack7: ")
    assert why in caught.value.message
    assert caught.value.remedy.startswith("`ssh -o BatchMode=yes -l ann -- rack7 true` has to work without a question")


def test_a_host_that_does_not_answer(ssh: FarHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "ANSWER_S", 0.2)
    ssh("exec sleep 60")
    with pytest.raises(HostError, match="no answer after 0 s"):
        look.look(RACK)


def test_a_host_that_is_no_linux() -> None:
    with pytest.raises(HostError) as caught:
        look.HostLook({"end": ""}, remote="ann@rack7").facts()
    assert caught.value.message == "ann@rack7 does not show its memory: it seems to be no Linux host with a shell"
    assert caught.value.remedy == "`ssh ann@rack7 cat /proc/meminfo` has to work"
