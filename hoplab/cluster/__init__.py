"""From machines to a usable cluster: inventory, Ansible, the hosted control plane, the Kubernetes API."""
