"""What a user may set: one file for each step of the loop."""
