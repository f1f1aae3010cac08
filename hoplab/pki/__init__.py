"""Keys and certificates of a lab."""
