"""Peak memory of every stage that uses the accelerator, computed from a model's sizes and a profile's settings."""
