"""The outcome of a packet's way through the rules of a host, over iptables and nftables."""
