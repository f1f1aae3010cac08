"""Hosts of somebody's own ssh_config or inventory: which of them is which node, and what is wrong with them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hoplab.observe import ssh_hosts
from hoplab.observe.ssh_hosts import HostsError, NodeNames, SshHost

ALPHA, BETA = NodeNames("alpha.example", ("10.9.8.20",)), NodeNames("beta.example", ("10.9.8.21", "fd00::21"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config"


def refused(call: object, *arguments: object) -> HostsError:
    assert callable(call)
    with pytest.raises(HostsError) as caught:
        call(*arguments)
    assert caught.value.remedy
    return caught.value


def test_names_are_those_of_every_included_file(config: Path, tmp_path: Path) -> None:
    (tmp_path / "more.conf").write_text("Host beta 'gamma one'\n  Include more.conf\n")
    config.write_text(
        "# mine\nHost alpha !not web-* *\n  HostName 10.0.0.1\n"
        f"Include {tmp_path}/*.conf\nhost=delta\nHost 'open\nHost alpha\n"
    )
    assert ssh_hosts.host_names(config) == ("alpha", "web-*", "beta", "gamma one", "delta")


def test_a_file_that_includes_itself_ends(config: Path) -> None:
    config.write_text(f"Host alpha\nInclude {config}\n")
    assert ssh_hosts.host_names(config) == ("alpha",)


def test_a_file_that_is_not_there(config: Path) -> None:
    assert refused(ssh_hosts.host_names, config).message == (
        f"{config} can't be read as an ssh_config: No such file or directory"
    )


def test_ssh_itself_resolves_a_host(config: Path) -> None:
    config.write_text("Host box\n  HostName 10.9.8.20\nMatch host box\n  Port 2222\n")
    assert ssh_hosts.resolved(["box", "other"], config) == (SshHost("box", "10.9.8.20"), SshHost("other", "other"))


def test_a_file_that_ssh_refuses(config: Path) -> None:
    config.write_text("Host box\n  NoSuchOption yes\n")
    error = refused(ssh_hosts.resolved, ["box"], config)
    assert error.message.startswith(f"ssh refuses {config}: ") and "nosuchoption" in error.message.lower()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Host alpha.example\nHost beta.example", {"alpha.example": "alpha.example", "beta.example": "beta.example"}),
        ("Host alpha\nHost beta", {"alpha.example": "alpha", "beta.example": "beta"}),
        ("Host *.example\n  User me", {"alpha.example": "alpha.example", "beta.example": "beta.example"}),
        (
            "Host one\n  HostName 10.9.8.20\nHost two\n  HostName fd00::21",
            {"alpha.example": "one", "beta.example": "two"},
        ),
        (
            "Host 10.9.8.20 two\nHost two\n  HostName beta.example",
            {"alpha.example": "10.9.8.20", "beta.example": "two"},
        ),
        # a name counts more than an address
        (
            "Host alpha\n  HostName 10.1.1.1\nHost a\n  HostName 10.9.8.20\nHost beta",
            {"alpha.example": "alpha", "beta.example": "beta"},
        ),
    ],
)
def test_a_node_is_the_host_of_its_name_or_at_its_address(config: Path, text: str, found: dict[str, str]) -> None:
    config.write_text(text)
    assert ssh_hosts.matched([ALPHA, BETA], config, "config") == found


def test_a_node_without_a_host_is_named_with_what_there_is(config: Path) -> None:
    config.write_text("Host alpha\nHost gamma\n  HostName 10.9.8.99\n")
    error = refused(ssh_hosts.matched, [ALPHA, BETA], config, "config")
    assert error.message == "config has no host for node beta.example (10.9.8.21, fd00::21)"
    assert "`Host beta.example`" in error.remedy and error.remedy.endswith("it has alpha, gamma")


def test_two_hosts_for_one_node_are_not_chosen_from(config: Path) -> None:
    config.write_text("Host one\n  HostName 10.9.8.20\nHost two\n  HostName 10.9.8.20\n")
    error = refused(ssh_hosts.matched, [ALPHA], config, "config")
    assert error.message == "one and two in config both lead to node alpha.example"


def test_one_host_is_not_two_nodes(config: Path) -> None:
    config.write_text("Host alpha\n")
    nodes = [ALPHA, NodeNames("alpha.other", ())]
    assert refused(ssh_hosts.matched, nodes, config, "config").message == (
        "host alpha in config is both node alpha.example and node alpha.other"
    )


def test_the_users_options_stay_and_nothing_is_asked_for(config: Path, tmp_path: Path) -> None:
    config.write_text("Host box\n  HostName 10.9.8.20\n  User me\n  ProxyJump door\n  BatchMode no\n")
    made = ssh_hosts.shared_config(config, tmp_path)
    shown = subprocess.run(["ssh", "-G", "-F", str(made), "box"], capture_output=True, text=True, check=True).stdout
    lines = ("hostname 10.9.8.20", "user me", "proxyjump door", "batchmode yes", "controlmaster auto")
    for line in (*lines, f"connecttimeout {ssh_hosts.CONNECT_TIMEOUT}"):
        assert line in shown.splitlines()


def test_an_inventory_is_an_ssh_config_too(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.ini"
    inventory.write_text(
        "[nodes]\nalpha ansible_host=10.9.8.20 ansible_user=me ansible_port=2222\n"
        "beta ansible_host=10.9.8.21 ansible_ssh_private_key_file=/keys/id\n"
        "[nodes:vars]\nansible_ssh_common_args=-o ProxyJump=door -o StrictHostKeyChecking=yes\n"
    )
    made = ssh_hosts.config_of_inventory(inventory, tmp_path)
    assert ssh_hosts.matched([ALPHA, BETA], made, "hosts.ini") == {"alpha.example": "alpha", "beta.example": "beta"}
    text = made.read_text()
    for line in ("HostName 10.9.8.20", "User me", "Port 2222", "IdentityFile /keys/id", "ProxyJump door"):
        assert f"  {line}\n" in text


@pytest.mark.parametrize("text", [None, "[nodes\n", ""])
def test_a_file_that_is_no_inventory(tmp_path: Path, text: str | None) -> None:
    inventory = tmp_path / "hosts.ini"
    if text is not None:
        inventory.write_text(text)
    error = refused(ssh_hosts.config_of_inventory, inventory, tmp_path)
    assert error.message.startswith(f"{inventory} can't be used as an inventory: ")
    assert "ansible-inventory -i" in error.remedy


def test_arguments_of_an_inventory_that_an_ssh_config_cannot_have(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.ini"
    inventory.write_text("alpha ansible_ssh_extra_args='-v -X'\n")
    error = refused(ssh_hosts.config_of_inventory, inventory, tmp_path)
    assert error.message == (
        f"ansible_ssh_extra_args of alpha in {inventory} has -v, which has no meaning in an ssh_config"
    )


def program(folder: Path, script: str) -> None:
    (folder / "ssh").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "ssh").chmod(0o755)


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder before all others in PATH, for a program `ssh`."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_a_user_is_root_or_becomes_it(fake_ssh: Path, config: Path) -> None:
    program(fake_ssh, 'case "$3" in alpha) echo motd; echo root;; *) echo sudo;; esac')
    aliases = {"alpha.example": "alpha", "beta.example": "beta"}
    assert ssh_hosts.roots(aliases, config, "config") == frozenset({"alpha.example"})
    ssh_hosts.close(aliases.values(), config)


def test_a_node_that_cannot_be_reached_is_lost_while_another_one_can(fake_ssh: Path, config: Path) -> None:
    program(fake_ssh, 'case "$3" in alpha) echo root;; *) echo "Connection refused" >&2; exit 255;; esac')
    lost: dict[str, ssh_hosts.HostUnreachable] = {}
    assert ssh_hosts.roots({"one": "alpha", "two": "beta"}, config, "config", lost) == frozenset({"one"})
    assert lost["two"].message == "node two (host beta) can't be reached over SSH: Connection refused"
    error = refused(ssh_hosts.roots, {"two": "beta", "three": "gamma"}, config, "config", {})
    assert error.message.startswith("node two (host beta) can't be reached over SSH")


def test_a_login_that_does_not_end_is_given_up(fake_ssh: Path, config: Path) -> None:
    program(fake_ssh, "exec sleep 60")
    with pytest.raises(ssh_hosts.HostUnreachable, match=r"can't be reached over SSH: no answer after 0 s"):
        ssh_hosts.roots({"one": "alpha"}, config, "config", timeout_s=0.2)


CONNECT = "ssh: connect to host 10.9.8.20 port 22: Connection refused"


@pytest.mark.parametrize(
    ("said", "code", "message", "remedy"),
    [
        ("me@h: Permission denied (publickey).", 255, "refuses the login: me@h: Permission denied", "IdentityFile"),
        (CONNECT, 255, f"can't be reached over SSH: {CONNECT}", "ssh -v a"),
        ("Host key verification failed.", 255, "can't be reached over SSH: Host key verification failed.", "ssh -v a"),
        ("", 255, "can't be reached over SSH: it ended with 255", "ssh -v a"),
        ("sudo: a password is required", 1, "asks for a password", "NOPASSWD"),
        ("sudo: a terminal is required to read the password", 1, "asks for a password", "NOPASSWD"),
        ("me is not in the sudoers file.", 1, "can't become root: me is not in the sudoers file.", "allow sudo"),
        ("sh: 1: sudo: not found", 127, "can't become root: sh: 1: sudo: not found", "log in as root"),
        ("", 0, "can't become root: it ended with 0", "log in as root"),
    ],
)
def test_what_keeps_from_being_root_is_named(
    fake_ssh: Path, config: Path, said: str, code: int, message: str, remedy: str
) -> None:
    program(fake_ssh, f"echo welcome; [ -z '{said}' ] || echo '{said}' >&2; exit {code}")
    error = refused(ssh_hosts.roots, {"alpha.example": "a"}, config, "config")
    assert message in error.message and remedy in error.remedy
    assert "node alpha.example (host a)" in error.message
