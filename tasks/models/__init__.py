"""From references to loaded models and decoded images."""
