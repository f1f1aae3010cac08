"""What the lab needs of the machine it runs on: namespaces, a libvirtd of its own, acceleration, figures, locks."""
