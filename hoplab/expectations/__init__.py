"""What each pluggable part of a lab must leave on its hosts."""
