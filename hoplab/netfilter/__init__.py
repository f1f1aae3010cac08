"""What the rules of a host do with a packet, over iptables and nftables."""
