"""Cilium in the place of kube-proxy: services are entries of eBPF maps, and the cluster has no kube-proxy.

Programs at the sockets of nodes and pods translate a ClusterIP when connect() is called, before there is a packet.
Programs at the uplink translate what comes from outside to a NodePort. There are no chains, so none has a name.
"""

from hoplab.spec.parts import ProxyPart

PART = ProxyPart(name="cilium", order=30, cni="cilium", note="no kube-proxy, with the CNI cilium")
SERVICES_ARE_IN = "maps of Cilium"
LOOKUP = ""
MASKING = ""


def service_chain(_service: str, _protocol: str) -> str:
    return ""


def local_chain(_service: str, _protocol: str) -> str:
    return ""


def external_chain(_service: str, _protocol: str) -> str:
    return ""


def endpoint_chain(_service: str, _protocol: str, _endpoint: str, *, sticky: bool) -> str:
    return ""
