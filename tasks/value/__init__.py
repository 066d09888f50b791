"""Training of the value model."""
