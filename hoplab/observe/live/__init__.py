"""Captures of several places at once while they run: tcpdump in many namespaces, one time base, one stream of packets.

places          what to capture, where: pods, nodes, the lab network
relay           the program on each node: runs tcpdump in namespaces, sends what it prints
node_stream     this machine's end of a relay
clocks          how far the nodes' clocks are ahead of ours
pcap_stream     packets out of what tcpdump prints
merge           packets of all places in the order of time
pcapng          the file that Wireshark reads
summary         one line for each packet
run             all of it, until it is stopped
"""
