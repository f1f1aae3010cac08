"""Graphs that no recording shows: large labs, and names as long as Kubernetes allows."""

from __future__ import annotations

from hoplab.graph.model import DOWN, Edge, Graph, Vertex

LONG = "a-deployment-with-a-name-that-hardly-fits-into-any-picture-of-it-6d5f8b7c9d-x2k4z"


def large(nodes: int = 3, pods: int = 30, services: int = 12) -> Graph:
    """Return a lab with VXLAN tunnels between all nodes, pods dealt out evenly, and services of every third pod."""
    vertices = [Vertex("network", "network", "lab network", ("192.168.77.0/24",))]
    edges: list[Edge] = []
    names = [f"worker{number}" for number in range(1, nodes + 1)]
    for number, name in enumerate(names):
        vertices += [
            Vertex(name, "node", name, (f"192.168.77.{20 + number}", f"pods 10.244.{number}.0/24")),
            Vertex(f"{name}/routing", "routing", "routes", parent=name),
            Vertex(f"{name}/cni0", "bridge", "cni0", (f"10.244.{number}.1/24",), name),
            Vertex(f"{name}/flannel.1", "device", "flannel.1", ("VXLAN 1, udp 8472, mtu 1450",), name),
            Vertex(f"{name}/eth0", "device", "eth0", ("NIC, mtu 1500", f"192.168.77.{20 + number}/24"), name),
            Vertex(f"pod/kube-system/kube-proxy-{name}", "host_pod", f"kube-proxy-{name}", ("kube-system",), name),
        ]
        edges += [
            Edge("link", f"{name}/eth0", "network"),
            Edge("over", f"{name}/flannel.1", f"{name}/eth0"),
            Edge("routed", f"{name}/cni0", f"{name}/routing"),
        ]
        for other, there in enumerate(names):
            if there != name:
                route = f"{name}/route 10.244.{other}.0/24"
                via = (f"via 10.244.{other}.0",)
                vertices.append(Vertex(route, "route", f"10.244.{other}.0/24", via, name, to=there))
                edges.append(Edge("leads", route, f"{name}/flannel.1"))
            if there > name:
                edges.append(Edge("tunnel", f"{name}/flannel.1", f"{there}/flannel.1"))
    for number in range(pods):
        name = names[number % nodes]
        pod, veth = f"pod/shop/web-{number:02}", f"{name}/veth{number:08x}"
        label = LONG if number == 0 else f"web-{number:02}-6d5f8b7c9d-x2k4z"
        vertices.append(Vertex(pod, "pod", label, ("shop", f"10.244.{number % nodes}.{number + 2}"), name))
        vertices.append(Vertex(veth, "veth", f"veth{number:08x}", (), name))
        edges += [Edge("pair", pod, veth), Edge("port", veth, f"{name}/cni0")]
    for number in range(services):
        service = f"service/shop/service-{number:02}"
        details = ("shop", "LoadBalancer", f"10.96.0.{number}:80,443,8080", "node port 30080", "from outside 192.0.2.1")
        vertices.append(Vertex(service, "service", LONG[:40] if not number else f"service-{number:02}", details))
        targets = (number % max(pods, 1), (7 * number + 3) % max(pods, 1)) if pods else ()
        edges += [Edge("endpoint", service, f"pod/shop/web-{target:02}") for target in sorted(set(targets))]
    vertices.append(Vertex("ingress/shop/apps", "ingress", "apps", ("shop", "https://app1.yash.com", "http://shop")))
    edges.append(Edge("backend", "ingress/shop/apps", "service/shop/service-00", "/"))
    vertices.append(Vertex("host/192.168.77.1", "host", "192.168.77.1", ("gateway", "API server")))
    edges.append(Edge("link", "host/192.168.77.1", "network"))
    if services:
        edges.append(Edge("endpoint", "service/shop/service-01", "host/192.168.77.1", state=DOWN))
    known = {vertex.id for vertex in vertices}
    kept = tuple(edge for edge in edges if edge.source in known and edge.target in known)
    return Graph("lab large", ("flannel vxlan", "kube-proxy iptables"), tuple(vertices), kept)
