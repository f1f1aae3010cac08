"""The hosts that somebody's own ssh_config or Ansible inventory names, and which of them is which node.

OpenSSH itself resolves the options of a host (``ssh -G``), so Include, Match, ProxyJump and patterns work as they do
for the user. Only the names of hosts are read from the file here. What is written for a run is a configuration that
includes the user's one and shares connections.
"""

from __future__ import annotations

import glob
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from hoplab.core import fs
from hoplab.core.errors import LabError

WILD = "*?"
MAX_INCLUDES = 16  # nested ones, as OpenSSH has it
CHECK = '[ "$(id -u)" = 0 ] && echo root || sudo -n /bin/sh -c "echo sudo"'
CONNECT_TIMEOUT = 60  # seconds until a host that does not answer is given up
LOGIN_TIMEOUT = 120.0  # seconds for the first login, which a busy host may need
SSH_FAILED = 255  # exit code of ssh itself


class HostsError(LabError):
    """Hosts that cannot be found, reached or used."""


class HostUnreachable(HostsError):
    """A host that does not answer, or whose login does not end."""


@dataclass(frozen=True)
class SshHost:
    """A host of an ssh_config: its name there, and the name or address that it is reached at."""

    alias: str
    hostname: str


@dataclass(frozen=True)
class NodeNames:
    """What a cluster calls one of its nodes."""

    name: str
    addresses: tuple[str, ...]  # InternalIP, ExternalIP, Hostname


def host_names(config: Path) -> tuple[str, ...]:
    """Return the names after ``Host`` in an ssh_config and the files that it includes, patterns too, except ``*``."""
    return tuple(dict.fromkeys(name for name in _names(config, 0) if not name.startswith("!") and name.strip("*")))


def _names(config: Path, depth: int) -> Iterator[str]:
    try:
        lines = config.read_text(errors="replace").splitlines()
    except OSError as error:
        raise HostsError(
            f"{config} can't be read as an ssh_config: {error.strerror}",
            remedy="give the file that `ssh -F FILE HOST` works with",
        ) from None
    for line in lines:
        try:
            words = shlex.split(line.replace("=", " ", 1), comments=True)
        except ValueError:
            continue  # ssh itself says what is wrong with the line
        match [word.lower() for word in words[:1]]:
            case ["host"]:
                yield from words[1:]
            case ["include"] if depth < MAX_INCLUDES:
                for pattern in words[1:]:
                    path = Path(pattern).expanduser()
                    where = path if path.is_absolute() else Path("~/.ssh").expanduser() / path
                    for found in sorted(glob.glob(str(where))):
                        yield from _names(Path(found), depth + 1)


def resolved(aliases: Iterable[str], config: Path) -> tuple[SshHost, ...]:
    """Return where each host is reached, by ``ssh -G``; raise HostsError for a file that ssh refuses."""

    def look(alias: str) -> SshHost:
        done = subprocess.run(
            ["ssh", "-G", "-F", str(config), alias],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            raise HostsError(
                f"ssh refuses {config}: {' '.join(done.stderr.split()) or done.returncode}",
                remedy=f"`ssh -G -F {config} {alias}` shows it",
            )
        options = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
        return SshHost(alias, options.get("hostname", alias))

    with ThreadPoolExecutor(max_workers=8) as pool:
        return tuple(pool.map(look, aliases))


def matched(nodes: Sequence[NodeNames], config: Path, named: str) -> dict[str, str]:
    """Return the host in the ssh_config of every node: the one of its name, otherwise the one at its address.

    ``named`` is the file that the user gave. Raise HostsError for a node with no host, or with several.
    """
    names = host_names(config)
    plain = [name for name in names if not set(WILD) & set(name)]
    patterns = [name for name in names if set(WILD) & set(name)]
    found: dict[str, str] = {}
    hosts: tuple[SshHost, ...] | None = None
    for node in nodes:
        short = node.name.partition(".")[0]
        by_name = [name for name in (node.name, short) if name in plain]
        if not by_name and any(fnmatchcase(node.name, pattern) for pattern in patterns):
            by_name = [node.name]
        if by_name:
            found[node.name] = by_name[0]
            continue
        hosts = resolved(plain, config) if hosts is None else hosts
        by_address = [host.alias for host in hosts if host.hostname in (*node.addresses, node.name)]
        by_address += [address for address in node.addresses if address in plain and address not in by_address]
        if len(by_address) > 1:
            raise HostsError(
                f"{' and '.join(by_address)} in {named} both lead to node {node.name}",
                remedy=f"call one of them {node.name}, or leave one out",
            )
        if not by_address:
            raise HostsError(
                f"{named} has no host for node {node.name} ({', '.join(node.addresses) or 'without an address'})",
                remedy=f"add `Host {node.name}` or a host with the node's address; it has {', '.join(names) or 'none'}",
            )
        found[node.name] = by_address[0]
    for node_name, alias in found.items():
        if twin := next((other for other, taken in found.items() if taken == alias and other != node_name), ""):
            raise HostsError(
                f"host {alias} in {named} is both node {node_name} and node {twin}",
                remedy="give each node a host of its own name",
            )
    return found


def shared_config(config: Path, folder: Path) -> Path:
    """Write an ssh_config that includes another one, asks for nothing and shares connections; return its path.

    The first value of an option counts, so the user's sharing of connections is not touched.
    """
    made = folder / "ssh_config"
    options = {
        "BatchMode": "yes",
        "LogLevel": "ERROR",
        "ControlMaster": "auto",
        "ControlPersist": "60",
        "ControlPath": f"{folder}/%C",
    }
    lines = ["Host *", *(f"  {name} {value}" for name, value in options.items()), f'Include "{config.resolve()}"']
    lines += ["Host *", f"  ConnectTimeout {CONNECT_TIMEOUT}"]  # last: another one of the user's counts
    fs.write(made, "\n".join(lines) + "\n", mode=0o600)
    return made


def config_of_inventory(inventory: Path, folder: Path) -> Path:
    """Write the hosts of an Ansible inventory as an ssh_config; return its path. Raise HostsError where it has none."""
    remedy = f"`ansible-inventory -i {inventory} --list` has to print its hosts"
    if not inventory.exists():
        raise HostsError(f"{inventory} can't be used as an inventory: no such file", remedy=remedy)
    program = Path(sys.executable).with_name("ansible-inventory")
    done = subprocess.run(
        [str(program), "-i", str(inventory), "--list"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    try:
        found = json.loads(done.stdout)
        variables = found.get("_meta", {}).get("hostvars", {})
        names = sorted({host for group in found.values() for host in group.get("hosts", ())} | set(variables))
    except (ValueError, AttributeError):
        names, variables = [], {}
    if done.returncode != 0 or not names:
        reason = " ".join(done.stderr.split())[-300:] or "it has no hosts"
        raise HostsError(f"{inventory} can't be used as an inventory: {reason}", remedy=remedy)
    blocks = [_block(name, variables.get(name, {}), inventory) for name in names]
    made = folder / "inventory_ssh_config"
    fs.write(made, "\n".join(blocks) + "\n", mode=0o600)
    return made


def _block(name: str, variables: Mapping[str, object], inventory: Path) -> str:
    """Return the block of a host: what its connection variables say."""
    options = {
        "HostName": variables.get("ansible_host") or variables.get("ansible_ssh_host"),
        "User": variables.get("ansible_user") or variables.get("ansible_ssh_user"),
        "Port": variables.get("ansible_port") or variables.get("ansible_ssh_port"),
        "IdentityFile": variables.get("ansible_ssh_private_key_file") or variables.get("ansible_private_key_file"),
    }
    lines = [f"{key} {_word(value)}" for key, value in options.items() if value]
    for variable in ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"):
        words = iter(shlex.split(str(variables.get(variable) or "")))
        for word in words:
            flag, value = word[:2], word[2:] or next(words, "")
            match flag:
                case "-o":
                    key, _, setting = value.replace("=", " ", 1).partition(" ")
                    lines.append(f"{key} {setting.strip()}")
                case "-J":
                    lines.append(f"ProxyJump {value}")
                case "-F":
                    lines.append(f"Include {_word(Path(value).expanduser().resolve())}")
                case _:
                    raise HostsError(
                        f"{variable} of {name} in {inventory} has {word}, which has no meaning in an ssh_config",
                        remedy="use -o OPTION=VALUE, -J HOST or -F FILE; or give --ssh-config",
                    )
    return "\n".join([f"Host {name}", *(f"  {line}" for line in lines)])


def _word(value: object) -> str:
    return f'"{value}"' if " " in str(value) else str(value)


def roots(
    aliases: Mapping[str, str],
    config: Path,
    named: str,
    lost: MutableMapping[str, HostUnreachable] | None = None,
    *,
    timeout_s: float = LOGIN_TIMEOUT,
) -> frozenset[str]:
    """Log in to every node; return those where the user is root. Raise HostsError where that or sudo does not work.

    With ``lost`` nodes that cannot be reached are put there, as long as another one can be.
    """

    def check(item: tuple[str, str]) -> str | HostUnreachable:
        node, alias = item
        try:
            done = subprocess.run(
                ["ssh", "-F", str(config), alias, CHECK],
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            return _unreachable(node, alias, f"no answer after {timeout_s:.0f} s", named)
        said = done.stdout.split()
        if done.returncode == 0 and said[-1:] in (["root"], ["sudo"]):
            return said[-1]
        error = _refused(node, alias, done.returncode, done.stderr.strip(), named)
        if isinstance(error, HostUnreachable):
            return error
        raise error

    with ThreadPoolExecutor(max_workers=max(1, len(aliases))) as pool:
        found = dict(zip(aliases, pool.map(check, aliases.items()), strict=True))
    gone = {node: said for node, said in found.items() if isinstance(said, HostUnreachable)}
    if gone and (lost is None or len(gone) == len(found)):
        raise next(iter(gone.values()))
    if lost is not None:
        lost.update(gone)
    return frozenset(node for node, said in found.items() if said == "root")


def _refused(node: str, alias: str, code: int, said: str, named: str) -> HostsError:
    last = said.splitlines()[-1] if said else f"it ended with {code}"
    where = _where(node, alias)
    if code == SSH_FAILED and "permission denied" in said.lower():
        return HostsError(
            f"{where} refuses the login: {last}",
            remedy=f"`ssh -o BatchMode=yes {alias}` has to work with {named}: set User and IdentityFile",
        )
    if code == SSH_FAILED:
        return _unreachable(node, alias, last, named)
    if "password" in said.lower() or "a terminal is required" in said.lower():
        return HostsError(
            f"sudo on {where} asks for a password",
            remedy="allow it without: `USER ALL=(ALL) NOPASSWD: ALL` in a file of /etc/sudoers.d, or log in as root",
        )
    return HostsError(
        f"the user on {where} can't become root: {last}",
        remedy="allow sudo there without a password, or log in as root",
    )


def _where(node: str, alias: str) -> str:
    return f"node {node}" if node == alias else f"node {node} (host {alias})"


def _unreachable(node: str, alias: str, why: str, named: str) -> HostUnreachable:
    return HostUnreachable(
        f"{_where(node, alias)} can't be reached over SSH: {why}",
        remedy=f"`ssh -v {alias}` with {named} shows why not",
    )


def close(aliases: Iterable[str], config: Path) -> None:
    """End the shared connections."""
    for alias in aliases:
        subprocess.run(["ssh", "-F", str(config), "-O", "exit", alias], capture_output=True, check=False)
