"""The way of a packet through a lab, there and back: every interface, rule and route, and where it ends.

``places`` finds the two ends, ``walk`` follows the packet over hosts by the facts of a snapshot, ``render`` prints the
hops. All of it is pure. ``live`` sends a real packet and compares its way with the predicted one.
"""
