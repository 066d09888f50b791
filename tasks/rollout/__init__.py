"""Answers of the policy, and others that are learned from beside them."""
