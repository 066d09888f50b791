"""Tiny random vision-language models, built without a hub: one module a family of architectures."""
