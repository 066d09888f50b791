"""Objectives and training loops of the policy."""
