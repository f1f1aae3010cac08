"""Options that name a cluster which hoplab did not make, for the verbs that look at one."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hoplab.cli.options import file_option

if TYPE_CHECKING:
    from hoplab.verify.foreign import Target

NAMES = ("ssh_config", "inventory", "pod_cidr", "service_cidr", "traffic", "probe_image")


class Range(click.ParamType[IPv4Network]):
    """A range of IPv4 addresses."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> IPv4Network:
        try:
            return value if isinstance(value, IPv4Network) else IPv4Network(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def cluster_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a cluster that hoplab did not make: how to reach it, and ranges that it does not say."""
    for option in reversed(
        (
            file_option("--kubeconfig", "Look at a cluster that hoplab did not make: its kubeconfig."),
            file_option("--ssh-config", "... and the ssh_config with its nodes, by their names or addresses."),
            file_option("--inventory", "... or an Ansible inventory with them."),
            click.option("--pod-cidr", type=Range(), metavar="RANGE", help="... its pods' range, if it is not found."),
            click.option("--service-cidr", type=Range(), metavar="RANGE", help="... its services' range, likewise."),
        )
    ):
        function = option(function)
    return function


def traffic_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of lessons that send packets on such a cluster."""
    function = click.option(
        "--probe-image", metavar="IMAGE", default="", help="... the image of these pods: agnhost, or hoplab's echo."
    )(function)
    return click.option(
        "--traffic",
        is_flag=True,
        help="... also check what sends packets: makes pods in a namespace of their own, and removes it.",
    )(function)


def target_of(options: dict[str, Any]) -> Target | None:
    """Remove the options of a cluster from a verb's and return what they name; None without --kubeconfig.

    Raise UsageError for a combination without a meaning.
    """
    kubeconfig: Path | None = options.pop("kubeconfig")
    given = {name: options.pop(name) for name in NAMES if name in options}
    if kubeconfig is None:
        if stray := next((name for name, value in given.items() if value), ""):
            raise click.UsageError(f"--{stray.replace('_', '-')} goes with --kubeconfig: a lab needs none of it")
        return None
    if bool(given["ssh_config"]) == bool(given["inventory"]):
        raise click.UsageError("--kubeconfig goes with one of --ssh-config and --inventory: how to log in to the nodes")
    if given.get("probe_image") and not given.get("traffic"):
        raise click.UsageError("--probe-image goes with --traffic: nothing is created without it")
    from hoplab.verify.discovery import Given
    from hoplab.verify.foreign import Target

    more = {"probe_image": given["probe_image"]} if given.get("probe_image") else {}
    return Target(
        kubeconfig,
        given["ssh_config"],
        given["inventory"],
        traffic=bool(given.get("traffic")),
        given=Given(given["pod_cidr"], given["service_cidr"]),
        **more,
    )
