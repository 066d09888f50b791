"""Temporal-difference targets, the fit of a value model, and its health."""
