"""What everything may import: errors, paths, progress, files, addresses."""
