"""The workstation: network namespaces, a libvirtd of the lab's own, acceleration, machines, figures."""
