"""Stages: one file each, named by its verb; a stage resolves references, calls core, publishes rows."""
