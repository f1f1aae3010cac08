"""A kubeconfig of somebody's own cluster."""

from __future__ import annotations


def kubeconfig(server: str) -> str:
    """The text of a kubeconfig with one context, of the cluster ``prod/eu 1`` at a URL."""
    return f"""
apiVersion: v1
kind: Config
current-context: mine
contexts: [{{name: mine, context: {{cluster: "prod/eu 1", user: me}}}}]
clusters: [{{name: "prod/eu 1", cluster: {{server: "{server}"}}}}]
users: [{{name: me, user: {{token: x}}}}]
"""
