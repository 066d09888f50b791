"""Benchmarks: what is true of a caption, item by item."""
