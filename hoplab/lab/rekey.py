"""New keys for a lab that was made from another's checkpoint, before anyone can log in to it.

    files of the lab    the user's SSH key, host keys, known_hosts, seeds: written with the fork (checkpoint/fork.py)
    machines            host key, authorized key, stamp: by the guest agent, as soon as they run
    cluster             a new administrator's certificate in a group of the lab's own; the group of the origin's
                        administrator loses its rights

The door (hoplab.host.door) is closed until all of it is done. ``rekey.json`` in the lab's folder says that it is not:
`./lab start` and `./lab up` finish what a killed command left.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

from hoplab.cluster.api import KubernetesApi
from hoplab.cluster.direct import DirectConnection
from hoplab.cluster.stamps import STAMP_FILE
from hoplab.core import fs
from hoplab.core.errors import ClusterError, EngineError
from hoplab.core.paths import LabPaths
from hoplab.core.progress import Progress
from hoplab.core.serialization import from_json, to_json
from hoplab.core.wait import Expired, NotYet, Timing, slowness
from hoplab.host import agent, door, machines, netns
from hoplab.host.agent import AgentError, Done
from hoplab.lab.state import LabState
from hoplab.pki.certificates import Pair
from hoplab.pki.client_certificates import with_own_admin
from hoplab.pki.keys import HostKey, ensure_keys

FILE = "rekey.json"
AGENT_S = 60.0  # until a machine's agent answers: at once where it resumed, after a boot where it did not; scaled
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
ADMINS = "kubeadm:cluster-admins"  # kubeadm's binding of its group of the same name to cluster-admin
KUBELET_CLIENT = "hoplab:apiserver-kubelet-client"
SCRIPT = f"""\
set -eu
read -r user; read -r old; read -r public; read -r private; read -r stamps
umask 077
printf '%s\\n' "$user" >/home/lab/.ssh/authorized_keys
root=/root/.ssh/authorized_keys
[ ! -s $root ] || sed -i "s|$(echo "$old" | cut -d' ' -f2)|$(echo "$user" | cut -d' ' -f2)|" $root
key=/etc/ssh/ssh_host_ed25519_key
echo "$private" | base64 -d >$key
printf '%s\\n' "$public" >$key.pub
chmod 644 $key.pub
for pair in $stamps; do
  [ ! -e {STAMP_FILE} ] || sed -i "s|^${{pair%:*}}|${{pair#*:}}|" {STAMP_FILE}
done
sync /home/lab/.ssh/authorized_keys $key $key.pub
kill -HUP "$(cat /run/sshd.pid)" 2>/dev/null || systemctl reload-or-restart ssh
echo done
"""


class Requests(Protocol):
    """Requests to the API server as an administrator whom nothing is forbidden."""

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]: ...


@dataclass(frozen=True)
class Rekeying:
    """What the machines still have of the origin."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    user: str  # the public key that they accept
    stamps: Mapping[str, str]  # stamp of converge -> what it has to be, as names of the lab are in it


def admins_group(paths: LabPaths) -> str:
    """Return the group of the lab's own administrators."""
    return f"hoplab:cluster-admins:{paths.id}"


def plan(new: Path, what: Rekeying) -> None:
    """Write down, in a prepared lab's folder, that its machines have to get its keys; change the host's own stamp."""
    stamp = new / "control-plane" / "applied"
    if stamp.exists():
        text = stamp.read_text().strip()
        fs.write(stamp, what.stamps.get(text, text) + "\n")
    fs.write(new / FILE, json.dumps(to_json(what)) + "\n", mode=0o600)


def pending(paths: LabPaths) -> bool:
    """Return whether the lab's machines do not have its keys yet."""
    return (paths.root / FILE).exists()


def close_door(lab: LabState, paths: LabPaths) -> None:
    """Refuse logins while machines have another lab's keys; do nothing for any other lab."""
    if pending(paths):
        door.close(lab.netns)


def finish(lab: LabState, paths: LabPaths, progress: Progress) -> None:
    """Bring the lab's keys to its running machines and its cluster, then open the door; do nothing where they are.

    Raise EngineError or ClusterError where that fails: the door stays closed, and the next start tries again.
    """
    if not pending(paths):
        return
    progress.task("new keys")
    what = from_json(Rekeying, json.loads((paths.root / FILE).read_text()))
    keys = ensure_keys(paths, [node.name for node in lab.nodes])
    with ThreadPoolExecutor(max(1, len(lab.nodes))) as pool:
        texts = {node.name: _given(what, keys.user_public, keys.host[node.name]) for node in lab.nodes}
        list(pool.map(partial(_rekey_machine, lab), texts, texts.values()))
    _rekey_cluster(lab, paths)
    door.open(lab.netns)
    (paths.root / FILE).unlink()


def _given(what: Rekeying, user: str, host: HostKey) -> str:
    """Return what the script reads: a line for each of its values."""
    private = b64encode(host.private.encode()).decode()
    stamps = " ".join(f"{old}:{new}" for old, new in what.stamps.items())
    return "\n".join([user.strip(), what.user, host.public.strip(), private, stamps, ""])


def _rekey_machine(lab: LabState, node: str, given: str) -> None:
    done = _by_agent(lab, node, SCRIPT, given)
    if done.code != 0 or "done" not in done.out:
        raise _not_changed(node, done.err.strip() or f"exit code {done.code}")


def _by_agent(lab: LabState, node: str, script: str, given: str = "") -> Done:
    """Run a script on a node by its guest agent, once that answers."""

    def ran() -> Done | NotYet:
        try:
            with agent.opened(lab.libvirt_uri, machines.domain_name(lab.id, node)) as guest:
                return guest.run(script, given)
        except AgentError as error:
            return NotYet(error.message)

    try:
        return Timing(slowness=partial(slowness, lab.accel)).until(ran, AGENT_S, poll_s=0.5)
    except Expired as expired:
        raise _not_changed(node, expired.reason) from None


def _not_changed(node: str, why: str) -> EngineError:
    return EngineError(
        f"{node} could not get keys of its own: {why}",
        remedy="nobody can log in to it; ./lab start tries again, or make the lab without another's checkpoint: "
        "./lab destroy, then ./lab up --fresh",
    )


# The cluster


def _rekey_cluster(lab: LabState, paths: LabPaths) -> None:
    """Make the lab's own administrator, and take the rights of the origin's away."""
    files: _Files = _Hosted(paths) if lab.hosted else _OnNode(lab)
    own = with_own_admin(
        files.read("admin.conf"), Pair(files.read("pki/ca.crt"), files.read("pki/ca.key")), admins_group(paths)
    )
    files.write("admin.conf", own)
    fs.write(paths.kubeconfig, own, mode=0o600)
    if lab.hosted:
        with netns.entered(lab.netns):
            super_admin = DirectConnection(paths.control_plane / "etc/kubernetes/super-admin.conf")
            bind(KubernetesApi(cast(Any, super_admin)), admins_group(paths))
    else:
        bind(cast(_OnNode, files).request, admins_group(paths))


def bind(api: Requests, group: str) -> None:
    """Let only ``group`` be the cluster's administrators; raise ClusterError where the API server refuses.

    The API server itself was in the old group, as a client of kubelets: it gets a binding of its own.
    """
    api_server = _binding(KUBELET_CLIENT, "system:kubelet-api-admin", "User", "kube-apiserver-kubelet-client")
    _require(api("POST", BINDINGS, api_server), (201, 409))
    _require(api("PUT", f"{BINDINGS}/{ADMINS}", _binding(ADMINS, "cluster-admin", "Group", group)), (200,))


def _binding(name: str, role: str, kind: str, subject: str) -> dict[str, Any]:
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": group, "kind": kind, "name": subject}],
    }


def _require(answer: tuple[int, dict[str, Any]], good: tuple[int, ...]) -> None:
    status, found = answer
    if status not in good:
        raise ClusterError(
            f"the rights of the origin's administrator could not be taken away: {found.get('message', status)}",
            remedy="nobody can log in; ./lab start tries again",
        )


class _Files(Protocol):
    """Files of the control plane, below /etc/kubernetes."""

    def read(self, name: str) -> str: ...
    def write(self, name: str, text: str) -> None: ...


class _Hosted:
    def __init__(self, paths: LabPaths) -> None:
        self._folder = paths.control_plane / "etc/kubernetes"

    def read(self, name: str) -> str:
        return (self._folder / name).read_text()

    def write(self, name: str, text: str) -> None:
        fs.write(self._folder / name, text, mode=0o600)


class _OnNode:
    """Files of a control plane in a machine, by its guest agent."""

    def __init__(self, lab: LabState) -> None:
        self._lab = lab
        self._node = next(node.name for node in lab.nodes if node.role == "control-plane")

    def read(self, name: str) -> str:
        return self._run(f"cat /etc/kubernetes/{name}")

    def write(self, name: str, text: str) -> None:
        self._run(f"cd /etc/kubernetes; umask 077; cat >{name}.new && mv {name}.new {name}", text)

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Create or replace an object by the node's own kubectl."""
        verb = {"POST": "create", "PUT": "replace"}[method]
        command = f"kubectl --kubeconfig /etc/kubernetes/super-admin.conf {verb} -f - 2>&1"
        done = _by_agent(self._lab, self._node, command, json.dumps(body))
        if done.code == 0:
            return {"POST": 201, "PUT": 200}[method], {}
        return (409 if "AlreadyExists" in done.out else 500), {"message": done.out.strip()}

    def _run(self, script: str, given: str = "") -> str:
        done = _by_agent(self._lab, self._node, script, given)
        if done.code != 0:
            raise _not_changed(self._node, done.err.strip())
        return done.out
