"""Kubeconfigs: of somebody's own cluster, as kubectl writes it, and the one that `up` writes for a lab."""

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


# Of a lab
OWN = """\
apiVersion: v1
kind: Config
clusters:
- cluster: {certificate-authority-data: Q0E=, server: "https://192.168.77.1:6443"}
  name: dev
contexts:
- context: {cluster: dev, user: kubernetes-admin}
  name: kubernetes-admin@dev
current-context: kubernetes-admin@dev
users:
- name: kubernetes-admin
  user: {client-certificate-data: Q0VSVA==, client-key-data: S0VZ}
"""

# As kubectl writes it
KUBECTLS = """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: UFJPRA==
    server: https://prod.example.org:6443
  name: prod
contexts:
- context:
    cluster: prod
    user: me
  name: prod
current-context: prod
kind: Config
preferences: {}
users:
- name: me
  user:
    token: secret
"""
