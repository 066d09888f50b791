"""One round of self-training and what all rounds share. Order only: every line calls a stage."""
