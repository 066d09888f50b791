"""The `visloop` command, one file for each group of commands."""
