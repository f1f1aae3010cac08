"""hoplab: a multi-node Kubernetes networking lab on virtual machines, as code."""

__version__ = "0.1.0"
