"""Scores and rewards of sentences and object words."""
