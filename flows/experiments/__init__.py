"""Experiments: one module for each question that the papers leave open; `visloop experiment NAME` runs it."""
