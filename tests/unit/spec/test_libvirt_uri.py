"""URIs of a libvirt: which host they name, and which a lab can't use."""

from __future__ import annotations

import pytest

from hoplab.spec.libvirt_uri import RemoteHost, remote_host, uri_issue


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("", None),
        ("qemu:///system", None),
        ("qemu+unix:///system?socket=/run/x", None),
        ("qemu+ssh://rack7/system", RemoteHost("rack7")),
        ("qemu+ssh://ann@rack7:2222/system?keyfile=/k", RemoteHost("rack7", "ann", 2222, "/k")),
        ("qemu+ssh://ann@[2001:db8::7]/system?no_verify=1", RemoteHost("2001:db8::7", "ann", verify=False)),
        ("qemu+tls://rack7/system", None),
    ],
)
def test_the_host_of_a_uri(uri: str, host: RemoteHost | None) -> None:
    assert remote_host(uri) == host


@pytest.mark.parametrize(
    ("uri", "problem", "hint"),
    [
        (
            "xen:///",
            "'xen:///' is neither a libvirt of ours nor a URI",
            "private, system, or a URI such as qemu:///system",
        ),
        ("qemu:///session", "cannot make a lab network", "/system in place of /session"),
        ("qemu+ssh://ann@rack7/session", "cannot make a lab network", "/system in place of /session"),
        ("qemu+tls://rack7/system", "gives no way to the machines", "qemu+ssh://user@rack7/system"),
        ("qemu+tcp://rack7/system", "gives no way to the machines", "qemu+ssh://user@rack7/system"),
        ("qemu+ssh:///system", "names no host", "qemu+ssh://user@host/system"),
        ("qemu+ssh://-oProxyCommand=x/system", "names no host", "qemu+ssh://user@host/system"),
        ("qemu+ssh://rack7:port/system", "is no URI", "for instance qemu+ssh://user@host/system"),
    ],
)
def test_what_a_lab_cannot_use(uri: str, problem: str, hint: str) -> None:
    found = uri_issue(uri)
    assert found
    assert problem in found[0] and hint in found[1]


def test_ssh_takes_the_way_of_the_uri_and_the_users_own_configuration() -> None:
    way = RemoteHost("rack7", "ann", 2222, "/k", verify=False)
    assert way.ssh("-W", "a:1") == [
        *("ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-p", "2222", "-l", "ann", "-i", "/k"),
        *("-W", "a:1", "--", "rack7"),
    ]
