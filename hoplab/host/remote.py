"""Connections into the networks of the host behind a lab's libvirt: directly, or through SSH to that host.

A lab whose libvirt is on another host is reached from there: connections begin at the host end of its network, as those
of a local lab do. ``ssh -W`` makes one without a program on that host and without root.
"""

from __future__ import annotations

import shlex
import socket
import subprocess
import threading

from hoplab.core.errors import HostError
from hoplab.core.ip import with_port
from hoplab.spec.libvirt_uri import RemoteHost


def connection(address: str, port: int, timeout_s: float, remote: RemoteHost | None = None) -> socket.socket:
    """Return a connection to an address of the lab network; raise OSError where there is none.

    Through SSH nobody says whether the other end accepted: a refused connection ends at once.
    """
    if remote is None:
        return socket.create_connection((address, port), timeout_s)
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            ssh = subprocess.Popen(
                remote.ssh("-W", with_port(address, port)),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for this program, which closes its end
            )
        except BaseException:
            ours.close()
            raise
    threading.Thread(target=ssh.wait, name="ssh -W", daemon=True).start()  # it ends after our end of the connection
    ours.settimeout(timeout_s)
    return ours


def proxy_command(remote: RemoteHost) -> str:
    """Return the ProxyCommand of an ssh_config for machines of another host, which is asked to connect to them.

    The user's own configuration is that of the way to the host. The lab's is for machines alone.

    >>> proxy_command(RemoteHost("rack7", "ann"))
    'ssh -o BatchMode=yes -l ann -W [%h]:%p -- rack7'
    """
    words = remote.ssh("-W", "WHERE")
    return shlex.join(words).replace("%", "%%").replace("WHERE", "[%h]:%p")


def run(remote: RemoteHost, script: str, timeout_s: float = 60.0) -> str:
    """Run a shell script on the host; return its output. Raise HostError where it fails or SSH does."""
    try:
        done = subprocess.run(
            [*remote.ssh("-T"), "sh"], input=script, capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        why = f"{remote.name} does not answer within {timeout_s:.0f} s"
        raise HostError(why, remedy="./lab doctor checks that host") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise HostError(f"a command on {remote.name} failed: {said}", remedy="./lab doctor checks that host")
    return done.stdout
