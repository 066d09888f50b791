"""Figures of experiments as pure functions."""
