"""For maintainers: the project's own test, and the learners' pages."""
