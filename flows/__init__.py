"""Flows: the order of the stages, and nothing else; the `visloop` command."""
