"""kube-proxy's mode ipvs: no lab has it."""

from hoplab.spec.parts import ProxyPart

PART = ProxyPart(name="ipvs", refusal="is deprecated in Kubernetes")
