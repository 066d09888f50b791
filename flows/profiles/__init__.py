"""Profiles: what a run depends on, read from YAML, and what is wrong with one."""
