"""Experiments: one module per question that the papers leave open; `visloop experiment NAME` runs one."""
