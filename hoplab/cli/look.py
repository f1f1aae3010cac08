"""Verbs that look at a running lab, or at a recording of one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from hoplab.cli import completion
from hoplab.cli.cluster_options import cluster_options, target_of
from hoplab.cli.options import PASS_ON, json_option, lab_flag, lab_given, lab_option, print_spec_notice, text_table
from hoplab.core.errors import LabError
from hoplab.core.paths import PROJECT, LabPaths


@click.command()
@lab_option
@json_option
def status(paths: LabPaths, as_json: bool) -> None:
    """Show machines and nodes; exit code 1 when something is down."""
    from hoplab.lab import status as lab_status

    current = lab_status.status(paths)
    print_spec_notice(paths)
    if as_json:
        click.echo(json.dumps(current, indent=2))
    else:
        rows = [("node", "role", "address", "machine", "kubernetes", "podCIDR")]
        for row in current["nodes"]:
            ready = {True: "Ready", False: "NotReady", None: "-"}[row["ready"]]
            rows.append((row["name"], row["role"], row["address"], row["machine"], ready, row["podCIDR"] or "-"))
        click.echo(text_table(rows))
        for row in current["nodes"]:
            if ahead := row.get("clock"):
                way = "ahead" if ahead > 0 else "behind"
                click.echo(
                    f"note: the clock of {row['name']} is {abs(ahead)} s {way} or more; ./lab start sets it", err=True
                )
        click.echo(f"api {current['api']}, control plane {current['placement']}, accel {current['accel']}")
    if not current["healthy"]:
        sys.exit(1)


INCLUDE = f"""\b
ssh, scp, rsync and editors know the machines of all labs as hoplab-<lab>-<node>
with this line at the top of ~/.ssh/config:

\b
Include "{PROJECT}/inventory/*.ssh_include"
"""


@click.command(context_settings=PASS_ON, epilog=INCLUDE)
@lab_option
@click.argument("node", shell_complete=completion.nodes)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(paths: LabPaths, node: str, command: tuple[str, ...]) -> None:
    """Log in to NODE, or run COMMAND there."""
    from hoplab.lab import state

    names = [machine.name for machine in state.load_summary(paths).nodes]
    if node not in names:
        raise LabError(f"there is no machine {node!r} in lab {paths.lab}", remedy=f"one of: {', '.join(names)}")
    os.execvp("ssh", ["ssh", "-F", str(paths.ssh_config), node, *command])


@click.command(context_settings={**PASS_ON, "help_option_names": []})
@lab_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kubectl(paths: LabPaths, arguments: tuple[str, ...]) -> None:
    """Run kubectl on the lab: ./lab kubectl get pods -A."""
    from hoplab.host import netns
    from hoplab.lab import state

    current = state.load_summary(paths)
    program = Path(current.image_bin) / "kubectl"
    if not program.exists():
        raise LabError(f"{program} is gone", remedy="`./lab image build` makes it again")
    with netns.entered(current.netns):
        os.execve(program, ["kubectl", *arguments], current.environment(paths))


HELM = """\b
The first time it is built from its Go module, which takes minutes. What follows its name is for helm:

\b
./lab helm help                                      helm's own help
./lab helm install web ./chart -n shop --create-namespace
./lab helm list -A
"""


@click.command(context_settings=PASS_ON, epilog=HELM)
@lab_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def helm(paths: LabPaths, arguments: tuple[str, ...]) -> None:
    """Run helm on the lab: ./lab helm list -A."""
    from hoplab.core.console import progress
    from hoplab.lab import helm as lab_helm

    lab_helm.run(paths, arguments, progress())


@click.command()
@lab_option
def kubeconfig(paths: LabPaths) -> None:
    """Print a kubeconfig that works from this host's shell.

    `up` adds the same to your own kubeconfig as context hoplab-<lab>, unless the spec has lab:kubeconfig off.
    """
    from hoplab.lab import host_access

    click.echo(host_access.kubeconfig_text(paths), nl=False)


@click.command()
@lab_option
def uri(paths: LabPaths) -> None:
    """Print the URI of the lab's libvirt, for virsh and virt-manager.

    \b
    virsh -c "$(./lab uri)" list --all
    virt-manager --connect "$(./lab uri)"
    """
    from hoplab.lab import state

    found = state.load_summary(paths)
    click.echo(found.libvirt_uri)
    if found.netns and not (paths.run / "libvirt-sock").exists():
        click.echo(f"note: this libvirt does not run now; ./lab start{lab_flag(paths.lab)} starts it", err=True)


@click.command()
@lab_option
@click.argument("targets", nargs=-1, metavar="[[LOCAL:]TARGET[:PORT]]...")
def forward(paths: LabPaths, targets: tuple[str, ...]) -> None:
    """Publish the ingress or services on this machine's loopback.

    The ports are open until Ctrl-C.

    \b
    ./lab forward                              the ingress address: 8080 is its port 80, 8443 its port 443
    ./lab forward hoplab-verify/single         a service, by namespace and name; each of its TCP ports
    ./lab forward 9000:hoplab-verify/single:80 ... one port of it, as port 9000
    """
    from hoplab.core import host_network
    from hoplab.lab import forwarder, port_forward, state

    print_spec_notice(paths)
    wanted = [port_forward.Wanted.parse(target) for target in targets or (port_forward.INGRESS,)]
    forwards = port_forward.plan(wanted, port_forward.look(paths))
    carrier = forwarder.Forwarder(
        host_network.run(lambda: forwarder.listen(forwards)),
        state.load_summary(paths).netns,
        paths.ssh_config,
        lambda text: click.echo(text, err=True),
        state.load_summary(paths).remote,
    )
    click.echo("\n".join([*port_forward.described(forwards, paths.ca if paths.ca.exists() else None), "until Ctrl-C"]))
    carrier.run()
    click.echo("ended")


@click.command()
@lab_option
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@cluster_options
def record(paths: LabPaths, file: Path | None, force: bool, **options: Any) -> None:
    """Write a recording of the lab to FILE, for `verify --recording`.

    It holds what the lab's facts are read from, and no secrets. Exit code 1 when a part of the lab could not be looked
    at: the recording is written, and says what is missing. With --kubeconfig it is of a cluster that hoplab did not
    make; nothing is changed there.
    """
    from hoplab.core.console import progress
    from hoplab.verify import recording

    target = target_of(options)
    if target and lab_given():
        raise click.UsageError("--kubeconfig and --lab exclude each other: it is of no lab")
    screen = progress()
    if target:
        with screen.phase("looking at the cluster"):
            made, found = recording.record_cluster(target, file, force=force, say=screen.task)
        click.echo(found)
    else:
        print_spec_notice(paths)
        with screen.phase("looking at the lab"):
            made = recording.record(paths, file, force=force, say=screen.task)
    click.echo(f"recorded {made}")
    click.echo(f"verify    ./lab verify --recording {made.file}")
    for outage in made.outages:
        click.echo(f"outage    {outage.problem}", err=True)
    if made.outages:
        sys.exit(1)


@click.command()
@click.argument("recordings", nargs=-1, required=True, type=click.Path(path_type=Path))
def compare(recordings: tuple[Path, ...]) -> None:
    """Compare recordings: packets from pod to pod and to a service.

    The output is markdown.

    \b
    ./lab compare tests/recordings/flannel-vxlan.json tests/recordings/calico-bgp.json
    """
    from hoplab.observe import recording_format
    from hoplab.verify import comparison

    print(comparison.page(recording_format.load(file) for file in recordings), end="")


VERBS = (status, ssh, kubectl, helm, kubeconfig, forward, uri, record, compare)
