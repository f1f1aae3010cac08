"""Claims checked on a lab or on a recording of one, and reported."""
