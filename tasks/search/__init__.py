"""Search for better captions."""
