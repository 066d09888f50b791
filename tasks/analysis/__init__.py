"""Stages that only experiments use."""
