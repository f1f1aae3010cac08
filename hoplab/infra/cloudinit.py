"""Renders the NoCloud seed that cloud-init applies at a machine's first boot: pure text from the plan and the keys."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import yaml

from hoplab.spec.plan import NetworkPlan, NodePlan

USER = "lab"


@dataclass(frozen=True)
class CloudInit:
    """The three files of a NoCloud seed."""

    user_data: str
    meta_data: str
    network_config: str


def render(node: NodePlan, network: NetworkPlan, *, user_public: str, host_private: str, host_public: str) -> CloudInit:
    """Return the seed of one machine: its name, static address, user ``lab`` and host key."""
    user_data = "#cloud-config\n" + _dump(
        {
            "hostname": node.name,
            "fqdn": f"{node.name}.{network.domain}",
            "manage_etc_hosts": True,
            "users": [
                {
                    "name": USER,
                    "shell": "/bin/bash",
                    "sudo": "ALL=(ALL) NOPASSWD:ALL",
                    "lock_passwd": True,
                    "ssh_authorized_keys": [user_public],
                }
            ],
            "disable_root": True,
            "ssh_pwauth": False,
            "ssh_deletekeys": False,  # keep the given host keys; cloud-init then makes no others
            "ssh_keys": {"ed25519_private": host_private, "ed25519_public": host_public},
            "ssh": {"emit_keys_to_console": False},
            "no_ssh_fingerprints": True,
            "growpart": {"mode": "off"},  # the file system is on the whole disk, without a partition
            "resize_rootfs": True,
            "locale": False,
        }
    )
    both = [f"{node.address6}/{network.cidr6.prefixlen}"] if network.cidr6 else []
    routes6 = [{"to": "::/0", "via": str(network.gateway6)}] if network.cidr6 else []
    network_config = _dump(
        {
            "version": 2,
            "ethernets": {
                "eth0": {
                    "match": {"macaddress": node.mac},
                    "set-name": "eth0",
                    "dhcp4": False,
                    "dhcp6": False,
                    "accept-ra": False,
                    "addresses": [f"{node.address}/{node.prefix}", *both],
                    "routes": [{"to": "0.0.0.0/0", "via": str(network.gateway)}, *routes6],
                    "nameservers": {"addresses": [str(network.gateway)], "search": [network.domain]},
                }
            },
        }
    )
    return CloudInit(user_data, _meta_data(node.name, user_data, network_config), network_config)


def rekeyed(seed: CloudInit, node: str, *, user_public: str, host_private: str, host_public: str) -> CloudInit:
    """Return the seed with other keys, as ``render`` writes it for these."""
    document = yaml.safe_load(seed.user_data)
    document["users"][0]["ssh_authorized_keys"] = [user_public]
    document["ssh_keys"] = {"ed25519_private": host_private, "ed25519_public": host_public}
    user_data = "#cloud-config\n" + _dump(document)
    return CloudInit(user_data, _meta_data(node, user_data, seed.network_config), seed.network_config)


def _meta_data(node: str, user_data: str, network_config: str) -> str:
    """Return the name of an instance. A new id makes cloud-init apply the seed again on the same disk."""
    seed = hashlib.sha256((user_data + network_config).encode()).hexdigest()[:12]
    return _dump({"instance-id": f"{node}-{seed}", "local-hostname": node})


class _Dumper(yaml.SafeDumper):
    """A YAML dumper in the usual style of cloud-config: block style, with literal blocks for texts of several lines."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def _dump(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000)
