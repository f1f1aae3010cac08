"""Reaching nodes: one script per round trip, host keys that are checked, and failures that say what to do."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import paramiko
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paramiko.common import AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from hoplab.core.errors import UnavailableError
from hoplab.core.wait import NotYet, Timing, deadline, until
from hoplab.observe.script import Output, Script
from hoplab.observe.ssh import Hosts, NodeUnreachable, failure_reason
from tests.support.scripts import ran


def test_outputs_codes_and_errors_come_back_apart() -> None:
    commands = {
        "both": "echo out; echo err >&2; false",
        "silent": "true",
        "unfinished": "printf 'no newline'",
        "quoted": """echo "it's" '"quoted"'""",
        "nothing": "no-such-command-at-all",
    }
    found = ran(Script(commands, {}))
    assert found["both"] == Output(1, "out\n", "err\n")
    assert found["silent"] == Output(0, "")
    assert found["unfinished"] == Output(0, "no newline")
    assert found["quoted"] == Output(0, 'it\'s "quoted"\n')
    assert found["nothing"].code == 127 and "not found" in found["nothing"].err


def test_a_pods_commands_are_entered_by_nsenter() -> None:
    script = Script({"a": "true"}, {"routes": "ip -j route"})
    assert 'nsenter --net="$ns" sh -c "$inner" sh "${ns##*/}"' in script.text
    assert "ip -j route" in script.text
    printed = f"\n{script.mark} 0 a\n{script.mark}\n[]\n\n{script.mark} 0 cni-1/routes\n{script.mark}\n{script.end}\n"
    assert script.split(printed) == {"a": Output(0, ""), "cni-1/routes": Output(0, "[]\n")}


@given(out=st.text(), err=st.text(), code=st.integers(0, 255))
def test_whatever_is_printed_is_found_again(out: str, err: str, code: int) -> None:
    script = Script({}, {})
    printed = f"{out}\n{script.mark} {code} x\n{err}{script.mark}\n{script.end}\n"
    assert script.split(printed) == {"x": Output(code, out, err)}


class Server(paramiko.ServerInterface):
    """An SSH server on 127.0.0.1 that lets everybody in and runs what it is told."""

    def __init__(self, key: paramiko.PKey, *, cut: bool = False) -> None:
        self.cut = cut  # end every batch half way
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.transport: paramiko.Transport | None = None
        self.key = key
        self.logins = 0
        self.commands: list[str] = []
        self.shells: list[subprocess.Popen[bytes]] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):  # the client left, or the test is over
            connection, _ = self.listener.accept()
            self.transport = paramiko.Transport(connection)
            self.transport.add_server_key(self.key)
            self.transport.start_server(server=self)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the test closed it already
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes up accept
        self.listener.close()
        if self.transport:
            self.transport.close()

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        self.logins += 1
        return AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.commands.append(command.decode())
        threading.Thread(target=self._run, args=(channel,), daemon=True).start()
        return True

    def _run(self, channel: paramiko.Channel) -> None:
        with subprocess.Popen(["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
            self.shells.append(shell)
            assert shell.stdin and shell.stdout
            threading.Thread(target=self._feed, args=(channel, shell.stdin), daemon=True).start()
            while said := os.read(shell.stdout.fileno(), 1 << 16):
                channel.sendall(said[: len(said) // 2] if self.cut else said)
                if self.cut:
                    shell.kill()
            code = shell.wait()
        channel.send_exit_status(abs(code))
        channel.close()

    @staticmethod
    def _feed(channel: paramiko.Channel, given: IO[bytes]) -> None:
        with contextlib.suppress(OSError), given:
            while text := channel.recv(1 << 16):
                given.write(text)
                given.flush()


@contextmanager
def serving(folder: Path, *, known: paramiko.PKey | None = None, cut: bool = False) -> Iterator[tuple[Server, Hosts]]:
    """A node that can be logged in to, and the door to it; ``known`` is the key that known_hosts has for it."""
    server = Server(paramiko.ECDSAKey.generate(), cut=cut)
    expected = known or server.key
    (folder / "known_hosts").write_text(f"worker1 {expected.get_name()} {expected.get_base64()}\n")
    paramiko.ECDSAKey.generate().write_private_key_file(str(folder / "id"))
    (folder / "ssh_config").write_text(
        f"Host worker1\n  HostName 127.0.0.1\n  Port {server.port}\n  HostKeyAlias worker1\n"
        f"Host *\n  User lab\n  IdentityFile {folder}/id\n  UserKnownHostsFile {folder}/known_hosts\n"
        "  StrictHostKeyChecking yes\n  PasswordAuthentication no\n  LogLevel ERROR\n"
        f"  ControlMaster auto\n  ControlPersist 10\n  ControlPath {folder}/%n\n"
    )
    try:
        yield server, Hosts(["worker1"], folder / "ssh_config")
    finally:
        subprocess.run(["ssh", "-F", folder / "ssh_config", "-O", "exit", "worker1"], capture_output=True, check=False)
        server.close()


def test_batches_share_one_login(tmp_path: Path) -> None:
    with serving(tmp_path) as (server, hosts):
        assert hosts.batch("worker1", {"a": "echo one", "b": "echo two"})["b"] == Output(0, "two\n")
        assert hosts.batches({"c": "echo three"}, in_pods={})["worker1"]["c"].out == "three\n"
        assert server.logins == 1


def test_batches_share_one_shell(tmp_path: Path) -> None:
    """Which nothing in a batch can end, change, or make it read the next one."""
    with serving(tmp_path) as (server, hosts):
        hosts.batch("worker1", {"a": "cd /; export PATH=/nowhere"})
        with pytest.raises(NodeUnreachable, match="a batch of commands on worker1 ended early after 'one'"):
            hosts.batch("worker1", {"b": "echo one; exit 3"})
        assert hosts.batch("worker1", {"c": "cat; ls /nowhere"})["c"].code == 2
        assert server.commands == ["sudo /bin/sh"]


def test_batches_at_the_same_time_have_a_shell_each(tmp_path: Path) -> None:
    """Each one waits for what the other one does."""
    one, other = (f"mkfifo {tmp_path}/{name}" for name in ("one", "other"))
    with serving(tmp_path) as (server, hosts), ThreadPoolExecutor() as pool:
        hosts.batch("worker1", {"one": one, "other": other})
        first = pool.submit(hosts.batch, "worker1", {"a": f"echo first >{tmp_path}/one; cat {tmp_path}/other"})
        second = pool.submit(hosts.batch, "worker1", {"b": f"cat {tmp_path}/one; echo second >{tmp_path}/other"})
        assert (first.result()["a"].out, second.result()["b"].out) == ("second\n", "first\n")
        assert server.commands == ["sudo /bin/sh"] * 2


def test_a_shell_that_has_ended_is_followed_by_another_one(tmp_path: Path) -> None:
    with serving(tmp_path) as (server, hosts):
        hosts.batch("worker1", {"a": "true"})
        (idle,) = hosts._shells._idle["worker1"]
        server.shells[0].kill()
        until(lambda: None if not idle.alive else NotYet("the shell runs"), 30.0)
        assert hosts.batch("worker1", {"a": "echo again"})["a"].out == "again\n"
        assert len(server.commands) == 2


def test_a_long_batch_and_a_long_answer(tmp_path: Path) -> None:
    """Longer than what a pipe holds, both ways at once."""
    text = "x" * 300_000
    with serving(tmp_path) as (_, hosts):
        found = hosts.batch("worker1", {str(number): f"printf %s {text}" for number in range(3)})
    assert {output.out for output in found.values()} == {text}


def test_shells_end_when_they_are_closed(tmp_path: Path) -> None:
    with serving(tmp_path) as (server, hosts):
        hosts.batch("worker1", {"a": "true"})
        hosts.close()
        assert server.shells[0].wait(30) == 0


def test_another_machines_host_key_is_refused(tmp_path: Path) -> None:
    with (
        serving(tmp_path, known=paramiko.ECDSAKey.generate()) as (_, hosts),
        pytest.raises(
            NodeUnreachable, match=r"worker1 can't be reached over SSH: Host key verification failed"
        ) as caught,
    ):
        hosts.batch("worker1", {"a": "true"})
    assert "ssh -v -F" in caught.value.remedy


def test_an_unknown_host_key_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as (_, hosts):
        (tmp_path / "known_hosts").write_text("")
        with pytest.raises(NodeUnreachable, match="Host key verification failed"):
            hosts.batch("worker1", {"a": "true"})


def test_a_node_that_does_not_listen_is_named(tmp_path: Path) -> None:
    with serving(tmp_path) as (server, hosts):
        server.close()
        with pytest.raises(NodeUnreachable, match="worker1 can't be reached"):
            hosts.batch("worker1", {"a": "true"})


def test_a_batch_that_ends_early_is_not_mistaken_for_facts(tmp_path: Path) -> None:
    with (
        serving(tmp_path, cut=True) as (_, hosts),
        pytest.raises(NodeUnreachable, match="a batch of commands on worker1 ended early"),
    ):
        hosts.batch("worker1", {"a": "echo one", "b": "echo two"})


def test_nodes_that_answer_are_told_from_those_that_do_not(tmp_path: Path) -> None:
    with serving(tmp_path):
        (tmp_path / "ssh_config").write_text(
            "Host worker2\n  HostName 127.0.0.1\n  Port 1\n\n" + (tmp_path / "ssh_config").read_text()
        )
        both = Hosts(["worker1", "worker2"], tmp_path / "ssh_config")
        found = both.answers({"a": "echo one"}, in_pods={}, deadline=deadline(60))
        assert found["worker1"] == {"a": Output(0, "one\n")}
        lost = found["worker2"]
        assert isinstance(lost, NodeUnreachable) and isinstance(lost, UnavailableError)
        assert lost.message == "worker2 can't be reached over SSH: Connection refused"
        assert "port 1: Connection refused" in lost.output
        assert both.only(["worker2"]).names == ("worker2",)


def test_a_node_that_hangs_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    """Also where a proxy command keeps ssh's error output open."""
    with serving(tmp_path) as (server, _):
        (tmp_path / "ssh_config").write_text("Host worker1\n  ProxyCommand sleep 20\n")
        began = time.monotonic()
        with pytest.raises(NodeUnreachable, match="worker1 can't be reached over SSH: timed out: no answer after 2 s"):
            Hosts(["worker1"], tmp_path / "ssh_config").batch(
                "worker1", {"a": "true"}, deadline=Timing(slowness=lambda: 2.0).deadline(1)
            )
        assert 2 <= time.monotonic() - began < 15
        assert server.logins == 0


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (
            "socat[7] E connect(5, AF=2 10.0.0.1:22, 16): No route to host\nConnection closed by UNKNOWN",
            "No route to host",
        ),
        ("lab@10.0.0.1: Permission denied (publickey).", "lab@10.0.0.1: Permission denied (publickey)."),
        (
            "Connection timed out during banner exchange\nConnection to UNKNOWN",
            "Connection timed out during banner exchange",
        ),
        ("something else\nmux_client: broken", "mux_client: broken"),
        ("", "ssh does not say why"),
    ],
)
def test_the_reason_is_the_line_that_says_most(printed: str, reason: str) -> None:
    assert failure_reason(printed) == reason
