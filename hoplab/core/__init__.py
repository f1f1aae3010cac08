"""What everything may import: errors, paths, progress, files, waits, locks, packages, addresses."""
