"""Rewards as pure functions of scores."""
