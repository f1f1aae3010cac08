"""What a kube-proxy mode promises about services, as data: computed from the Kubernetes API, compared with the rules.

One mode is one module of this folder, found by its name in the spec.
"""
