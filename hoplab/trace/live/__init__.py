"""A trace of a real packet: it is sent, and seen at every interface that it crosses.

identity        what makes it known everywhere: a TCP sequence number or a nonce; filters and rules for it
node_program    what a relay does for a trace: it listens in namespaces and sends the packet
sightings       the packet as it was seen at an interface
drops           what the kernel's tracepoints report: dropped packets, routing decisions
observed, leg    each predicted hop with where it was seen
ending          where a packet was seen last, and why it went no farther
compare         the predicted way beside what was seen
heard           what a node has sent
reported        the rules that a packet met there, in the words of their user
request         what an ingress controller is asked
run             all of it, on a running lab
record          a trace in a file
"""
