"""The exercises, one a file; there is no list to edit."""
