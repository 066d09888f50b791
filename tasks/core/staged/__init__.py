"""Answers in four tagged stages as text."""
