"""The topology of a lab as a picture: a graph from a snapshot, one layout, and one renderer for each format; pure."""
