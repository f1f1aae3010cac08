"""The host behind a libvirt URI: this one, or another one that SSH reaches."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

LOCAL = ("", "unix")  # transports to a libvirt of this host, where the URI names no host
OVER_SSH = ("ssh",)  # libvirt's own ssh: the user's keys and ~/.ssh/config, as for SSH to the machines


@dataclass(frozen=True)
class RemoteHost:
    """A host whose libvirt is reached over SSH, with what the URI says of the way there."""

    host: str
    user: str = ""
    port: int = 0
    keyfile: str = ""
    verify: bool = True  # the host's key

    @property
    def name(self) -> str:
        """
        >>> RemoteHost("rack7", "ann").name
        'ann@rack7'
        """
        return f"{self.user}@{self.host}" if self.user else self.host

    def ssh(self, *options: str) -> list[str]:
        """Return the ssh command to it, as libvirt makes it: with the user's own configuration.

        >>> RemoteHost("rack7", "ann", 2222).ssh("-T")
        ['ssh', '-o', 'BatchMode=yes', '-p', '2222', '-l', 'ann', '-T', '--', 'rack7']
        """
        words = ["ssh", "-o", "BatchMode=yes"]
        if not self.verify:
            words += ["-o", "StrictHostKeyChecking=no"]
        if self.port:
            words += ["-p", str(self.port)]
        if self.user:
            words += ["-l", self.user]
        if self.keyfile:
            words += ["-i", self.keyfile]
        return [*words, *options, "--", self.host]


def remote_host(uri: str) -> RemoteHost | None:
    """Return the host of a URI such as qemu+ssh://ann@rack7/system; None for a libvirt of this host.

    >>> remote_host("qemu+ssh://ann@rack7:2222/system?keyfile=/k&no_verify=1")
    RemoteHost(host='rack7', user='ann', port=2222, keyfile='/k', verify=False)
    >>> remote_host("qemu:///system") is None
    True
    """
    if not uri or uri_issue(uri):
        return None
    parts = urlsplit(uri)
    if not parts.hostname:
        return None
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    return RemoteHost(
        parts.hostname,
        parts.username or "",
        parts.port or 0,
        options.get("keyfile", ""),
        verify=options.get("no_verify", "0") == "0",
    )


def uri_issue(uri: str) -> tuple[str, str] | None:
    """Return what is wrong with a URI for a lab, and a hint; None where nothing is.

    >>> uri_issue("qemu+tls://rack7/system")[0]
    'qemu+tls://rack7/system gives no way to the machines'
    >>> uri_issue("qemu:///system") is None
    True
    """
    found = re.fullmatch(r"(?:qemu|test)(?:\+([a-z0-9]+))?://\S*", uri)
    if not found:
        return f"{uri!r} is neither a libvirt of ours nor a URI", "private, system, or a URI such as qemu:///system"
    try:
        parts = urlsplit(uri)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        return f"{uri} is no URI: {error}", "for instance qemu+ssh://user@host/system"
    if parts.path.endswith("/session"):
        return f"{uri} cannot make a lab network", "the system's libvirt: /system in place of /session"
    transport = found[1] or ""
    if host and transport not in OVER_SSH:
        return (
            f"{uri} gives no way to the machines",
            f"qemu+ssh://user@{host}/system: SSH to machines takes the same way",
        )
    if host and (host.startswith("-") or (parts.username or "").startswith("-")):
        return f"{uri} names no host", "for instance qemu+ssh://user@host/system"
    if not host and transport not in LOCAL:
        return f"{uri} names no host", f"qemu+{transport}://user@host/system, or qemu:///system for this one"
    return None
