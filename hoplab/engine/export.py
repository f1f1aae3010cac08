"""The embedded engine's state in Pulumi's deployment format: `pulumi stack import` imports a running lab.

Objects have the ids and outputs of the libvirt provider, so a preview after the import shows no change. Secrets are in
plain text: Pulumi encrypts them during the import.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from hoplab.engine import schema
from hoplab.engine.monitor import PROJECT_NAME, SECRET, SIGNATURE, STACK
from hoplab.engine.state_file import Resource, StateFile

FORMAT = 3
DYNAMIC = "pulumi:providers:pulumi-python"  # provider of the dynamic resources
CONSOLE = {"sourceHost": "127.0.0.1", "sourceService": "0"}
GRAPHICS = {"listenAddress": "127.0.0.1", "websocket": 0}
DOMAIN = {"running": True, "coreosIgnition": "", "fwCfgName": "opt/com.coreos/config", "qemuAgent": False}


def deployment(state: StateFile, stack: str, kubeconfig: str = "") -> dict[str, Any]:
    """Return every resource of the state file in the format of `pulumi stack export`."""
    dynamic = f"urn:pulumi:{stack}::{PROJECT_NAME}::{DYNAMIC}::default"
    runner = {"urn": dynamic, "type": DYNAMIC, "custom": True, "id": str(uuid5(NAMESPACE_URL, dynamic))}
    resources: list[dict[str, Any]] = []
    for resource in state.ordered():
        entry = _entry(resource, kubeconfig)
        if resource.type == STACK:
            entry["outputs"] = {
                name: _secret(value) if name in ("kubeconfig", "sshKey") else value
                for name, value in {**(state.outputs or {}), "kubeconfig": kubeconfig}.items()
            }
            resources = [entry, runner, *resources]
            continue
        if resource.type in schema.DYNAMIC:
            entry["provider"] = f"{dynamic}::{runner['id']}"
        resources.append(entry)
    return {"version": FORMAT, "deployment": {"manifest": {}, "resources": resources}}


def _entry(resource: Resource, kubeconfig: str) -> dict[str, Any]:
    inputs = {name: _secret(value) if name in resource.secrets else value for name, value in resource.inputs.items()}
    entry: dict[str, Any] = {
        "urn": resource.urn,
        "custom": resource.custom,
        "type": resource.type,
        "inputs": inputs,
        "outputs": {**inputs, **resource.outputs},
        "parent": resource.parent,
        "dependencies": list(resource.dependencies),
        "propertyDependencies": {name: list(urns) for name, urns in resource.property_dependencies.items()},
    }
    if resource.custom:
        entry |= {"id": resource.id, "provider": resource.provider}
    match resource.type:
        case schema.PROVIDER:
            entry["inputs"] = entry["outputs"] = {**inputs, "version": version("pulumi-libvirt")}
        case schema.DOMAIN:
            consoles = [{**CONSOLE, **console} for console in resource.inputs.get("consoles", [])]
            graphics = {**GRAPHICS, **resource.inputs.get("graphics", {})}
            entry["outputs"] |= {**DOMAIN, "consoles": consoles, "graphics": graphics}
        case schema.CLUSTER:
            entry["outputs"] |= {"kubeconfig": _secret(kubeconfig)}
            entry["additionalSecretOutputs"] = ["kubeconfig"]
    return {name: value for name, value in entry.items() if value not in ("", [], {})}


def _secret(value: Any) -> Mapping[str, str]:
    """Return a value in Pulumi's form of a secret, which the import encrypts."""
    return {SIGNATURE: SECRET, "plaintext": json.dumps(value)}
