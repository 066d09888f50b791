"""The demo world: its data set and the training of its models."""
