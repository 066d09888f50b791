"""Searches: pure functions over callables, each with a complete trace."""
