"""The outcome of a packet in the rules of a host, over iptables and nftables."""
