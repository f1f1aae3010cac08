"""The spec of a lab and the plan computed from it: pure."""
