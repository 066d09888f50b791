"""Benchmarks, paired comparisons, health, drift, and the promotion gate."""
