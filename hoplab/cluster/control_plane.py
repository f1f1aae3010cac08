"""A hosted control plane: kubeadm's static pods as native, supervised processes on the host end of the lab network.

kubeadm writes its files below ``<lab>/control-plane`` as if that were ``/`` (``kubeadm --rootfs``), so nothing of the
workstation's own /etc/kubernetes is touched. The manifests are the single description: the command of each pod is what
runs, and the pod's own probe says when it is ready. supervisord (one per lab) keeps the processes alive; everything it
needs is on disk, so ``start`` brings the control plane back after a reboot of the host without Ansible.

    $ ls .lab/dev/control-plane
    bin  etc  log  supervisord.conf  var
"""

from __future__ import annotations

import argparse
import http.client
import re
import shlex
import ssl
import subprocess
import sys
import xmlrpc.client
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import HTTPSHandler, ProxyHandler, build_opener

import yaml
from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]  # has no types

from hoplab.cluster import pod_routes
from hoplab.core import fs
from hoplab.core.errors import ClusterError, HostError
from hoplab.core.paths import LabPaths
from hoplab.core.wait import Expired, NotYet, until
from hoplab.host import netns, processes

ALIVE = ("STARTING", "RUNNING", "BACKOFF")  # supervisord's states of a program that it keeps going
ORDER = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")  # each needs the ones before it
INSIDE = re.compile(r"(?<==)(?=/etc/kubernetes/|/var/lib/etcd)")  # where a flag's value is a path below the root folder
SUPERVISOR_S = 20.0  # until supervisord listens
READY_S = 120.0  # native start takes about 10 s in all; a host with every core busy needs a multiple
END_S = 30.0  # etcd finishes its writes; what is left then is killed
LAST_WORDS = 5  # lines of a program's log that an error shows


@dataclass(frozen=True)
class Program:
    """One of the four processes, as its static-pod manifest describes it."""

    name: str  # "kube-apiserver"
    command: tuple[str, ...]  # with kubeadm's own paths, "/etc/kubernetes/..."
    ready_url: str  # "https://192.168.77.1:6443/readyz"


def read_manifest(text: str) -> Program:
    """Return the program of a kubeadm static-pod manifest."""
    pod = yaml.safe_load(text)
    container = pod["spec"]["containers"][0]
    probe = (container.get("readinessProbe") or container["startupProbe"])["httpGet"]
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
    port = ports.get(probe["port"], probe["port"])
    return Program(
        name=container["name"],
        command=tuple(container["command"]),
        ready_url=f"{probe['scheme'].lower()}://{probe['host']}:{port}{probe['path']}",
    )


def supervisord_conf(programs: list[Program], root: Path, run: Path) -> str:
    """Return supervisord's configuration: nothing starts by itself, because each program needs the one before it."""
    lines = [
        "[supervisord]",
        f"logfile = {root}/log/supervisord.log",
        "logfile_maxbytes = 1MB",
        "logfile_backups = 1",
        f"pidfile = {run}/control-plane.pid",
        "umask = 077",
        "",
        "[unix_http_server]",
        f"file = {run}/control-plane.sock",
        "chmod = 0700",
        "",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
    ]
    image = (root / "bin").resolve()
    for priority, program in enumerate(programs):
        executable, *flags = program.command
        command = shlex.join([f"{root}/bin/{executable}", *(INSIDE.sub(str(root), flag) for flag in flags)])
        lines += [
            "",
            f"[program:{program.name}]",
            f"command = {command}",
            # not read by the program: another image must be another configuration, or nobody would restart it
            f'environment = HOPLAB_BIN="{image}"',
            f"priority = {priority}",  # stopped in reverse
            "autostart = false",
            "autorestart = true",
            "startretries = 100",
            "stopwaitsecs = 2",  # an API server with watchers would take a minute; it has nothing to lose
            "redirect_stderr = true",
            f"stdout_logfile = {root}/log/{program.name}.log",
            "stdout_logfile_maxbytes = 10MB",
            "stdout_logfile_backups = 1",
        ]
    return "\n".join(lines).replace("%", "%%") + "\n"  # supervisord expands %(name)s


class HostedControlPlane:
    """The processes of one lab's hosted control plane; ``netns`` is the namespace that they run in."""

    def __init__(self, paths: LabPaths, netns: str) -> None:
        self.root = paths.control_plane
        self.run = paths.run
        self.netns = netns
        self.conf = self.root / "supervisord.conf"
        self.lab = paths.lab

    def start(self) -> list[str]:
        """Start what does not run (or runs with another configuration), in order, each when the one before is ready.

        Returns the names of the programs that were started, none when all was well.
        """
        programs = self._programs()
        self.run.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.root / "log").mkdir(exist_ok=True, mode=0o700)
        (self.root / "var/lib/etcd").mkdir(parents=True, exist_ok=True, mode=0o700)
        pod_routes.apply(self.root / pod_routes.FILE, self.netns)
        fs.write(self.conf, supervisord_conf(programs, self.root, self.run))
        started = []
        with self._supervisor() as supervisor:
            self._reload(supervisor)
            for wave in (programs[:1], programs[1:2], programs[2:]):  # the last two need the API server alone
                for program in wave:
                    if supervisor.getProcessInfo(program.name)["statename"] not in ALIVE:
                        supervisor.startProcess(program.name, False)
                        started.append(program.name)
                for program in wave:
                    self._wait_ready(program, supervisor)
        return started

    def stop(self, *, at_once: bool = False) -> list[str]:
        """End supervisord and with it the four processes; return what was stopped.

        ``at_once`` all are killed, which takes no seconds. etcd has written what it has acknowledged, and reads its log
        at its next start.
        """
        stopped = []
        with suppress(OSError, xmlrpc.client.Fault), self._rpc() as supervisor:
            stopped = [info["name"] for info in supervisor.getAllProcessInfo() if info["statename"] in ALIVE]
            pid = supervisor.getPID()
            if not at_once:
                supervisor.shutdown()
            processes.end([pid], grace_s=END_S, at_once=at_once)
        stopped += self._end_strays(at_once=at_once)
        with suppress(HostError):  # the namespace may be gone
            pod_routes.remove(self.netns)
        return [f"control plane: {name}" for name in sorted(set(stopped))]

    def running(self) -> bool:
        """Return whether all four processes run."""
        states = self.states()
        return all(states.get(name) in ALIVE[:2] for name in ORDER)

    def states(self) -> dict[str, str]:
        """Return supervisord's state of each program, "RUNNING"; none where supervisord does not run."""
        with suppress(OSError, xmlrpc.client.Fault), self._rpc() as supervisor:
            return {info["name"]: info["statename"] for info in supervisor.getAllProcessInfo()}
        return {}

    def last_words(self, name: str) -> list[str]:
        """Return the last lines of a program's log; none where there is no log."""
        log = self.root / f"log/{name}.log"
        return log.read_text(errors="replace").splitlines()[-LAST_WORDS:] if log.exists() else []

    def _programs(self) -> list[Program]:
        try:
            return [read_manifest((self.root / f"etc/kubernetes/manifests/{name}.yaml").read_text()) for name in ORDER]
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise ClusterError(
                f"the hosted control plane of lab {self.lab!r} is not complete on disk: {error!r}",
                remedy=f"`./lab up --lab {self.lab}` completes it",
            ) from None

    @contextmanager
    def _rpc(self) -> Iterator[Any]:
        """Open supervisord's XML-RPC interface on its unix socket; raise OSError when nothing answers."""
        transport = SupervisorTransport(None, None, f"unix://{self.run}/control-plane.sock")
        try:
            supervisor = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor
            supervisor.getState()
            yield supervisor
        except http.client.HTTPException as error:
            raise OSError(str(error)) from None
        finally:
            transport.close()

    @contextmanager
    def _supervisor(self) -> Iterator[Any]:
        """Open supervisord's interface; start supervisord first where it does not run."""
        try:
            with self._rpc() as supervisor:
                supervisor.getPID()
        except OSError:
            self._end_strays()
            self._spawn()
        with self._rpc() as supervisor:
            yield supervisor

    def _spawn(self) -> None:
        """Start supervisord: a daemon in its own session, which outlives this command; wait until it answers."""
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.conf)]
        with netns.entered(self.netns):
            done = subprocess.run(
                command,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},  # nothing of the user's environment stays in a daemon
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        if done.returncode == 0:
            with suppress(Expired):
                return until(self._answers, SUPERVISOR_S, poll_s=0.05)
        raise ClusterError(
            f"supervisord of the hosted control plane does not run: {done.stdout.strip() or 'it gave no reason'}",
            remedy=f"see its log, then try again: `./lab start --lab {self.lab}`",
            log=str(self.root / "log/supervisord.log"),
        )

    def _answers(self) -> NotYet | None:
        try:
            with self._rpc():
                return None
        except OSError as error:
            return NotYet(str(error))

    @staticmethod
    def _reload(supervisor: Any) -> None:
        """Make supervisord read its configuration again; stop and add anew the programs that changed."""
        (added, changed, removed) = supervisor.reloadConfig()[0]
        for name in [*changed, *removed]:
            supervisor.stopProcessGroup(name)
            supervisor.removeProcessGroup(name)
        for name in [*added, *changed]:
            supervisor.addProcessGroup(name)

    def _wait_ready(self, program: Program, supervisor: Any) -> None:
        """Wait for the manifest's own probe; the error carries the last lines of the program's log."""
        trusting = ssl.create_default_context()  # as the kubelet does: probes do not verify
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
        opener = build_opener(ProxyHandler({}), HTTPSHandler(context=trusting))

        def ready() -> str | NotYet:
            """Return "", or why it never will be."""
            state = supervisor.getProcessInfo(program.name)
            if state["statename"] not in ALIVE:
                return f"it is {state['statename']} ({state['spawnerr'] or state['description']})"
            try:
                with netns.entered(self.netns), opener.open(program.ready_url, timeout=5):
                    return ""
            except OSError as error:
                return NotYet(f"{program.ready_url}: {getattr(error, 'reason', error)}")

        try:
            reason = until(ready, READY_S, poll_s=0.1)
        except Expired as expired:
            reason = expired.reason
        if not reason:
            return
        log = self.root / f"log/{program.name}.log"
        raise ClusterError(
            "\n    ".join(
                [f"{program.name} of the hosted control plane is not ready: {reason}", *self.last_words(program.name)]
            ),
            remedy=f"see its log, then try again: `./lab start --lab {self.lab}`",
            log=str(log),
        )

    def _end_strays(self, *, at_once: bool = False) -> list[str]:
        """End programs of this control plane that lost their supervisord; return their names."""
        strays: dict[int, str] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                first = (folder / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
                if first.startswith(f"{self.root}/bin/"):
                    strays[int(folder.name)] = Path(first).name
        processes.end(strays, grace_s=END_S, at_once=at_once)
        return sorted(strays.values())


def main() -> None:
    """Start (or stop) the control plane and print what was started; a role calls this inside the lab's namespace."""
    parser = argparse.ArgumentParser(prog="python -m hoplab.cluster.control_plane")
    parser.add_argument("lab")
    parser.add_argument("--stop", action="store_true")
    asked = parser.parse_args()
    hosted = HostedControlPlane(LabPaths(asked.lab), netns="")
    try:
        for name in hosted.stop() if asked.stop else hosted.start():
            print(f"{'stopped' if asked.stop else 'started'} {name}")
    except ClusterError as error:
        sys.exit(f"{error.message} (log: {error.log})")


if __name__ == "__main__":
    main()
